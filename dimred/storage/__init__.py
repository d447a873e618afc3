"""What lies on disk: run folders, masks, tensors, and the compact file."""
