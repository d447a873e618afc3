"""Sparse arithmetic on CPUs: products with the trained entries of a weight alone."""
