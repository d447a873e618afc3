"""Runs, read back from their folders, and what they add up to. Nothing here computes, imports torch
or Hydra."""
