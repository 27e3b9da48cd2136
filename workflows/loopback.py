"""Listening on 127.0.0.1. Background processes import it, so it loads nothing but sockets."""

from __future__ import annotations

import socket


def listen(port: int, backlog: int) -> socket.socket:
    """Listen on 127.0.0.1.

    Args:
        port: The port; 0 for a free one.
        backlog: Connections that the system queues until they are accepted.

    Raises:
        OSError: The port is taken, or only root may listen there.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if hasattr(socket, "SO_REUSEPORT"):  # not Windows, where it would share the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(backlog)
    except OSError:
        listener.close()
        raise
    return listener
