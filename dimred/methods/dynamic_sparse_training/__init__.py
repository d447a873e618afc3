"""Dynamic sparse training: the network is sparse from the start, and its mask changes during
training."""
