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

#: Seconds that the adapter may take to greet; it is a process of its own.
GREETING_SECONDS = 30.0
_PIECE_BYTES = 64 * 1024
_GREETING_BYTES = 4096
_GREETING = re.compile(rb'"output":\s*"debugpy"')


def _connect(connect: Callable[[float], socket.socket]) -> Tuple[socket.socket, bytes]:
    """Connect to debugpy's adapter; the connection, and the greeting read from it.

    Two things end the adapter's only accepting thread for good, as of debugpy 1.8.22
    (adapter/clients.py, Client.__init__): a peer that has gone before it was greeted, so
    nothing is sent and nothing closed before the greeting is here; and an older session
    that is just ending, since each connection is reported to the oldest session. So the
    first connection is the gate's own and is kept open: it is the oldest for ever.
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
    #: What has been read from it.
    greeting: bytes


class AdapterLink:
    """Connects to the adapter that runs now, and stays connected to it for as long as it lives.

    Args:
        loop: Where it waits.
        debugger: Whose adapter it is.
    """

    def __init__(self, loop: EventLoop, debugger: Debugger) -> None:
        self._loop, self._debugger = loop, debugger
        #: The gate's own connection, and to which adapter (by its number) there is one.
        self._own: Optional[socket.socket] = None
        self._number = 0

    # In the helper's thread

    def connect(self, alone: bool) -> Connected:
        """Connect a debugger, after debugpy has been started where need be.

        Args:
            alone: Whether nobody else is attached or attaching, as far as is known.

        Raises:
            OSError: The adapter has ended, or does not greet.
            Exception: Whatever debugpy raises when it cannot start.
        """
        number = self._debugger.ensure_started(alone)
        if number == self._number:
            try:
                return Connected(number, *_connect(self._debugger.connect))
            except ConnectionError:
                if not alone and not self._debugger.is_adapter_ending():
                    raise
            # The adapter has ended, and neither the loop nor pydevd has noticed so far.
            self._debugger.reset(number)
            number = self._debugger.ensure_started(alone)
        own, _greeting = _connect(self._debugger.connect)
        own.setblocking(False)
        self._number = number
        self._loop.run(partial(self._keep_connection, number, own))
        return Connected(number, *_connect(self._debugger.connect))

    def drop_adapter(self) -> None:
        """Forget the adapter, after the program has closed every descriptor."""
        self._number = 0
        self._debugger.drop_lost_adapter()

    # In the loop's thread

    def _keep_connection(self, number: int, own: socket.socket) -> None:
        """Stay connected to this adapter by this socket."""
        self._release()
        self._own = own
        self._loop.register(own, selectors.EVENT_READ, partial(self._on_event, number))

    def sockets(self) -> List[socket.socket]:
        """All that it has."""
        return [] if self._own is None else [self._own]

    def clear(self) -> None:
        """Forget all sockets, which have been detached."""
        self._own = None

    def _release(self) -> None:
        if self._own is not None:
            self._loop.unregister(self._own)
            self._own.close()
            self._own = None

    def _on_event(self, number: int, own: socket.socket, mask: int) -> None:
        try:
            received = own.recv(_PIECE_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            received = b""
        if not received:
            # The adapter has ended, by a bug of its own or by somebody's hand.
            self._release()
            self._loop.run_in_helper(partial(self._on_adapter_ended, number))

    def _on_adapter_ended(self, number: int) -> Any:
        self._debugger.drop_adapter(number)
