"""Experiments: a training script with its run configuration, and the runs of it."""
