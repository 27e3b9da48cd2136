"""Pipeline files: Azure ML's own pipeline.yml, read, checked and resolved before anything runs."""
