"""Records rendered for the console, as Markdown, PNG and HTML."""
