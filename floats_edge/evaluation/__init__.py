"""Accuracy under attack, and parity between a trained network and its export."""
