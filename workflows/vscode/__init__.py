"""VS Code: its launch chains and tasks, F5, and its files."""
