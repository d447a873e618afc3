"""Learned sparsity: thresholds, gates and penalties that train with the weights."""
