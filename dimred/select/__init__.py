"""Selection of the weights to train: top-k, allocations to layers, schedules, and drop and grow."""
