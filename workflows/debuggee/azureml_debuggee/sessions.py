"""The debuggers that have been let in: in which order they get to debugpy, and what they and it say to each other."""

from __future__ import annotations

import selectors
import socket
import time
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, List, Optional, Set, Tuple

from .adapter_link import AdapterLink, Connected
from .event_loop import EventLoop, report_bug
from .listener import FIRST_MESSAGE_SECONDS, PENDING
from .pair import BUFFER_BYTES, Pair

if TYPE_CHECKING:
    from .children import Children
    from .debugger import Debugger

#: Debuggers that are connected at the same time, those that have not attached included.
PAIRS = 128
#: Seconds between the last debugger's leaving and the return to full speed.
REST_SECONDS = 0.3


def _confirm(end: socket.socket) -> None:
    """Confirm now what has been received, not 40 ms later: so long most editors keep their next message back."""
    if end.family == socket.AF_INET and hasattr(socket, "TCP_QUICKACK"):
        try:
            # The system forgets it after each use.
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        except OSError:
            pass  # The connection is gone.


def _prepare(end: socket.socket) -> None:
    """Make a socket one that the loop can carry a session's messages with."""
    end.setblocking(False)
    if end.family == socket.AF_INET:
        # Small messages back and forth: waiting to fill a packet would delay each step.
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


class Sessions:
    """Connects debuggers with debugpy, and puts debugpy to rest when the last one has left.

    Args:
        loop: Where it waits.
        debugger: What to wake for a debugger.
        announce: Called with events: ``client``, ``client-left``, ``attach-failed`` (message).
        on_joined: Called when a debugger has been connected with debugpy.
        children: The program's child processes, where they are debugged.
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
        #: Peers that speak the protocol and wait to be let in, with what they have sent, and until when.
        self._ready: "OrderedDict[socket.socket, Tuple[float, bytes]]" = OrderedDict()
        #: Those for which the helper connects to the adapter.
        self._connecting: Set[socket.socket] = set()
        self._pairs: Set[Pair] = set()
        #: Whether somebody has left debugpy in a state that is not to be relied on, and the number of the last
        #: adapter that is ended for that.
        self._is_unreliable = False
        self._ended = 0
        self._rest_at: Optional[float] = None
        #: How many debuggers have been sent the answer to their `attach`.
        self.answer_count = 0

    @property
    def owes_answer(self) -> bool:
        """Whether there are debuggers, and none of them has been sent the answer to its `attach`."""
        # A copy: the gate's thread changes the original.
        pairs = list(self._pairs)
        return bool(pairs) and not any(pair.answered for pair in pairs)

    def sockets(self) -> List[socket.socket]:
        """All that it has."""
        ends = [*self._ready, *self._connecting, *self._link.sockets()]
        for pair in self._pairs:
            ends += [pair.client, pair.adapter]
        return ends

    def clear(self) -> None:
        """Forget all sockets, which have been detached, and the adapter."""
        self._loop.run_in_helper(self._link.drop_adapter)
        self._link.clear()
        self._ready.clear()
        self._is_unreliable = False
        self._pairs.clear()
        self._connecting.clear()

    def clear_after_fork(self) -> None:
        """Forget the sessions in a forked child, where their sockets have been closed."""
        # A new one: the parent's thread may have been changing the old one.
        self._pairs = set()

    def deadlines(self) -> List[float]:
        """When it has something to do, whatever happens on its sockets."""
        deadlines: List[float] = [pair.closing for pair in self._pairs if pair.closing is not None]
        deadlines += [pair.last + FIRST_MESSAGE_SECONDS for pair in self._pairs if not pair.released]
        if self._ready:
            deadlines.append(next(iter(self._ready.values()))[0])
        if self._somebody_waits():
            deadlines += [pair.blocks_until() for pair in self._blocking()]
        if self._rest_at is not None:
            deadlines.append(self._rest_at)
        return deadlines

    def handle_deadlines(self, now: float) -> None:
        """Do what is due at this moment."""
        while self._ready and next(iter(self._ready.values()))[0] <= now:
            self._ready.popitem(last=False)[0].close()
        for pair in [pair for pair in self._pairs if pair.closing is not None and pair.closing <= now]:
            self._end(pair)
        for pair in [pair for pair in self._pairs if not pair.released and pair.last + FIRST_MESSAGE_SECONDS <= now]:
            # It keeps debugpy awake, and does not attach.
            self._end(pair)
        if self._somebody_waits():
            self._let_go_on(now)
        if self._rest_at is not None and self._rest_at <= now:
            self._rest_at = None
            if not self._pairs and not self._connecting:
                self._loop.run_in_helper(self._rest)

    def drop_failed(self, end: Any) -> None:
        """End the session of this socket, with which something unforeseen has happened."""
        for pair in [pair for pair in self._pairs if end in (pair.client, pair.adapter)]:
            self._end(pair)

    # Who may go on

    def add(self, peer: socket.socket, until: float, data: bytes) -> None:
        """Let a peer in that speaks the protocol, as soon as that may be.

        Args:
            peer: Its connection, which is not waited for.
            until: The moment at which it has waited too long.
            data: What it has sent.
        """
        if len(self._ready) >= PENDING:
            self._ready.popitem(last=False)[0].close()
        self._ready[peer] = (until, data)
        self._let_go_on(time.monotonic())

    def _somebody_waits(self) -> bool:
        """Whether there are debuggers that cannot go on because of others."""
        return bool(self._ready) or any(pair.waits for pair in self._pairs)

    def _released(self) -> Tuple[Pair, ...]:
        return tuple(pair for pair in self._pairs if pair.released)

    def _has_session(self) -> bool:
        return any(pair.is_session for pair in self._pairs)

    def _is_full(self) -> bool:
        return len(self._pairs) + len(self._connecting) >= PAIRS

    def _blocking(self) -> List[Pair]:
        """Those whose end lets others go on: who is attaching or leaving, or has a place and says nothing."""
        if self._released() and not self._has_session():
            return [pair for pair in self._released() if not pair.deserted]
        if self._ready and self._is_full():
            return [pair for pair in self._pairs if not pair.released]
        return []

    def _let_go_on(self, now: float) -> None:
        """Let those go on who wait, as far as nobody else is attaching or leaving.

        What somebody has left behind is taken away before the next one is let in.
        """
        for pair in self._blocking():
            if pair.released and pair.blocks_until() <= now:
                self._end(pair)
        for pair in [pair for pair in self._pairs if pair.waits]:
            self._proceed(pair)
        while self._ready and (not self._released() or self._has_session()):
            if self._is_full():
                silent = [pair for pair in self._blocking() if pair.blocks_until() <= now]
                if not silent:
                    return
                self._end(min(silent, key=lambda pair: pair.last))
            peer, (_until, data) = self._ready.popitem(last=False)
            self._connecting.add(peer)
            self._loop.run_in_helper(partial(self._connect, peer, data, not self._released()))

    def _proceed(self, pair: Pair) -> None:
        # One that has gone before its turn came is not attached any more.
        if not pair.deserted and pair.proceed(tuple(other for other in self._released() if other is not pair)):
            if self._children is not None and pair.child is not None:
                self._children.on_attaching(pair.child)
            self._forward(pair)
        else:
            self._end(pair)

    # Beginning

    def _connect(
        self, client: socket.socket, first: bytes, alone: bool, again: Optional[Pair] = None
    ) -> Callable[[], None]:
        """In the helper's thread: connect a debugger with the adapter; what the loop's thread has to do then."""
        connected: Optional[Connected] = None
        try:
            connected = self._link.connect(alone)
            for end in (client, connected.end):
                _prepare(end)
        except Exception as error:
            # The next one may have better luck.
            if connected is not None:
                connected.end.close()
            message = "no debugger can be let in: {}: {}".format(type(error).__name__, error)
            self._announce("attach-failed", message=message)
            report_bug()
            return partial(self._refuse, client)
        number, adapter, greeting = connected
        if again is None:
            return partial(self._join, Pair(client, adapter, number, first, greeting))
        again.rejoin(adapter, number)
        return partial(self._join, again)

    def _refuse(self, client: socket.socket) -> None:
        if client in self._connecting:
            self._connecting.discard(client)
            client.close()
        self._rest_later()

    def _join(self, pair: Pair) -> None:
        if pair.client not in self._connecting:
            # Of the time before everything was lost.
            pair.client.detach()
            pair.adapter.close()
            return
        self._connecting.discard(pair.client)
        if pair.number <= self._ended:
            self._rejoin(pair)
            return
        self._pairs.add(pair)
        self._rest_at = None
        if not pair.is_back:
            self._announce("client")
        self._on_joined()
        self._proceed(pair)

    def _rejoin(self, pair: Pair) -> None:
        """Hand a debugger that has not attached to the next adapter: this one has ended."""
        self._pairs.discard(pair)
        for end in (pair.client, pair.adapter):
            self._loop.unregister(end)
        pair.adapter.close()
        self._connecting.add(pair.client)
        self._loop.run_in_helper(partial(self._connect, pair.client, b"", not self._released(), pair))

    # Messages

    def _on_traffic(self, pair: Pair, end: socket.socket, mask: int) -> None:
        if mask & selectors.EVENT_READ and pair.reads(end):
            try:
                data = end.recv(BUFFER_BYTES)
                _confirm(end)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                data = b""
            if end is pair.adapter and not data and pair.may_rejoin():
                self._rejoin(pair)
                return
            pair.received(end, data)
        if pair.waits:
            self._proceed(pair)
        else:
            self._forward(pair)

    def _forward(self, pair: Pair) -> None:
        """Send what can be sent, then wait for just what is needed next."""
        pair.send()
        if pair.sends_answer():
            self.answer_count += 1
            self._attached(pair)
        if pair.is_over:
            self._end(pair)
            return
        for end, _read, write in pair.ends():
            events = selectors.EVENT_WRITE if write else 0
            if pair.reads(end):
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
            # Those who have not attached go on with the next adapter.
            for other in list(self._pairs):
                if other.may_rejoin():
                    self._rejoin(other)
        for end in (pair.client, pair.adapter):
            self._loop.unregister(end)
            end.close()
        if not self._pairs:
            self._announce("client-left")
            self._rest_later()

    def _reset(self, number: int) -> Any:
        self._debugger.reset(number)

    def _rest(self) -> Optional[Callable[[], None]]:
        return None if self._debugger.restore_full_speed() else self._rest_later

    def _rest_later(self) -> None:
        # Somebody may be attached still: the adapter takes a moment to notice.
        self._rest_at = time.monotonic() + REST_SECONDS
