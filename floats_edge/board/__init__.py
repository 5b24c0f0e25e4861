"""Boards from the desk: floats-edge sends itself and a bundle over ssh, works there, and checks what comes back."""
