"""Records as tables and plots: on the console, as Markdown, as an image, as one HTML page."""
