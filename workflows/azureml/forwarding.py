"""The way from a port on 127.0.0.1 here to the gate of a step on a node, over the network or through the relay.

The gate asks for the run's token first. The editor knows nothing of tokens; whoever else reaches the node's port has
none.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

#: Seconds for a node to answer.
REACH_SECONDS = 5.0
#: What a gate answers to the right token.
_WELCOME = b"OK\n"


class NetworkTransport:
    """Connects to nodes; in the place of an SSH transport, for :class:`workflows.remote.forwarding.Forward`.

    Args:
        token: The run's; empty for a port that is open to all.
    """

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, patience: float) -> NetworkTransport:
        """There is nothing to wait for."""
        return self

    def open_channel(self, kind: str, address: tuple[str, int], peer: Any, timeout: float) -> _Channel:
        """A connection to a gate that has been given the token."""
        connection = connect_to_gate(address, self._token, timeout)
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


def connect_to_gate(address: tuple[str, int], token: str, timeout: float) -> socket.socket:
    """Connect to a step's gate, and give it the token.

    Raises:
        OSError: It cannot be reached, or something else is there.
    """
    connection = socket.create_connection(address, timeout)
    try:
        send_token(connection, token)
    except BaseException:
        connection.close()
        raise
    return connection


def send_token(connection: Any, token: str) -> None:
    """Give the run's token to a gate.

    Args:
        connection: A socket, or a channel with `sendall` and `recv`.
        token: The token; empty for a gate that asks for none.

    Raises:
        OSError: Something else is there.
    """
    if not token:
        return
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


def reason_unreachable(address: tuple[str, int], token: str) -> str:
    """Why a step's gate cannot be reached from here; empty where it can. The gate minds no such visit."""
    try:
        connect_to_gate(address, token, REACH_SECONDS).close()
    except TimeoutError:
        return "nothing answers"
    except OSError as error:
        return error.strerror or str(error)
    return ""


class ContainerTransport:
    """Connects to gates in a container; in the place of an SSH transport, as :class:`Network`.

    Args:
        container: Gives the connection to the container, in so many seconds; None where there is none by then.
        token: The run's; empty for a gate that asks for none.
    """

    def __init__(self, container: Callable[[float], Any], token: str) -> None:
        self._container, self._token = container, token

    def __call__(self, patience: float) -> ContainerTransport | None:
        """Wait for a connection to the container, for so many seconds; None where none comes."""
        return self if self._container(patience) is not None else None

    def open_channel(self, kind: str, address: tuple[str, int], peer: Any, timeout: float) -> Any:
        """A connection to a gate that has been given the token.

        Raises:
            Exception: What the container raises, or an OSError: something else is there.
        """
        connected = self._container(0.0)
        if connected is None:
            raise ConnectionError("the connection to the container is lost")
        channel = connected.open_channel(kind, address, peer, timeout=timeout)
        try:
            channel.settimeout(timeout)
            send_token(channel, self._token)
            channel.settimeout(None)
        except BaseException:
            channel.close()
            raise
        return channel

    def reason_unreachable(self, address: tuple[str, int]) -> str:
        """Why a gate in the container cannot be reached; empty where it can."""
        try:
            self.open_channel("direct-tcpip", address, ("127.0.0.1", 0), REACH_SECONDS).close()
        except TimeoutError:
            return "nothing answers"
        except Exception as error:
            # paramiko's own: nobody listens there, or the connection has gone.
            if not (isinstance(error, (OSError, EOFError)) or type(error).__module__.startswith("paramiko")):
                raise
            return str(error) or type(error).__name__
        return ""
