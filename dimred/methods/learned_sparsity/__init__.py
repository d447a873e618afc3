"""Learned sparsity: thresholds, gates and penalties that are trained together with the weights."""
