"""File descriptors that the program may close, as daemons do; the program may then reuse their numbers."""

from __future__ import annotations

import errno
import os
import socket

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any


def identity(descriptor: int) -> Any:
    """A value that distinguishes an open file from any other that gets its descriptor number.

    Returns:
        False if the descriptor is not open; None if the system offers no such value.
    """
    if os.name != "posix":
        return None
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return status.st_dev, status.st_ino


class OwnSocket(socket.socket):
    """A connection that counts as closed once the program has closed its descriptor.

    It never sends to, receives from or closes another file that has got the same number since.

    Args:
        fileno: The descriptor of a connected socket.
    """

    def __init__(self, fileno: int) -> None:
        super().__init__(fileno=fileno)
        self._opened_as = identity(fileno)

    def _detach_if_replaced(self) -> None:
        if self.fileno() != -1 and identity(self.fileno()) != self._opened_as:
            self.detach()

    def _require_open(self) -> None:
        self._detach_if_replaced()
        if self.fileno() == -1:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def recv(self, *arguments: Any) -> bytes:
        """Do as :class:`socket.socket`."""
        self._require_open()
        return super().recv(*arguments)

    def sendall(self, *arguments: Any) -> None:
        """Do as :class:`socket.socket`."""
        self._require_open()
        super().sendall(*arguments)

    def shutdown(self, how: int) -> None:
        """Do as :class:`socket.socket`."""
        self._require_open()
        super().shutdown(how)

    def close(self) -> None:
        """Do as :class:`socket.socket`."""
        self._detach_if_replaced()
        super().close()


def as_own_socket(connection: Any) -> Any:
    """Turn a plain socket into an :class:`OwnSocket`, which takes over its descriptor; others are returned as is."""
    return OwnSocket(connection.detach()) if type(connection) is socket.socket else connection
