"""Latency, memory and the conditions they were measured under."""
