"""Lottery tickets: train, prune, rewind the remaining weights, and repeat."""
