"""Snapshots of failures: read, looked through, shown to an editor. What writes them: ``workflows/debuggee``."""
