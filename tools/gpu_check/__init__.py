"""The parts of tools/gpu, and the page that they fill."""
