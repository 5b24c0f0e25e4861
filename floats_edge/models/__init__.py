"""Backbones, built over any kind of layer."""
