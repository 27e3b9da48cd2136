"""Environments: what a service or a step runs in, as a virtual environment or as an image."""
