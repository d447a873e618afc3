"""Structured pruning: coupled channels, and the smaller model without them."""
