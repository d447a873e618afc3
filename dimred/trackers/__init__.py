"""Experiment trackers: TensorBoard, Weights & Biases, MLflow, Trackio, or one of your own.

Each is a short file with a `Tracker`; observer.py calls the trackers of a run and contains their
failures. Their packages are imported when a run begins to use them."""
