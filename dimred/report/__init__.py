"""Run folders, read back as tables and pictures. Imports neither torch nor Hydra."""
