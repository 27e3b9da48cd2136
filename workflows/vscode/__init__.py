"""VS Code's side: what F5 runs before it attaches, and what it has read when it was pressed."""
