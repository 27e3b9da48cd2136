"""Logs: following one as it grows, interleaving several, and the last lines of one."""
