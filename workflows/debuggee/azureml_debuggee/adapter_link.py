"""The gate's connections to debugpy's adapter."""

from __future__ import annotations

import re
import selectors
import socket
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, List, NamedTuple, Optional, Tuple

from .event_loop import EventLoop

if TYPE_CHECKING:
    from .debugger import Debugger

#: Seconds that the adapter, a process of its own, may take to send its greeting.
GREETING_SECONDS = 30.0
_CHUNK_BYTES = 64 * 1024
_GREETING_BYTES = 4096
_GREETING = re.compile(rb'"output":\s*"debugpy"')


def _connect(connect: Callable[[float], socket.socket]) -> Tuple[socket.socket, bytes]:
    """Connect to debugpy's adapter; returns the connection, and the greeting read from it.

    Two things end the adapter's only accepting thread permanently, as of debugpy 1.8.22
    (adapter/clients.py, Client.__init__). One is a peer that closes before it was greeted, so
    nothing is sent and nothing closed before the greeting has arrived. The other is an older session
    that is just ending, since each connection is reported to the oldest session. So the
    first connection is the gate's own and stays open: it is always the oldest.
    """
    end = connect(GREETING_SECONDS)
    greeting = b""
    try:
        end.settimeout(GREETING_SECONDS)
        while not _GREETING.search(greeting):
            received = end.recv(_GREETING_BYTES)
            if not received:
                raise ConnectionError("the adapter has closed the connection")
            greeting += received
    except BaseException:
        end.close()
        raise
    return end, greeting


class Connected(NamedTuple):
    """A debugger's connection to the adapter."""

    #: The adapter's number.
    number: int
    end: socket.socket
    #: The greeting that has been read from it.
    greeting: bytes


class AdapterLink:
    """Connects to the current adapter, and keeps one connection open for as long as the adapter lives.

    Args:
        loop: The event loop.
        debugger: The debugger that the adapter belongs to.
    """

    def __init__(self, loop: EventLoop, debugger: Debugger) -> None:
        self._loop, self._debugger = loop, debugger
        #: The gate's own connection, and the number of the adapter that it leads to.
        self._own: Optional[socket.socket] = None
        self._number = 0

    # In the helper's thread

    def connect(self, alone: bool) -> Connected:
        """Connect a debugger with the adapter; starts debugpy if necessary.

        Args:
            alone: Whether no other debugger is attached or attaching, as far as is known.

        Raises:
            OSError: The adapter has ended, or sends no greeting.
            Exception: Whatever debugpy raises when it cannot start.
        """
        number = self._debugger.ensure_started(alone)
        if number == self._number:
            try:
                return Connected(number, *_connect(self._debugger.connect))
            except ConnectionError:
                if not alone and not self._debugger.is_adapter_ending():
                    raise
            # The adapter has ended, and neither the loop nor pydevd has noticed yet.
            self._debugger.reset(number)
            number = self._debugger.ensure_started(alone)
        own, _greeting = _connect(self._debugger.connect)
        own.setblocking(False)
        self._number = number
        self._loop.run(partial(self._keep_connection, number, own))
        return Connected(number, *_connect(self._debugger.connect))

    def drop_adapter(self) -> None:
        """Drop the adapter, after the program has closed every descriptor."""
        self._number = 0
        self._debugger.drop_lost_adapter()

    # In the loop's thread

    def _keep_connection(self, number: int, own: socket.socket) -> None:
        """Keep this connection to this adapter open."""
        self._release()
        self._own = own
        self._loop.register(own, selectors.EVENT_READ, partial(self._on_event, number))

    def sockets(self) -> List[socket.socket]:
        """All its sockets."""
        return [] if self._own is None else [self._own]

    def clear(self) -> None:
        """Drop all sockets, which have been detached."""
        self._own = None

    def _release(self) -> None:
        if self._own is not None:
            self._loop.unregister(self._own)
            self._own.close()
            self._own = None

    def _on_event(self, number: int, own: socket.socket, mask: int) -> None:
        try:
            received = own.recv(_CHUNK_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            received = b""
        if not received:
            # The adapter has crashed, or something has killed it.
            self._release()
            self._loop.run_in_helper(partial(self._on_adapter_ended, number))

    def _on_adapter_ended(self, number: int) -> Any:
        self._debugger.drop_adapter(number)
