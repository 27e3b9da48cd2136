"""The debug port, and connections until their first message has arrived.

Any number of peers may connect and send nothing, close at once, or send anything: they are dropped, and neither
the program nor a debugger that connects meanwhile is affected.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import time
from collections import OrderedDict
from typing import Any, Callable, List, Optional, Tuple

from .admission import Admission
from .dap_messages import HEADER_BYTES
from .event_loop import EventLoop
from .pair import GRACE_SECONDS

#: Seconds that a peer has for its first message; a busy interpreter may take long to read it.
FIRST_MESSAGE_SECONDS = 60.0
#: Seconds in which no connection is accepted, after the program has run out of file descriptors or while too many
#: peers connect.
PAUSE_SECONDS = 0.05
#: Connections that the system queues until they are accepted.
_BACKLOG = 512
#: Connections that are accepted before other sockets are handled.
_AT_ONCE = 64


def _pending_limit() -> int:
    """How many connections may wait here for their first message.

    Enough that many other peers do not displace a debugger whose first message is still on
    its way, and only a fraction of the descriptors that the program may open.
    """
    try:
        import resource
    except ImportError:
        return 32
    return max(32, min(128, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 8))


MOST_PENDING = _pending_limit()


class CannotListen(Exception):
    """The port can never be listened on; the message has the reason."""


class Listener:
    """Listens on a port, and hands over each peer that is admitted.

    Args:
        loop: The event loop.
        address: Host and port to listen on; port 0 stands for a free one.
        tries: How many ports may be tried, from that one on.
        admission: Decides which peers are admitted.
        admit: Called with an admitted peer, the time until which it may be kept waiting, and what it has sent.
    """

    def __init__(
        self,
        loop: EventLoop,
        address: Tuple[str, int],
        tries: int,
        admission: Admission,
        admit: Callable[[socket.socket, float, bytes], None],
    ) -> None:
        self.address = address
        self._loop, self._tries = loop, max(1, tries)
        self._admission, self._admit = admission, admit
        self._socket: Optional[socket.socket] = None
        #: When to accept again; None while connections are accepted.
        self._accept_at: Optional[float] = None
        #: By connection, when its first message has to be complete, and what it has sent; the oldest first.
        self._pending: "OrderedDict[socket.socket, Tuple[float, bytearray]]" = OrderedDict()

    def ports(self) -> Tuple[int, int]:
        """The first and the last port that it tries."""
        return self.address[1], self.address[1] + self._tries - 1

    def bind(self) -> bool:
        """Listen, and set :attr:`address`; False if every port is in use.

        Raises:
            CannotListen: The address can never be listened on.
        """
        host, first = self.address
        last = min(first + self._tries, 65536) if first else 1
        for port in range(first, max(last, first + 1)):
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            try:
                if os.name == "posix":
                    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((host, port))
                listener.listen(_BACKLOG)
                listener.setblocking(False)
                break
            except (OSError, OverflowError) as error:
                listener.close()
                if getattr(error, "errno", None) != errno.EADDRINUSE:
                    raise CannotListen("cannot listen on {}:{}: {}".format(host, port, error)) from error
        else:
            return False
        self._socket = listener
        self.address = listener.getsockname()[:2]
        self._loop.register(listener, selectors.EVENT_READ, self._on_connection)
        return True

    def sockets(self) -> List[socket.socket]:
        """All its sockets."""
        return [*self._pending, *([] if self._socket is None else [self._socket])]

    def clear(self) -> None:
        """Drop all sockets, which have been detached."""
        self._pending.clear()
        self._socket = self._accept_at = None

    def deadlines(self) -> List[float]:
        """The times at which :meth:`handle_deadlines` has something to do."""
        deadlines = [] if self._accept_at is None else [self._accept_at]
        if self._pending:
            deadlines.append(next(iter(self._pending.values()))[0])
        return deadlines

    def handle_deadlines(self, now: float) -> None:
        """Handle the deadlines that have passed at this time."""
        if self._accept_at is not None and self._accept_at <= now and self._socket is not None:
            self._accept_at = None
            self._loop.register(self._socket, selectors.EVENT_READ, self._on_connection)
        while self._pending and next(iter(self._pending.values()))[0] <= now:
            self._drop(next(iter(self._pending)))

    def drop_failed(self, end: Any) -> None:
        """Drop a peer whose handler has raised an exception, if it is one of these."""
        if end in self._pending:
            self._drop(end)

    def _on_connection(self, listener: socket.socket, mask: int) -> None:
        for _ in range(_AT_ONCE):
            if self._waits_for_oldest():
                return
            try:
                peer, _address = listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in (errno.ECONNABORTED, errno.EPROTO):
                    continue
                if self._pending:
                    self._drop(next(iter(self._pending)))
                    continue
                # Most likely no descriptor is left. The connection stays in the queue, and the selector
                # would report it again at once, which would keep a processor busy.
                self._pause(time.monotonic() + PAUSE_SECONDS)
                return
            peer.setblocking(False)
            if len(self._pending) >= MOST_PENDING:
                self._drop(next(iter(self._pending)))
            self._pending[peer] = (time.monotonic() + FIRST_MESSAGE_SECONDS, bytearray())
            self._loop.register(peer, selectors.EVENT_READ, self._on_first_bytes)

    def _waits_for_oldest(self) -> bool:
        """Whether accepting another peer now would displace one that has only just connected.

        The oldest may be a debugger whose first message is on its way; further peers then
        wait in the system's queue.
        """
        if len(self._pending) < MOST_PENDING:
            return False
        oldest = next(iter(self._pending))
        self._on_first_bytes(oldest, 0)
        if oldest not in self._pending:
            return False
        now = time.monotonic()
        grace = self._pending[oldest][0] - FIRST_MESSAGE_SECONDS + GRACE_SECONDS
        if grace <= now:
            return False
        self._pause(min(grace, now + PAUSE_SECONDS))
        return True

    def _pause(self, until: float) -> None:
        """Accept no connections until this time."""
        if self._socket is not None:
            self._loop.unregister(self._socket)
            self._accept_at = until

    def _on_first_bytes(self, peer: socket.socket, mask: int) -> None:
        until, data = self._pending[peer]
        try:
            received = peer.recv(HEADER_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            received = b""
        data += received
        verdict = self._admission.decide(peer, data) if received else False
        if verdict is None:
            return
        if not verdict:
            self._drop(peer)
            return
        self._loop.unregister(peer)
        self._admission.drop(peer)
        del self._pending[peer]
        self._admit(peer, until, bytes(data))

    def _drop(self, peer: socket.socket) -> None:
        del self._pending[peer]
        self._admission.drop(peer)
        self._loop.unregister(peer)
        peer.close()
