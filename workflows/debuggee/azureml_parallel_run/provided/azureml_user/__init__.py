"""What Azure ML puts beside entry scripts, by its name."""
