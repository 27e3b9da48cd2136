"""The gate: what listens on the debug port in place of debugpy.

debugpy's own listener dies of a peer that connects and closes, and slows the program
down from the moment it listens. The gate takes any number of such peers, wakes the
debugger only for one that speaks the Debug Adapter Protocol, and from then on carries
bytes both ways. One thread waits on all sockets; a second, started with the first
debugger, does what may block.

The protocol's first bytes: https://microsoft.github.io/debug-adapter-protocol/overview#base-protocol
"""

from __future__ import annotations

import errno
import os
import queue
import re
import selectors
import socket
import threading
import time
from collections import OrderedDict
from typing import Any, Callable, List, Optional, Set, Tuple

from .debugger import Debugger
from .threads import start_untraced

PENDING = 32
PAIRS = 8
HEADER_BYTES = 4096
BUFFER_BYTES = 64 * 1024
#: Seconds that a peer has for its first message; a busy interpreter may need long.
FIRST_MESSAGE_SECONDS = 60.0
#: Seconds between the last debugger's leaving and the return to full speed.
REST_SECONDS = 0.3
FLUSH_SECONDS = 5.0
BIND_SECONDS = 10.0

_OPENING = b"content-length:"
_HEADER = re.compile(rb"content-length:\s*\d{1,9}\r\n(?:[a-z-]+:[^\r\n]*\r\n)*\r\n\{", re.IGNORECASE)


def speaks_dap(data: bytes) -> Optional[bool]:
    """Whether the first bytes of a peer are a DAP message; None while that is open."""
    opening = data[: len(_OPENING)].lower()
    if not _OPENING.startswith(opening):
        return False
    if _HEADER.match(data):
        return True
    return None if len(data) < HEADER_BYTES else False


class _Pair:
    """A debugger's connection and the one to debugpy's adapter, with what is on its way."""

    def __init__(self, client: socket.socket, adapter: socket.socket, first: bytes) -> None:
        self.client, self.adapter = client, adapter
        self.to_adapter, self.to_client = bytearray(first), bytearray()
        self.closing: Optional[float] = None

    def ends(self) -> Tuple[Tuple[socket.socket, bytearray, bytearray], ...]:
        """Each socket with the buffer read from it and the one to be written to it."""
        return (
            (self.client, self.to_adapter, self.to_client),
            (self.adapter, self.to_client, self.to_adapter),
        )


class Gate:
    """Listens for debuggers on behalf of this process.

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 for a free one.
        debugger: What to wake for a debugger.
        announce: Called with events: ``listening`` (host, port), ``client``,
            ``client-left``, ``gate-failed`` (message).
    """

    def __init__(self, host: str, port: int, debugger: Debugger, announce: Callable[..., None]) -> None:
        self.address = (host, port)
        self._debugger = debugger
        self._announce = announce
        self._listener: Optional[socket.socket] = None
        self._pending: "OrderedDict[socket.socket, Tuple[float, bytearray]]" = OrderedDict()
        self._pairs: Set[_Pair] = set()
        self._waking = 0
        self._rest_at: Optional[float] = None
        self._work: "queue.SimpleQueue[Optional[Tuple[socket.socket, bytes]]]" = queue.SimpleQueue()
        self._done: "queue.SimpleQueue[Any]" = queue.SimpleQueue()
        self._helper: Optional[threading.Thread] = None
        #: Set once a debugger has been let in, or will never be.
        self.knocked = threading.Event()
        #: Why no debugger can be let in, if so.
        self.failure: Optional[str] = None

    def start(self) -> None:
        """Listen and return at once; where the port is still held, go on trying in the thread.

        The holder may be the process that this one replaces, whose last moments overlap.
        """
        self._selector = selectors.DefaultSelector()
        self._bell, self._rope = socket.socketpair()
        for end in (self._bell, self._rope):
            end.setblocking(False)
        self._selector.register(self._bell, selectors.EVENT_READ, self._on_bell)
        bound = self._bind()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)
        start_untraced(self._run, "azureml-debuggee-gate", bound)

    # Listening

    def _bind(self) -> bool:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            if os.name == "posix":
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(self.address)
            listener.listen(128)
            listener.setblocking(False)
        except OSError as error:
            listener.close()
            if error.errno == errno.EADDRINUSE:
                return False
            self._fail("cannot listen on {}:{}: {}".format(self.address[0], self.address[1], error))
            return True
        self._listener = listener
        self.address = listener.getsockname()[:2]
        self._selector.register(listener, selectors.EVENT_READ, self._on_knock)
        self._announce("listening", host=self.address[0], port=self.address[1])
        return True

    def _fail(self, message: str) -> None:
        self.failure = message
        self._announce("gate-failed", message=message)
        self.knocked.set()

    def _run(self, bound: bool) -> None:
        deadline = time.monotonic() + BIND_SECONDS
        while not bound:
            time.sleep(0.02)
            bound = self._bind()
            if not bound and time.monotonic() > deadline:
                self._fail("port {} is held by another program".format(self.address[1]))
                return
        while True:
            for key, mask in self._selector.select(self._patience()):
                # An earlier callback of this round may have closed it.
                if self._watched(key.fileobj):
                    key.data(key.fileobj, mask)
            self._tidy(time.monotonic())

    def _watched(self, end: Any) -> bool:
        return end.fileno() != -1 and end in self._selector.get_map()

    def _patience(self) -> Optional[float]:
        """Seconds until something has to be done without anybody's asking."""
        moments: List[float] = [pair.closing for pair in self._pairs if pair.closing is not None]
        if self._pending:
            moments.append(next(iter(self._pending.values()))[0])
        if self._rest_at is not None:
            moments.append(self._rest_at)
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def _tidy(self, now: float) -> None:
        while self._pending and next(iter(self._pending.values()))[0] <= now:
            self._drop(next(iter(self._pending)))
        for pair in [pair for pair in self._pairs if pair.closing is not None and pair.closing <= now]:
            self._part(pair)
        if self._rest_at is not None and self._rest_at <= now:
            self._rest_at = None
            if not self._pairs and not self._waking:
                self._ask(None)

    # Peers of whom nothing is known yet

    def _on_knock(self, listener: socket.socket, mask: int) -> None:
        for _ in range(64):
            try:
                peer, _address = listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE) and self._pending:
                    self._drop(next(iter(self._pending)))
                    continue
                return
            peer.setblocking(False)
            if len(self._pending) >= PENDING:
                self._drop(next(iter(self._pending)))
            self._pending[peer] = (time.monotonic() + FIRST_MESSAGE_SECONDS, bytearray())
            self._selector.register(peer, selectors.EVENT_READ, self._on_first_bytes)

    def _on_first_bytes(self, peer: socket.socket, mask: int) -> None:
        data = self._pending[peer][1]
        try:
            received = peer.recv(HEADER_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            received = b""
        data += received
        verdict = speaks_dap(bytes(data)) if received else False
        if verdict is None:
            return
        if not verdict or len(self._pairs) + self._waking >= PAIRS:
            self._drop(peer)
            return
        del self._pending[peer]
        self._selector.unregister(peer)
        self._waking += 1
        self._ask((peer, bytes(data)))

    def _drop(self, peer: socket.socket) -> None:
        del self._pending[peer]
        self._selector.unregister(peer)
        peer.close()

    # What may block: done by the helper's thread, one thing after the other

    def _ask(self, work: Optional[Tuple[socket.socket, bytes]]) -> None:
        self._work.put(work)
        if self._helper is None:
            self._helper = start_untraced(self._help, "azureml-debuggee-helper")

    def _help(self) -> None:
        while True:
            work = self._work.get()
            if work is None:
                result: Any = self._debugger.rest()
            else:
                result = self._let_in(*work)
            self._done.put(result)
            try:
                self._rope.send(b"!")
            except BlockingIOError:
                pass  # The bell rings already.

    def _let_in(self, client: socket.socket, first: bytes) -> Optional[_Pair]:
        try:
            adapter = socket.create_connection(self._debugger.wake(), timeout=30)
        except Exception as error:
            client.close()
            self._fail("debugpy cannot start: {}: {}".format(type(error).__name__, error))
            return None
        for end in (client, adapter):
            end.setblocking(False)
            # Small messages back and forth: waiting to fill a packet would delay each step.
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return _Pair(client, adapter, first)

    def _on_bell(self, bell: socket.socket, mask: int) -> None:
        try:
            bell.recv(4096)
        except (BlockingIOError, InterruptedError):
            pass
        while True:
            try:
                result = self._done.get_nowait()
            except queue.Empty:
                return
            if result is False:
                # Somebody is attached still: the adapter takes a moment to notice.
                self._rest_at = time.monotonic() + REST_SECONDS
            elif result is not True:
                self._waking -= 1
                if result is not None:
                    self._join(result)

    # Debuggers

    def _join(self, pair: _Pair) -> None:
        self._pairs.add(pair)
        self._rest_at = None
        self._announce("client")
        self.knocked.set()
        self._pump(pair)

    def _on_traffic(self, pair: _Pair, end: socket.socket, mask: int) -> None:
        if mask & selectors.EVENT_READ and pair.closing is None:
            for own, read, _write in pair.ends():
                if own is end and len(read) < BUFFER_BYTES:
                    try:
                        data = own.recv(BUFFER_BYTES)
                    except (BlockingIOError, InterruptedError):
                        continue
                    except OSError:
                        data = b""
                    if not data:
                        pair.closing = time.monotonic() + FLUSH_SECONDS
                    read += data
        self._pump(pair)

    def _pump(self, pair: _Pair) -> None:
        """Send what can be sent, then wait for just what is needed next."""
        for end, _read, write in pair.ends():
            while write:
                try:
                    sent = end.send(write)
                except (BlockingIOError, InterruptedError):
                    break
                except OSError:
                    self._part(pair)
                    return
                del write[:sent]
        if pair.closing is not None and not pair.to_adapter and not pair.to_client:
            self._part(pair)
            return
        for end, read, write in pair.ends():
            wanted = selectors.EVENT_WRITE if write else 0
            if pair.closing is None and len(read) < BUFFER_BYTES:
                wanted |= selectors.EVENT_READ
            self._watch(pair, end, wanted)

    def _watch(self, pair: _Pair, end: socket.socket, wanted: int) -> None:
        known = self._selector.get_map().get(end)
        if known is None:
            if wanted:
                handler = lambda e, mask, p=pair: self._on_traffic(p, e, mask)  # noqa: E731
                self._selector.register(end, wanted, handler)
        elif not wanted:
            self._selector.unregister(end)
        elif known.events != wanted:
            self._selector.modify(end, wanted, known.data)

    def _part(self, pair: _Pair) -> None:
        if pair not in self._pairs:
            return
        self._pairs.discard(pair)
        for end, _read, _write in pair.ends():
            if self._watched(end):
                self._selector.unregister(end)
            end.close()
        if not self._pairs:
            self._announce("client-left")
            self._rest_at = time.monotonic() + REST_SECONDS

    # Forks

    def _after_fork(self) -> None:
        """In a forked child: close what would make debuggers connect to nobody.

        Only the descriptors are closed. Taking them out of the selector would take them
        out of the parent's, since both share one.
        """
        sockets = [self._listener, self._bell, self._rope, *self._pending]
        for pair in self._pairs:
            sockets += [pair.client, pair.adapter]
        for end in sockets:
            if end is not None:
                end.close()
        try:
            self._selector.close()
        except OSError:
            pass
        self._debugger.forget_after_fork()
