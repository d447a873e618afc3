"""Pruning at initialisation: the mask is chosen once, before training."""
