"""The stories, each a chain of small steps: deployment so far."""
