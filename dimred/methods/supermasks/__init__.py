"""Supermasks: train a mask of frozen initial weights (strong lottery tickets)."""
