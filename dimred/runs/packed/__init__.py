"""Runs side by side: worker processes on every GPU, or on the CPU, that live for a whole sweep."""
