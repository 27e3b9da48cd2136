"""Online deployments as Azure ML's own files describe them: read, checked, resolved to what is on this machine."""
