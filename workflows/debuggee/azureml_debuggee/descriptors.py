"""File descriptors that the program may close under us, as daemons do: their numbers are the program's then."""

from __future__ import annotations

import errno
import os
import socket

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any


def identity(descriptor: int) -> Any:
    """What tells an open file from whatever else may get its number.

    Returns:
        False where nothing is open there; None where the system does not tell.
    """
    if os.name != "posix":
        return None
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return status.st_dev, status.st_ino


class OwnSocket(socket.socket):
    """A connection that is lost, rather than another one's, once the program has closed its descriptor.

    Nothing is sent to what has got the number since, nothing received from it, and it is not closed.

    Args:
        fileno: The descriptor of a connected socket.
    """

    def __init__(self, fileno: int) -> None:
        super().__init__(fileno=fileno)
        self._opened_as = identity(fileno)

    def _lose_if_gone(self) -> None:
        if self.fileno() != -1 and identity(self.fileno()) != self._opened_as:
            self.detach()

    def _require(self) -> None:
        self._lose_if_gone()
        if self.fileno() == -1:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def recv(self, *arguments: Any) -> bytes:
        """As a socket's."""
        self._require()
        return super().recv(*arguments)

    def sendall(self, *arguments: Any) -> None:
        """As a socket's."""
        self._require()
        super().sendall(*arguments)

    def shutdown(self, how: int) -> None:
        """As a socket's."""
        self._require()
        super().shutdown(how)

    def close(self) -> None:
        """As a socket's."""
        self._lose_if_gone()
        super().close()


def as_own_socket(connection: Any) -> Any:
    """A plain socket as an :class:`OwnSocket`, which takes its descriptor; any other as it is."""
    return OwnSocket(connection.detach()) if type(connection) is socket.socket else connection
