"""The way from a port on 127.0.0.1 here to the gate of a step on a node, which asks for the run's token first.

The editor knows nothing of tokens; whoever else reaches the node's port has none.
"""

from __future__ import annotations

import socket
from typing import Any

#: Seconds for a node to answer.
REACH_SECONDS = 5.0
#: What a gate answers to the right token.
_WELCOME = b"OK\n"


class Network:
    """Connects to nodes; in the place of an SSH transport, for :class:`workflows.remote.forwarding.Forward`.

    Args:
        token: The run's; empty for a port that is open to all.
    """

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, patience: float) -> Network:
        """There is nothing to wait for."""
        return self

    def open_channel(self, kind: str, address: tuple[str, int], peer: Any, timeout: float) -> _Channel:
        """A connection to a gate that has been given the token."""
        connection = call(address, self._token, timeout)
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return _Channel(connection)


class _Channel:
    """A socket with a channel's names."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.sendall = connection.sendall
        self.recv = connection.recv
        self.close = connection.close

    def shutdown_write(self) -> None:
        """Say that nothing more comes."""
        self._connection.shutdown(socket.SHUT_WR)


def call(address: tuple[str, int], token: str, timeout: float) -> socket.socket:
    """Connect to a step's gate, and give it the token.

    Raises:
        OSError: It cannot be reached, or something else is there.
    """
    connection = socket.create_connection(address, timeout)
    try:
        if token:
            connection.sendall(f"AUTH {token}\n".encode())
            answer = b""
            # Byte by byte: what follows belongs to the debugger.
            while not answer.endswith(b"\n") and len(answer) < len(_WELCOME):
                received = connection.recv(1)
                if not received:
                    raise ConnectionError("what answers there is not this step")
                answer += received
            if answer != _WELCOME:
                raise ConnectionError("what answers there is not this step")
    except BaseException:
        connection.close()
        raise
    return connection


def out_of_reach(address: tuple[str, int], token: str) -> str:
    """Why a step's gate cannot be reached from here; empty where it can. The gate minds no such visit."""
    try:
        call(address, token, REACH_SECONDS).close()
    except TimeoutError:
        return "nothing answers"
    except OSError as error:
        return error.strerror or str(error)
    return ""
