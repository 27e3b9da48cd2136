"""Logs: one followed as it grows, several side by side, the last lines of one that ended badly."""
