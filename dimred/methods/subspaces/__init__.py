"""Subspaces: train the coordinates of a random subspace, or a line or simplex of networks."""
