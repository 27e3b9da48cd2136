"""The debuggers that have been admitted: connects them with debugpy, in order, and forwards their messages."""

from __future__ import annotations

import selectors
import socket
import time
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, List, Optional, Set, Tuple

from .adapter_link import AdapterLink, Connected
from .event_loop import EventLoop, report_bug
from .listener import FIRST_MESSAGE_SECONDS, MOST_PENDING
from .pair import BUFFER_BYTES, Pair

if TYPE_CHECKING:
    from .children import Children
    from .debugger import Debugger

#: Debuggers that are connected at the same time at most, including those that have not attached.
MOST_PAIRS = 128
#: Seconds from the last debugger's end to the return to full speed.
RESTORE_SECONDS = 0.3


def _acknowledge(end: socket.socket) -> None:
    """Acknowledge received data now instead of 40 ms later: most editors delay their next message until then."""
    if end.family == socket.AF_INET and hasattr(socket, "TCP_QUICKACK"):
        try:
            # The system resets the option after each use.
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        except OSError:
            pass  # The connection is gone.


def _prepare(end: socket.socket) -> None:
    """Set a socket's options for the messages of a session."""
    end.setblocking(False)
    if end.family == socket.AF_INET:
        # Messages are small: waiting to fill a packet would delay each step.
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


class Sessions:
    """Connects debuggers with debugpy, and restores full speed when the last one has left.

    Args:
        loop: The event loop.
        debugger: The debugger that is started for an attaching client.
        announce: Called with events: ``client``, ``client-left``, ``attach-failed`` (message).
        on_joined: Called when a debugger has been connected with debugpy.
        children: The program's child processes, if they are debugged.
    """

    def __init__(
        self,
        loop: EventLoop,
        debugger: Debugger,
        announce: Callable[..., None],
        on_joined: Callable[[], None],
        children: Optional[Children] = None,
    ) -> None:
        self._loop, self._debugger, self._children = loop, debugger, children
        self._announce, self._on_joined = announce, on_joined
        self._link = AdapterLink(loop, debugger)
        #: Peers that speak the protocol and wait to be connected: until when, and what they have sent.
        self._ready: "OrderedDict[socket.socket, Tuple[float, bytes]]" = OrderedDict()
        #: Peers that the helper is connecting to the adapter.
        self._connecting: Set[socket.socket] = set()
        self._pairs: Set[Pair] = set()
        #: Whether a debugger may have left debugpy in a bad state, and the number of the last adapter that was ended
        #: for that reason.
        self._is_unreliable = False
        self._ended = 0
        self._restore_at: Optional[float] = None
        #: How many debuggers have been sent the answer to their `attach`.
        self.answer_count = 0

    @property
    def owes_answer(self) -> bool:
        """Whether there are debuggers, and none of them has been sent the answer to its `attach`."""
        # A copy: the gate's thread changes the original.
        pairs = list(self._pairs)
        return bool(pairs) and not any(pair.answered for pair in pairs)

    def sockets(self) -> List[socket.socket]:
        """All its sockets."""
        ends = [*self._ready, *self._connecting, *self._link.sockets()]
        for pair in self._pairs:
            ends += [pair.client, pair.adapter]
        return ends

    def clear(self) -> None:
        """Drop all sockets, which have been detached, and the adapter."""
        self._loop.run_in_helper(self._link.drop_adapter)
        self._link.clear()
        self._ready.clear()
        self._is_unreliable = False
        self._pairs.clear()
        self._connecting.clear()

    def clear_after_fork(self) -> None:
        """Drop the sessions in a forked child, where their sockets have been closed."""
        # A new set: the parent's thread may have been changing the old one.
        self._pairs = set()

    def deadlines(self) -> List[float]:
        """The times at which :meth:`handle_deadlines` has something to do."""
        deadlines: List[float] = [pair.closes_at for pair in self._pairs if pair.closes_at is not None]
        deadlines += [pair.last_progress + FIRST_MESSAGE_SECONDS for pair in self._pairs if not pair.released]
        if self._ready:
            deadlines.append(next(iter(self._ready.values()))[0])
        if self._has_waiting():
            deadlines += [pair.blocks_until() for pair in self._blocking()]
        if self._restore_at is not None:
            deadlines.append(self._restore_at)
        return deadlines

    def handle_deadlines(self, now: float) -> None:
        """Handle the deadlines that have passed at this time."""
        while self._ready and next(iter(self._ready.values()))[0] <= now:
            self._ready.popitem(last=False)[0].close()
        for pair in [pair for pair in self._pairs if pair.closes_at is not None and pair.closes_at <= now]:
            self._end(pair)
        for pair in [
            pair for pair in self._pairs if not pair.released and pair.last_progress + FIRST_MESSAGE_SECONDS <= now
        ]:
            # It keeps debugpy running and does not attach.
            self._end(pair)
        if self._has_waiting():
            self._continue_waiting(now)
        if self._restore_at is not None and self._restore_at <= now:
            self._restore_at = None
            if not self._pairs and not self._connecting:
                self._loop.run_in_helper(self._restore_full_speed)

    def drop_failed(self, end: Any) -> None:
        """End the session of a socket whose handler has raised an exception."""
        for pair in [pair for pair in self._pairs if end in (pair.client, pair.adapter)]:
            self._end(pair)

    # Order

    def add(self, peer: socket.socket, until: float, data: bytes) -> None:
        """Connect a peer that speaks the protocol with debugpy, as soon as possible.

        Args:
            peer: Its connection, which is not registered with the loop.
            until: The time until which it may be kept waiting.
            data: What it has sent.
        """
        if len(self._ready) >= MOST_PENDING:
            self._ready.popitem(last=False)[0].close()
        self._ready[peer] = (until, data)
        self._continue_waiting(time.monotonic())

    def _has_waiting(self) -> bool:
        """Whether there are debuggers that wait for others."""
        return bool(self._ready) or any(pair.has_pending_message for pair in self._pairs)

    def _released(self) -> Tuple[Pair, ...]:
        return tuple(pair for pair in self._pairs if pair.released)

    def _has_session(self) -> bool:
        return any(pair.is_session for pair in self._pairs)

    def _is_full(self) -> bool:
        return len(self._pairs) + len(self._connecting) >= MOST_PAIRS

    def _blocking(self) -> List[Pair]:
        """The debuggers that others wait for: they are attaching or leaving, or hold a place and send nothing."""
        if self._released() and not self._has_session():
            return [pair for pair in self._released() if not pair.client_closed]
        if self._ready and self._is_full():
            return [pair for pair in self._pairs if not pair.released]
        return []

    def _continue_waiting(self, now: float) -> None:
        """Let waiting debuggers continue, unless another one is attaching or leaving.

        A debugpy in a bad state is ended before the next debugger is connected.
        """
        for pair in self._blocking():
            if pair.released and pair.blocks_until() <= now:
                self._end(pair)
        for pair in [pair for pair in self._pairs if pair.has_pending_message]:
            self._proceed(pair)
        while self._ready and (not self._released() or self._has_session()):
            if self._is_full():
                silent = [pair for pair in self._blocking() if pair.blocks_until() <= now]
                if not silent:
                    return
                self._end(min(silent, key=lambda pair: pair.last_progress))
            peer, (_until, data) = self._ready.popitem(last=False)
            self._connecting.add(peer)
            self._loop.run_in_helper(partial(self._connect, peer, data, not self._released()))

    def _proceed(self, pair: Pair) -> None:
        # A debugger that closed while it waited is not attached any more.
        if not pair.client_closed and pair.proceed(tuple(other for other in self._released() if other is not pair)):
            if self._children is not None and pair.child is not None:
                self._children.on_attaching(pair.child)
            self._forward(pair)
        else:
            self._end(pair)

    # Beginning

    def _connect(
        self, client: socket.socket, first: bytes, alone: bool, known: Optional[Pair] = None
    ) -> Callable[[], None]:
        """In the helper's thread: connect a debugger with the adapter.

        Returns:
            What the loop's thread has to do then.
        """
        connected: Optional[Connected] = None
        try:
            connected = self._link.connect(alone)
            for end in (client, connected.end):
                _prepare(end)
        except Exception as error:
            # It may work for the next debugger.
            if connected is not None:
                connected.end.close()
            message = "no debugger can be let in: {}: {}".format(type(error).__name__, error)
            self._announce("attach-failed", message=message)
            report_bug()
            return partial(self._refuse, client)
        number, adapter, greeting = connected
        if known is None:
            return partial(self._join, Pair(client, adapter, number, first, greeting))
        known.rejoin(adapter, number)
        return partial(self._join, known)

    def _refuse(self, client: socket.socket) -> None:
        if client in self._connecting:
            self._connecting.discard(client)
            client.close()
        self._restore_later()

    def _join(self, pair: Pair) -> None:
        if pair.client not in self._connecting:
            # It was connecting when the program closed every descriptor.
            pair.client.detach()
            pair.adapter.close()
            return
        self._connecting.discard(pair.client)
        if pair.number <= self._ended:
            self._rejoin(pair)
            return
        self._pairs.add(pair)
        self._restore_at = None
        if not pair.has_rejoined:
            self._announce("client")
        self._on_joined()
        self._proceed(pair)

    def _rejoin(self, pair: Pair) -> None:
        """Connect a debugger that has not attached with the next adapter, since this one has ended."""
        self._pairs.discard(pair)
        for end in (pair.client, pair.adapter):
            self._loop.unregister(end)
        pair.adapter.close()
        self._connecting.add(pair.client)
        self._loop.run_in_helper(partial(self._connect, pair.client, b"", not self._released(), pair))

    # Messages

    def _on_traffic(self, pair: Pair, end: socket.socket, mask: int) -> None:
        if mask & selectors.EVENT_READ and pair.can_read(end):
            try:
                data = end.recv(BUFFER_BYTES)
                _acknowledge(end)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                data = b""
            if end is pair.adapter and not data and pair.may_rejoin():
                self._rejoin(pair)
                return
            pair.on_received(end, data)
        if pair.has_pending_message:
            self._proceed(pair)
        else:
            self._forward(pair)

    def _forward(self, pair: Pair) -> None:
        """Send what can be sent, then wait for the events that are needed next."""
        pair.send()
        if pair.has_just_answered():
            self.answer_count += 1
            self._attached(pair)
        if pair.is_over:
            self._end(pair)
            return
        for end, _read, write in pair.sockets_with_buffers():
            events = selectors.EVENT_WRITE if write else 0
            if pair.can_read(end):
                events |= selectors.EVENT_READ
            self._loop.watch(end, events, partial(self._on_traffic, pair))

    def _attached(self, pair: Pair) -> None:
        if self._children is not None:
            if pair.child is not None:
                self._children.on_attached(pair.child, pair)
            elif pair.wants_children:
                self._children.on_session_start()

    # Ending

    def _end(self, pair: Pair) -> None:
        if pair not in self._pairs:
            return
        self._pairs.discard(pair)
        if self._children is not None and pair.answered:
            if pair.child is not None:
                self._children.on_left(pair)
            else:
                self._children.on_session_end()
        self._is_unreliable = self._is_unreliable or (pair.number > self._ended and not pair.is_orderly)
        if self._is_unreliable and not self._released():
            self._is_unreliable = False
            self._ended = pair.number
            self._loop.run_in_helper(partial(self._reset, pair.number))
            # Debuggers that have not attached continue with the next adapter.
            for other in list(self._pairs):
                if other.may_rejoin():
                    self._rejoin(other)
        for end in (pair.client, pair.adapter):
            self._loop.unregister(end)
            end.close()
        if not self._pairs:
            self._announce("client-left")
            self._restore_later()

    def _reset(self, number: int) -> Any:
        self._debugger.reset(number)

    def _restore_full_speed(self) -> Optional[Callable[[], None]]:
        return None if self._debugger.restore_full_speed() else self._restore_later

    def _restore_later(self) -> None:
        # A debugger may still count as attached: the adapter takes a moment to notice.
        self._restore_at = time.monotonic() + RESTORE_SECONDS
