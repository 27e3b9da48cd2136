"""One tunnel: a local port on 127.0.0.1 that leads to a port which the remote machine can reach.

Access to the remote port allows running code there, so only processes of this user and of root can use the tunnel.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from ..debuggee.azureml_debuggee.peers import is_allowed
from ..loopback import listen

#: Seconds that a client waits while the SSH connection is being restored.
PATIENCE = 15.0
_CHUNK = 65536
#: Seconds to wait after a failed accept.
_PAUSE = 0.05


class Forward:
    """A local port that leads to a remote one.

    Args:
        what: The purpose, for users.
        host: The target host, as the remote machine names it.
        port: The target port.
        wanted: The preferred local port; the next free one is used if it is taken. 0 for any free port.
        transport: Waits up to the given seconds for the transport of the connection; returns None if there is none.
        avoid: Local ports that must not be used.
        listener: A socket that already listens, instead of a preferred port.

    Attributes:
        local: The local port.
        since: The time of the start, in seconds since the epoch.
        up: Bytes sent to the target.
        down: Bytes received from the target.
        clients: The number of connected clients.

    Raises:
        OSError: No local port can be listened on.
    """

    def __init__(
        self,
        what: str,
        host: str,
        port: int,
        wanted: int,
        transport: Callable[[float], Any],
        avoid: frozenset[int] = frozenset(),
        listener: socket.socket | None = None,
    ) -> None:
        self.what, self.host, self.port = what, host, port
        self.since = time.time()
        self.up = self.down = self.clients = 0
        self._transport = transport
        self._live: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = listener or _listen(wanted, avoid)
        self.local = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def stop_listening(self) -> None:
        """Accept no more clients. Connected ones stay until they close their connections."""
        with contextlib.suppress(OSError):
            # Wakes the thread that accepts.
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def close(self) -> None:
        """End the tunnel and disconnect its clients."""
        self.stop_listening()
        with self._lock:
            live = list(self._live)
        for client in live:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def as_json(self) -> dict[str, Any]:
        """The tunnel as ``remote.tunnels --json`` shows it."""
        return {
            "for": self.what,
            "local_port": self.local,
            "host": self.host,
            "port": self.port,
            "since": self.since,
            "bytes_up": self.up,
            "bytes_down": self.down,
            "clients": self.clients,
        }

    def _accept(self) -> None:
        while True:
            try:
                client, peer = self._listener.accept()
            except OSError as error:
                if self._listener.fileno() == -1 or error.errno in (errno.EINVAL, errno.EBADF):
                    return
                # No file descriptor is left, or the client has gone before it was accepted: the port stays open.
                time.sleep(_PAUSE)
                continue
            if not is_allowed(client):
                client.close()
                continue
            try:
                threading.Thread(target=self._serve, args=(client, peer), daemon=True).start()
            except RuntimeError:  # no thread is left
                client.close()

    def _serve(self, client: socket.socket, peer: Any) -> None:
        with client, self._counted(client):
            # The client may reset the connection at any moment. That is not an error.
            with contextlib.suppress(OSError):
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                transport = self._transport(PATIENCE)
                if transport is None:
                    return
                channel = transport.open_channel("direct-tcpip", (self.host, self.port), peer, timeout=PATIENCE)
            except Exception:
                # Nothing listens at the target yet, or the SSH connection is lost: the client's connection is closed.
                return
            back = threading.Thread(target=self._down, args=(channel, client, _wire(transport)), daemon=True)
            with contextlib.suppress(OSError, EOFError, RuntimeError):  # no thread is left
                back.start()
                while data := client.recv(_CHUNK):
                    _acknowledge(client)
                    channel.sendall(data)
                    self.up += len(data)
                channel.shutdown_write()
                back.join()
            with contextlib.suppress(OSError, EOFError):
                channel.close()

    def _down(self, channel: Any, client: socket.socket, wire: socket.socket | None) -> None:
        with contextlib.suppress(OSError, EOFError):
            while data := channel.recv(_CHUNK):
                if wire is not None:
                    _acknowledge(wire)
                client.sendall(data)
                self.down += len(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def _counted(self, client: socket.socket) -> Any:
        with self._lock:
            self._live.add(client)
            self.clients += 1
        try:
            yield
        finally:
            with self._lock:
                self._live.discard(client)
                self.clients -= 1


def _wire(transport: Any) -> socket.socket | None:
    """The socket at the bottom of an SSH connection; None if there is none."""
    end = getattr(transport, "sock", None)
    while end is not None and not isinstance(end, socket.socket):
        # With a gateway, this is a channel of the gateway's connection.
        end = getattr(getattr(end, "transport", None), "sock", None)
    return end


def _acknowledge(end: socket.socket) -> None:
    """Acknowledge received data at once: a peer with Nagle's algorithm sends its next small message only then.

    Editors use that algorithm, and so does OpenSSH's server for tunnels.
    """
    if hasattr(socket, "TCP_QUICKACK"):  # the system resets this option after each use
        with contextlib.suppress(OSError):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


def _listen(wanted: int, avoid: frozenset[int]) -> socket.socket:
    """A listening socket on 127.0.0.1, on the wanted port or the next one that is free."""
    from ..engines.reservations import is_reserved

    port = wanted
    for _attempt in range(2000):
        if port and (port in avoid or is_reserved(port)):
            port = port + 1 if port < 65535 else 1024
            continue
        try:
            return listen(port, 64)
        except OSError:
            if not port:
                raise
            # Ports below 1024 may be reserved for root.
            port = port + 1 if 1024 <= port < 65535 else 1024
    raise OSError("no port is free")
