"""What people type: each task reads its flags, calls a flow, and shows the result."""
