"""FLOATS training."""
