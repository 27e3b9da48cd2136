"""The process of debugpy's adapter; see __init__.py. Started as ``python -S FOLDER DESCRIPTOR``.

The socket with this descriptor delivers debugpy's folder, two tokens and the gate's port, a line each; then one
byte for each debugger, with the debugger's socket. The process answers once: with the port for pydevd and its
children, or with an error. When the socket closes, the process ends: the program has ended, or starts another one.
"""

from __future__ import annotations

import array
import os
import socket
import sys
import threading
import traceback
from typing import Any, Callable, List, Tuple

#: Bytes that are read at once.
_CHUNK_BYTES = 64 * 1024


class _Connection(socket.socket):
    """A connection that sends messages without delay, and that debugpy reads in chunks, not byte by byte."""

    def __init__(self, fileno: int) -> None:
        super().__init__(fileno=fileno)
        if self.family != getattr(socket, "AF_UNIX", None):
            self.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def makefile(self, *_: Any, **__: Any) -> Any:
        """The file object that debugpy reads messages from and writes them to."""
        return _Stream(self)


class _Stream:
    """A connection as a file, with a read buffer. One thread reads, and any other thread may close it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._acknowledges = connection.family != getattr(socket, "AF_UNIX", None) and hasattr(socket, "TCP_QUICKACK")
        self._unread = b""

    def readline(self) -> bytes:
        """Up to and including the next line feed.

        Raises:
            EOFError: The connection has been closed. debugpy would otherwise read forever.
        """
        while b"\n" not in self._unread:
            if not self._receive():
                raise EOFError("the connection has been closed")
        return self._take(self._unread.index(b"\n") + 1)

    def read(self, size: int) -> bytes:
        """Read at most so many bytes; returns none at the end."""
        if not self._unread:
            self._receive()
        return self._take(size)

    def _take(self, size: int) -> bytes:
        taken, self._unread = self._unread[:size], self._unread[size:]
        return taken

    def _receive(self) -> bool:
        received = self._connection.recv(_CHUNK_BYTES)
        if self._acknowledges and received:
            # A child's pydevd sends a message in two parts, the second only after the first was acknowledged. The
            # system resets this option after each use.
            try:
                self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            except OSError:
                pass  # It has been closed.
        self._unread += received
        return bool(received)

    def write(self, data: bytes) -> int:
        """Send as many bytes as the system accepts."""
        return self._connection.send(data)

    def flush(self) -> None:
        """Do nothing: there is no write buffer."""

    def close(self) -> None:
        """Do nothing: debugpy shuts the connection down afterwards."""


def _read_lines(control: socket.socket, count: int) -> List[str]:
    received = b""
    while received.count(b"\n") < count:
        # Byte by byte, since the bytes that follow carry sockets.
        data = control.recv(1)
        if not data:
            os._exit(0)
        received += data
    return received.decode("utf-8", "surrogateescape").split("\n")[:count]


def _serve_debuggers(control: socket.socket, handle: Callable[[socket.socket], Any]) -> None:
    """Begin a session for each socket that the gate sends, and end with the gate."""
    size = array.array("i").itemsize
    while True:
        try:
            data, rights, _flags, _address = control.recvmsg(1, socket.CMSG_SPACE(size))
        except OSError:
            data, rights = b"", []
        if not data:
            os._exit(0)
        for _level, _kind, content in rights:
            connection = _Connection(fileno=array.array("i", content[:size])[0])
            try:
                handle(connection)
            except Exception:
                # Only this debugger is affected: it may have closed before it was greeted.
                _log_exception()


def _serve_pydevd(
    listener: socket.socket, handle: Callable[[socket.socket], Any], is_allowed: Callable[[socket.socket], bool]
) -> None:
    """Accept the connections of the program and its children, and no others.

    Each gets a thread of its own, also the program's: a slow child, or another process of this user that connects to
    this port, must not keep the others waiting.
    """
    while True:
        try:
            accepted, _address = listener.accept()
        except OSError:
            return
        try:
            if not is_allowed(accepted):
                accepted.close()
                continue
            _start(handle, _Connection(fileno=accepted.detach()))
        except Exception:
            _log_exception()


class _AdapterOs:
    """Replaces the module os in debugpy's messaging, so that an error with one debugger does not end the adapter.

    debugpy ends the whole process when a message cannot be handled, such as an `initialize` without an object.
    """

    def __init__(self, client: type) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def _exit(self, code: int) -> None:
        channel = sys._getframe(1).f_locals.get("self")
        handlers = getattr(channel, "handlers", None)
        if channel is not None and isinstance(handlers, self._client) and not getattr(handlers, "server", None):
            channel.close()
            # This ends the thread without a message.
            raise SystemExit
        os._exit(code)


def _drop_late_answers(messaging: Any) -> None:
    """Drop an answer whose debugger has left, which would otherwise end the adapter.

    An example is the answer to an `evaluate` that takes longer than the debugger's session.
    """
    respond = messaging.Request.respond

    def respond_if_connected(self: Any, body: Any) -> None:
        try:
            respond(self, body)
        except messaging.JsonIOError as error:
            if getattr(error, "stream", None) is not self.channel.stream:
                raise
            _log_exception()

    messaging.Request.respond = respond_if_connected


class _GateListener:
    """Stands in for the adapter's listener, whose address the adapter reports to debuggers."""

    def __init__(self, port: int) -> None:
        self._address = "127.0.0.1", port

    def getsockname(self) -> Tuple[str, int]:
        """The gate's address."""
        return self._address

    def close(self) -> None:
        """Do nothing: the gate does not belong to the adapter."""


def _log_exception() -> None:
    """Write the current exception to debugpy's own log, if that is enabled (DEBUGPY_LOG_DIR)."""
    from debugpy.common import log

    log.error("{0}", traceback.format_exc())


def _start(target: Callable[..., Any], *arguments: Any) -> None:
    threading.Thread(target=target, args=arguments, daemon=True).start()


def main(descriptor: int) -> None:
    """Run the adapter until the program has ended."""
    # In a session of its own, so that Ctrl-C in the program's terminal does not end it.
    if os.fork():
        os._exit(0)
    os.setsid()
    control = socket.socket(fileno=descriptor)
    folder, token, client_token, gate = _read_lines(control, 4)
    package_folder = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    try:
        sys.path[0] = package_folder
        from azureml_debuggee.peers import is_allowed

        sys.path[0] = folder
        import debugpy  # noqa: F401

        del sys.path[0]
        from debugpy import adapter
        from debugpy.adapter import clients, servers, sessions
        from debugpy.common import log, messaging, sockets

        log.to_file(prefix="debugpy.adapter")
        messaging.os = _AdapterOs(clients.Client)
        _drop_late_answers(messaging)
        # Each side authenticates to the other.
        servers.access_token, adapter.access_token = token, client_token
        clients.listener = _GateListener(int(gate))
        servers.listener = sockets.create_server("127.0.0.1", 0)
        _start(_serve_pydevd, servers.listener, servers.Connection, is_allowed)
        _start(_serve_debuggers, control, clients.Client)
        control.sendall(b"%d\n" % servers.listener.getsockname()[1])
    except BaseException as error:
        message = "{}: {}".format(type(error).__name__, " ".join(str(error).split()))
        control.sendall(message.encode("utf-8", "replace")[:1000] + b"\n")
        os._exit(1)
    servers.wait_until_disconnected()
    sessions.wait_until_ended()


if __name__ == "__main__":
    main(int(sys.argv[1]))
