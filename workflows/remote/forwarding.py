"""One tunnel: a port on 127.0.0.1 here that leads to a port which the other machine reaches.

Whoever reaches the port there can run code, so it leads there for this user's processes, and root's, only.
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

#: Seconds that somebody who connects waits for a connection that is just coming back.
PATIENCE = 15.0
_CHUNK = 65536
#: Seconds without accepting, after that was impossible.
_PAUSE = 0.05


class Forward:
    """A port here, and where it leads.

    Args:
        what: What it is for, for people.
        host: Where it leads, as the other machine names it.
        port: The port there.
        wanted: The port here that a person counts on; another one where it is taken. 0 for any.
        transport: Waits for a connection's transport for so many seconds; None where none came.
        avoid: Ports here that are not to be used.
        listener: What listens here already, in place of a wanted port.

    Attributes:
        local: The port here.
        since: Seconds since the epoch.
        up: Bytes that went there.
        down: Bytes that came from there.
        clients: How many are connected.

    Raises:
        OSError: No port can be listened on.
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
        """Let nobody else in; those who are connected stay until their connections end by themselves."""
        with contextlib.suppress(OSError):
            # Wakes the thread that accepts.
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def close(self) -> None:
        """End it, and those who are connected."""
        self.stop_listening()
        with self._lock:
            live = list(self._live)
        for client in live:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def as_json(self) -> dict[str, Any]:
        """What is shown of it."""
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
                # No descriptor is left, or the peer has gone before it was accepted: the port stays open.
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
            # The peer may have reset the connection by now, here and at any later moment: that is all there is to it.
            with contextlib.suppress(OSError):
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                transport = self._transport(PATIENCE)
                if transport is None:
                    return
                channel = transport.open_channel("direct-tcpip", (self.host, self.port), peer, timeout=PATIENCE)
            except Exception:
                # Nobody listens there (yet), or the connection has just gone: the client sees a closed one.
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
    """The socket that an SSH connection goes through in the end; None where there is none."""
    end = getattr(transport, "sock", None)
    while end is not None and not isinstance(end, socket.socket):
        # Through a gateway it is a channel of the gateway's connection.
        end = getattr(getattr(end, "transport", None), "sock", None)
    return end


def _acknowledge(end: socket.socket) -> None:
    """Say at once that data has come: a peer that fills packets sends its next small message only then.

    Editors do, and OpenSSH's server does for its tunnels.
    """
    if hasattr(socket, "TCP_QUICKACK"):  # which the system forgets after each use
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
            # A low port may be root's.
            port = port + 1 if 1024 <= port < 65535 else 1024
    raise OSError("no port is free")
