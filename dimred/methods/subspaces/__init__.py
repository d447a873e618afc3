"""Train in a subspace: few numbers that make a network, or a line of networks."""
