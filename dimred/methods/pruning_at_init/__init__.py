"""Pruning at initialisation: coordinates chosen once, before training."""
