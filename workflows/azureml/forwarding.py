"""Connects a port on this machine's 127.0.0.1 to the gate of a step on a node, over the network or through the relay.

A gate requires the run's token before anything else. The editor does not know the token, so it is sent here on the
editor's behalf. Others who reach the node's port do not have it.
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
    """Connects to nodes over the network, with the interface of an SSH transport.

    :class:`workflows.remote.forwarding.Forward` uses it.

    Args:
        token: The run's token; empty for a port that requires none.
    """

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, patience: float) -> NetworkTransport:
        """This transport: there is nothing to wait for."""
        return self

    def open_channel(self, kind: str, address: tuple[str, int], peer: Any, timeout: float) -> _Channel:
        """A connection to a gate, after the token was accepted."""
        connection = connect_to_gate(address, self._token, timeout)
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return _Channel(connection)


class _Channel:
    """A socket with the methods of an SSH channel."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.sendall = connection.sendall
        self.recv = connection.recv
        self.close = connection.close

    def shutdown_write(self) -> None:
        """Signal the end of what is sent."""
        self._connection.shutdown(socket.SHUT_WR)


def connect_to_gate(address: tuple[str, int], token: str, timeout: float) -> socket.socket:
    """Connect to a step's gate and send the token.

    Raises:
        OSError: The gate cannot be reached, or something else answers.
    """
    connection = socket.create_connection(address, timeout)
    try:
        send_token(connection, token)
    except BaseException:
        connection.close()
        raise
    return connection


def send_token(connection: Any, token: str) -> None:
    """Send the run's token to a gate and wait until it is accepted.

    Args:
        connection: A socket, or a channel with `sendall` and `recv`.
        token: The token; empty for a gate that requires none.

    Raises:
        OSError: Something else answers.
    """
    if not token:
        return
    connection.sendall(f"AUTH {token}\n".encode())
    answer = b""
    # Read byte by byte: what follows belongs to the debugger.
    while not answer.endswith(b"\n") and len(answer) < len(_WELCOME):
        received = connection.recv(1)
        if not received:
            raise ConnectionError("what answers there is not this step")
        answer += received
    if answer != _WELCOME:
        raise ConnectionError("what answers there is not this step")


def reason_unreachable(address: tuple[str, int], token: str) -> str:
    """Why a step's gate cannot be reached from here; empty where it can.

    It connects to the gate and closes the connection, which does not disturb the gate.
    """
    try:
        connect_to_gate(address, token, REACH_SECONDS).close()
    except TimeoutError:
        return "nothing answers"
    except OSError as error:
        return error.strerror or str(error)
    return ""


class ContainerTransport:
    """Connects to gates in a container, with the interface of an SSH transport.

    Args:
        container: Returns the connection to the container within the given seconds; None where there is none by then.
        token: The run's token; empty for a gate that requires none.
    """

    def __init__(self, container: Callable[[float], Any], token: str) -> None:
        self._container, self._token = container, token

    def __call__(self, patience: float) -> ContainerTransport | None:
        """Wait up to `patience` seconds for a connection to the container; None where there is none."""
        return self if self._container(patience) is not None else None

    def open_channel(self, kind: str, address: tuple[str, int], peer: Any, timeout: float) -> Any:
        """A connection to a gate, after the token was accepted.

        Raises:
            Exception: What the container raises, or an OSError where something else answers.
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
            # paramiko raises its own errors where nothing listens there or the connection is lost.
            if not (isinstance(error, (OSError, EOFError)) or type(error).__module__.startswith("paramiko")):
                raise
            return str(error) or type(error).__name__
        return ""
