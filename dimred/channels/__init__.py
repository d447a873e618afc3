"""Structured pruning: coupled channels, and the smaller model that remains."""
