"""Readers of power, clock and temperature sensors."""
