"""Recognizes the kinds of Azure ML's YAML files, and finds files by registered names."""
