"""The training loop, recipes, checkpoints and costs."""
