"""Azure ML's own YAML files: which kind one is, and which one has a name."""
