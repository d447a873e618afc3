"""Freezing: train a part of the parameters and freeze the others."""
