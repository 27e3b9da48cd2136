"""The agent: what runs on the remote machine before the program is installed there. Standard library only."""
