"""Runs on this machine: what is kept of each on disk, and the background process that does its steps."""
