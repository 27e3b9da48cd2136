"""The developer's side: launch.json, a DAP client, readiness, inspection without an editor."""
