"""Reads and checks Azure ML's files of online deployments, and resolves them to files on this machine."""
