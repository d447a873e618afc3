"""Lottery tickets: train, prune, rewind, again."""
