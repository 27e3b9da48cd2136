"""Snapshots of failures: reading, inspecting and showing them to an editor. ``workflows/debuggee`` writes them."""
