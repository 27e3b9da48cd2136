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
import sys
import threading
import time
import traceback

# What hmac.compare_digest is; the module itself would take a while of every start.
from _operator import _compare_digest

# What hashlib.sha256 is at bottom; hashlib loads OpenSSL.
try:
    from _sha2 import sha256 as _sha256  # type: ignore[import-not-found]
except ImportError:
    from _sha256 import sha256 as _sha256  # type: ignore[import-not-found]  # before Python 3.12
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, List, Optional, Set, Tuple

from . import peers
from .pair import GRACE_SECONDS, Pair
from .threads import start_untraced

if TYPE_CHECKING:
    from .debugger import Debugger

#: Debuggers that are connected at the same time, those that have not attached included.
PAIRS = 64
HEADER_BYTES = 4096
BUFFER_BYTES = 64 * 1024
#: Seconds that a peer has for its first message; a busy interpreter may need long.
FIRST_MESSAGE_SECONDS = 60.0
#: Seconds between the last debugger's leaving and the return to full speed.
REST_SECONDS = 0.3
FLUSH_SECONDS = 5.0
#: Seconds of the adapter's silence after which a session whose debugger has died is closed.
SILENCE_SECONDS = 0.2
BIND_SECONDS = 10.0
#: Seconds that a process of the same program may take to end, before it counts as one that stays.
ENDING_SECONDS = 0.5
#: Seconds that the adapter may take to greet; it is a process of its own.
GREETING_SECONDS = 30.0
#: Seconds without accepting, after the program has run out of file descriptors or in a crowd.
PAUSE_SECONDS = 0.05
#: Seconds between looks at whether the gate's sockets are still its own.
HEARTBEAT_SECONDS = 5.0

#: Bytes that may come before the line feed after a token.
PASSWORD_BYTES = 256

_OPENING = b"content-length:"
_PASSWORD = b"AUTH "
_WELCOME = b"OK\n"
_GREETING = re.compile(rb'"output":\s*"debugpy"')
_HEADER = re.compile(rb"content-length:\s*\d{1,9}\r\n(?:[a-z-]+:[^\r\n]*\r\n)*\r\n\{", re.IGNORECASE)


def _pending_limit() -> int:
    """How many peers may be kept of whom nothing is known yet.

    Enough that a crowd of strangers does not push out a debugger whose first message is
    still on its way, and few of the descriptors that the program may open.
    """
    try:
        import resource
    except ImportError:
        return 32
    return max(32, min(128, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 8))


PENDING = _pending_limit()


def speaks_dap(data: bytes) -> Optional[bool]:
    """Whether the first bytes of a peer are a DAP message; None while that is open."""
    opening = data[: len(_OPENING)].lower()
    if not _OPENING.startswith(opening):
        return False
    if _HEADER.match(data):
        return True
    return None if len(data) < HEADER_BYTES else False


def _tell(message: str) -> None:
    """Say something on the program's standard error, without harm to the program."""
    try:
        sys.stderr.write("azureml_debuggee: " + message + "\n")
        sys.stderr.flush()
    except Exception:
        pass


def _complain() -> None:
    """Say what went wrong, which is a bug here, without harm to the program."""
    _tell(traceback.format_exc().rstrip())


def _confirm(end: socket.socket) -> None:
    """Confirm now what has been received, not 40 ms later: so long most editors keep their next message back."""
    if end.family == socket.AF_INET and hasattr(socket, "TCP_QUICKACK"):
        try:
            # The system forgets it after each use.
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        except OSError:
            pass  # The connection is gone.


def _call(connect: Callable[[float], socket.socket]) -> Tuple[socket.socket, bytes]:
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
            received = end.recv(HEADER_BYTES)
            if not received:
                raise ConnectionError("the adapter has closed the connection")
            greeting += received
    except BaseException:
        end.close()
        raise
    return end, greeting


class Gate:
    """Listens for debuggers on behalf of this process.

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 for a free one.
        debugger: What to wake for a debugger.
        announce: Called with events: ``listening`` (host, port), ``client``,
            ``client-left``, ``attach-failed`` (message), ``gate-failed`` (message).
        reached_at: The host by which debuggers reach this one, where that is another address.
        token_digest: SHA-256 in hex of what a peer has to send before all else, as ``AUTH token`` and a line
            feed, which is answered with ``OK``: a debugger runs code. In clear text, so it keeps out who has not got
            it and cannot listen in on the network.
        tries: How many ports may be tried, from that one on.
        open_to_owner: Whether a peer on this machine needs no token if it is of this process's user, or root.
    """

    def __init__(
        self,
        host: str,
        port: int,
        debugger: Debugger,
        announce: Callable[..., None],
        reached_at: Optional[str] = None,
        token_digest: Optional[str] = None,
        tries: int = 1,
        open_to_owner: bool = False,
    ) -> None:
        self.address = (host, port)
        self._reached_at = reached_at or None
        self._token_digest = token_digest
        self._open_to_owner = open_to_owner
        self._admitted: Set[socket.socket] = set()
        self._tries = max(1, tries)
        self._debugger = debugger
        self._announce = announce
        self._listener: Optional[socket.socket] = None
        self._listen_at: Optional[float] = None
        #: The gate's own connection to the adapter, and to which adapter (by its number) there is one.
        self._keeper: Optional[socket.socket] = None
        self._kept = 0
        self._lost: List[Any] = []
        self._pending: "OrderedDict[socket.socket, Tuple[float, bytearray]]" = OrderedDict()
        #: Peers that speak the protocol and wait to be let in, with what they have sent, and until when.
        self._ready: "OrderedDict[socket.socket, Tuple[float, bytes]]" = OrderedDict()
        self._pairs: Set[Pair] = set()
        #: Whether somebody has left debugpy in a state that is not to be relied on, and which adapter has been
        #: condemned for that.
        self._spoilt = False
        self._condemned = 0
        self._waking: Set[socket.socket] = set()
        #: Users whose debuggers have been refused, each said once.
        self._refused: Set[int] = set()
        self._rest_at: Optional[float] = None
        self._work: "queue.SimpleQueue[Callable[[], Optional[Callable[[], None]]]]" = queue.SimpleQueue()
        self._done: "queue.SimpleQueue[Callable[[], None]]" = queue.SimpleQueue()
        self._helper: Optional[threading.Thread] = None
        #: Asked where the port is held: whether by one that runs beside this one, and stays.
        self.is_held: Callable[[int], bool] = lambda port: False
        #: Set once the gate listens, or never will.
        self.settled = threading.Event()
        #: Set once a debugger has been let in, or will never be.
        self.knocked = threading.Event()
        #: How many debuggers have been sent the answer to their `attach`.
        self.answers = 0
        #: Why nobody can knock, if so.
        self.failure: Optional[str] = None

    @property
    def reached_at(self) -> Tuple[str, int]:
        """The address for debuggers, from where they are."""
        return self._reached_at or self.address[0], self.address[1]

    @property
    def owes_answer(self) -> bool:
        """Whether there are debuggers, and none of them has been sent the answer to its `attach`."""
        # A copy: the gate's thread changes the original.
        pairs = list(self._pairs)
        return bool(pairs) and not any(pair.answered for pair in pairs)

    def start(self) -> None:
        """Listen and return at once; where the port is still held, go on trying in the thread.

        The holder may be the process that this one replaces, whose last moments overlap.
        """
        self._hang_bell()
        bound = self._bind()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)
        start_untraced(self._run, "azureml-debuggee-gate", bound)

    # Listening

    def _hang_bell(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._bell, self._rope = socket.socketpair()
        for end in (self._bell, self._rope):
            end.setblocking(False)
        self._selector.register(self._bell, selectors.EVENT_READ, self._on_bell)
        self._mark = self._identity()

    def _identity(self) -> Any:
        """What tells the bell from whatever else may get its number."""
        if os.name != "posix":
            return None
        try:
            status = os.fstat(self._bell.fileno())
        except OSError:
            return False
        return status.st_dev, status.st_ino

    def _bind(self) -> bool:
        host, first = self.address
        last = min(first + self._tries, 65536) if first else 1
        for port in range(first, max(last, first + 1)):
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            try:
                if os.name == "posix":
                    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((host, port))
                listener.listen(512)
                listener.setblocking(False)
                break
            except (OSError, OverflowError) as error:
                listener.close()
                if getattr(error, "errno", None) != errno.EADDRINUSE:
                    self._fail("cannot listen on {}:{}: {}".format(host, port, error))
                    return True
        else:
            return False
        self._listener = listener
        self.address = self._debugger.gate = listener.getsockname()[:2]
        self._selector.register(listener, selectors.EVENT_READ, self._on_knock)
        self._announce("listening", host=self.reached_at[0], port=self.reached_at[1])
        self.settled.set()
        return True

    def _fail(self, message: str) -> None:
        self.failure = message
        self._announce("gate-failed", message=message)
        self.settled.set()
        self.knocked.set()

    def _run(self, bound: bool) -> None:
        began = time.monotonic()
        while not bound:
            time.sleep(0.02)
            bound = self._bind()
            waited = time.monotonic() - began
            if not bound and waited > ENDING_SECONDS and self.is_held(self.address[1]):
                self._fail("port {} is in use by another process of the step".format(self.address[1]))
                return
            if not bound and waited > BIND_SECONDS:
                first, last = self.address[1], self.address[1] + self._tries - 1
                which = "port {} is".format(first) if first == last else "ports {} to {} are".format(first, last)
                self._fail("{} held by another program".format(which))
                return
        while True:
            # Whatever goes wrong with one peer, the gate stays open for the next.
            try:
                self._attend()
            except Exception:
                _complain()
                time.sleep(1.0)

    def _attend(self) -> None:
        try:
            events: List[Tuple[Any, int]] = self._selector.select(self._patience())
            lost = self._identity() != self._mark
        except OSError:
            lost = True
        if lost:
            self._start_over()
            return
        for key, mask in events:
            # An earlier callback of this round may have closed it.
            if self._watched(key.fileobj):
                try:
                    key.data(key.fileobj, mask)
                except Exception:
                    _complain()
                    self._give_up(key.fileobj)
        self._tidy(time.monotonic())

    def _watched(self, end: Any) -> bool:
        return end.fileno() != -1 and end in self._selector.get_map()

    def _give_up(self, end: Any) -> None:
        """Let go of a peer with whom something unforeseen has happened."""
        if end in self._pending:
            self._drop(end)
        for pair in [pair for pair in self._pairs if end in (pair.client, pair.adapter)]:
            self._part(pair)

    def _start_over(self) -> None:
        """Listen anew: the program has closed every file descriptor, the gate's among them.

        Their numbers may stand for files of the program's by now, so nothing is closed:
        the sockets forget their numbers, the selector is kept for good.
        """
        for end in self._sockets():
            end.detach()
        self._lost.append(self._selector)
        self._ask(self._lose)
        self._pending.clear()
        self._ready.clear()
        self._spoilt = False
        self._pairs.clear()
        self._waking.clear()
        self._listener, self._listen_at, self._keeper = None, None, None
        self._hang_bell()
        if not self._bind():
            self._fail("port {} is held by another program".format(self.address[1]))

    def _sockets(self) -> List[socket.socket]:
        ends = [self._bell, self._rope, *self._pending, *self._ready, *self._waking]
        for pair in self._pairs:
            ends += [pair.client, pair.adapter]
        return ends + [end for end in (self._listener, self._keeper) if end is not None]

    def _patience(self) -> float:
        """Seconds until something has to be done without anybody's asking."""
        moments: List[float] = [pair.closing for pair in self._pairs if pair.closing is not None]
        moments += [pair.last + FIRST_MESSAGE_SECONDS for pair in self._pairs if not pair.released]
        if self._pending:
            moments.append(next(iter(self._pending.values()))[0])
        if self._ready:
            moments.append(next(iter(self._ready.values()))[0])
        if self._somebody_waits():
            moments += [pair.gives_way_at() for pair in self._in_the_way()]
        moments += [moment for moment in (self._rest_at, self._listen_at) if moment is not None]
        return max(0.0, min(HEARTBEAT_SECONDS, min(moments) - time.monotonic())) if moments else HEARTBEAT_SECONDS

    def _tidy(self, now: float) -> None:
        if self._listen_at is not None and self._listen_at <= now and self._listener is not None:
            self._listen_at = None
            self._selector.register(self._listener, selectors.EVENT_READ, self._on_knock)
        while self._pending and next(iter(self._pending.values()))[0] <= now:
            self._drop(next(iter(self._pending)))
        while self._ready and next(iter(self._ready.values()))[0] <= now:
            self._ready.popitem(last=False)[0].close()
        for pair in [pair for pair in self._pairs if pair.closing is not None and pair.closing <= now]:
            self._part(pair)
        for pair in [pair for pair in self._pairs if not pair.released and pair.last + FIRST_MESSAGE_SECONDS <= now]:
            # It keeps debugpy awake, and does not attach.
            self._part(pair)
        if self._somebody_waits():
            self._make_way(now)
        if self._rest_at is not None and self._rest_at <= now:
            self._rest_at = None
            if not self._pairs and not self._waking:
                self._ask(self._rest)

    # Peers of whom nothing is known yet

    def _on_knock(self, listener: socket.socket, mask: int) -> None:
        for _ in range(64):
            if self._is_crowded():
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
                # Most likely no descriptor is left. The peer goes on knocking, and to be
                # told so without end would take a whole processor from the program.
                self._pause(time.monotonic() + PAUSE_SECONDS)
                return
            peer.setblocking(False)
            if len(self._pending) >= PENDING:
                self._drop(next(iter(self._pending)))
            self._pending[peer] = (time.monotonic() + FIRST_MESSAGE_SECONDS, bytearray())
            self._selector.register(peer, selectors.EVENT_READ, self._on_first_bytes)

    def _is_crowded(self) -> bool:
        """Whether nobody can be accepted now without pushing out one that has only just come.

        The oldest may be a debugger in a crowd, whose first message is on its way; the
        others then wait where the system keeps them.
        """
        if len(self._pending) < PENDING:
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
        """Accept nobody for a moment."""
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listen_at = until

    def _on_first_bytes(self, peer: socket.socket, mask: int) -> None:
        data = self._pending[peer][1]
        try:
            received = peer.recv(HEADER_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            received = b""
        data += received
        verdict = self._judge(peer, data) if received else False
        if verdict is None:
            return
        if not verdict or not self._is_entitled(peer):
            self._drop(peer)
            return
        self._selector.unregister(peer)
        self._admitted.discard(peer)
        if len(self._ready) >= PENDING:
            self._ready.popitem(last=False)[0].close()
        self._ready[peer] = (self._pending.pop(peer)[0], bytes(data))
        self._make_way(time.monotonic())

    def _is_entitled(self, peer: socket.socket) -> bool:
        """Whether a peer that speaks the protocol may debug this process: its debugger runs code as this user."""
        if peer in self._admitted or not peers.is_loopback(peer):
            # It had the token; or there is none, and whoever listens on a network without one has been told.
            return True
        if peers.is_allowed(peer):
            return True
        uid = peers.uid_of_peer(peer)
        if uid is not None and uid != peers.NOBODY and uid not in self._refused and len(self._refused) < 8:
            self._refused.add(uid)
            _tell("refused a debugger of the user {}: this process is of the user {}".format(uid, os.geteuid()))
        return False

    def _somebody_waits(self) -> bool:
        """Whether there are debuggers that cannot go on because of others."""
        return bool(self._ready) or any(pair.waits for pair in self._pairs)

    def _released(self) -> Tuple[Pair, ...]:
        return tuple(pair for pair in self._pairs if pair.released)

    def _has_session(self) -> bool:
        return any(pair.is_session for pair in self._pairs)

    def _is_full(self) -> bool:
        return len(self._pairs) + len(self._waking) >= PAIRS

    def _in_the_way(self) -> List[Pair]:
        """Those who let others go on by giving way: who is attaching or leaving, or has a place and says nothing."""
        if self._released() and not self._has_session():
            return [pair for pair in self._released() if not pair.deserted]
        if self._ready and self._is_full():
            return [pair for pair in self._pairs if not pair.released]
        return []

    def _make_way(self, now: float) -> None:
        """Let those go on who wait, as far as nobody else is attaching or leaving.

        What somebody has left behind is taken away before the next one is let in.
        """
        for pair in self._in_the_way():
            if pair.released and pair.gives_way_at() <= now:
                self._part(pair)
        for pair in [pair for pair in self._pairs if pair.waits]:
            self._proceed(pair)
        while self._ready and (not self._released() or self._has_session()):
            if self._is_full():
                silent = [pair for pair in self._in_the_way() if pair.gives_way_at() <= now]
                if not silent:
                    return
                self._part(min(silent, key=lambda pair: pair.last))
            peer, (_until, data) = self._ready.popitem(last=False)
            self._waking.add(peer)
            self._ask(partial(self._let_in, peer, data, not self._released()))

    def _proceed(self, pair: Pair) -> None:
        # One that has gone before its turn came is not attached any more.
        if not pair.deserted and pair.proceed(tuple(other for other in self._released() if other is not pair)):
            self._pump(pair)
        else:
            self._part(pair)

    def _judge(self, peer: socket.socket, data: bytearray) -> Optional[bool]:
        """Whether what a peer has sent is what a debugger sends, after the token; None while that is open."""
        if self._token_digest and peer not in self._admitted:
            if self._open_to_owner and not _PASSWORD.startswith(bytes(data[: len(_PASSWORD)])):
                return speaks_dap(bytes(data)) if peers.is_loopback(peer) else False
            end = data.find(b"\n")
            if end < 0:
                # Nothing is told of how much was right: one that is wrong so far waits as long as any other.
                return None if len(data) <= PASSWORD_BYTES else False
            opening, token = bytes(data[: len(_PASSWORD)]), bytes(data[len(_PASSWORD) : end])
            if opening != _PASSWORD or not _compare_digest(_sha256(token).hexdigest(), self._token_digest):
                return False
            # Said, so that whoever holds the token knows that it is this gate that answers.
            peer.send(_WELCOME)
            self._admitted.add(peer)
            del data[: end + 1]
        return speaks_dap(bytes(data))

    def _drop(self, peer: socket.socket) -> None:
        del self._pending[peer]
        self._admitted.discard(peer)
        self._selector.unregister(peer)
        peer.close()

    # What may block: done by the helper's thread, one thing after the other

    def _ask(self, work: Callable[[], Optional[Callable[[], None]]]) -> None:
        """Have the helper do ``work``, and after that in this thread what it has returned."""
        self._work.put(work)
        if self._helper is None:
            self._helper = start_untraced(self._help, "azureml-debuggee-helper")

    def _help(self) -> None:
        while True:
            work = self._work.get()
            try:
                following = work()
            except Exception:
                _complain()
                continue
            if following is None:
                continue
            self._done.put(following)
            try:
                self._rope.send(b"!")
            except OSError:
                pass  # The bell rings already, or hangs no more.

    def _rest(self) -> Optional[Callable[[], None]]:
        return None if self._debugger.rest() else self._rest_later

    def _rest_later(self) -> None:
        # Somebody is attached still: the adapter takes a moment to notice.
        self._rest_at = time.monotonic() + REST_SECONDS

    def _forget(self, adapter: int) -> None:
        self._debugger.forget(adapter)

    def _lose(self) -> None:
        self._kept = 0
        self._debugger.lose()

    def _reset(self, adapter: int) -> None:
        self._debugger.reset(adapter)

    def _let_in(
        self, client: socket.socket, first: bytes, alone: bool, again: Optional[Pair] = None
    ) -> Callable[[], None]:
        adapter: Optional[socket.socket] = None
        keeper: Optional[socket.socket] = None
        try:
            number = self._debugger.wake(alone)
            if self._kept != number:
                keeper, _greeting = _call(self._debugger.connect)
                keeper.setblocking(False)
                self._kept = number
            adapter, greeting = _call(self._debugger.connect)
            for end in (client, adapter):
                end.setblocking(False)
                if end.family == socket.AF_INET:
                    # Small messages back and forth: waiting to fill a packet would delay each step.
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        except Exception as error:
            # The next one may have better luck.
            if adapter is not None:
                adapter.close()
            message = "no debugger can be let in: {}: {}".format(type(error).__name__, error)
            self._announce("attach-failed", message=message)
            _complain()
            return partial(self._refuse, client, keeper)
        if again is None:
            return partial(self._join, Pair(client, adapter, number, first, greeting), keeper)
        again.rejoin(adapter, number)
        return partial(self._join, again, keeper)

    def _on_bell(self, bell: socket.socket, mask: int) -> None:
        try:
            bell.recv(4096)
        except (BlockingIOError, InterruptedError):
            pass
        while True:
            try:
                following = self._done.get_nowait()
            except queue.Empty:
                return
            following()

    # Debuggers

    def _refuse(self, client: socket.socket, keeper: Optional[socket.socket]) -> None:
        self._keep(keeper)
        if client in self._waking:
            self._waking.discard(client)
            client.close()
        self._rest_later()

    def _join(self, pair: Pair, keeper: Optional[socket.socket]) -> None:
        self._keep(keeper)
        if pair.client not in self._waking:
            # Of the time before everything was lost.
            pair.client.detach()
            pair.adapter.close()
            return
        self._waking.discard(pair.client)
        if pair.number <= self._condemned:
            self._rejoin(pair)
            return
        self._pairs.add(pair)
        self._rest_at = None
        if not pair.is_back:
            self._announce("client")
        self.knocked.set()
        self._proceed(pair)

    def _keep(self, keeper: Optional[socket.socket]) -> None:
        """Stay connected to an adapter for as long as it lives."""
        if keeper is None:
            return
        self._release_keeper()
        self._keeper = keeper
        handler = partial(self._on_chatter, self._kept)
        self._selector.register(keeper, selectors.EVENT_READ, handler)

    def _release_keeper(self) -> None:
        if self._keeper is not None:
            if self._watched(self._keeper):
                self._selector.unregister(self._keeper)
            self._keeper.close()
            self._keeper = None

    def _on_chatter(self, adapter: int, keeper: socket.socket, mask: int) -> None:
        try:
            received = keeper.recv(BUFFER_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            received = b""
        if not received:
            # The adapter has ended, by a bug of its own or by somebody's hand.
            self._release_keeper()
            self._ask(partial(self._forget, adapter))

    def _on_traffic(self, pair: Pair, end: socket.socket, mask: int) -> None:
        if mask & selectors.EVENT_READ and self._reads(pair, end):
            try:
                data = end.recv(BUFFER_BYTES)
                _confirm(end)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                data = b""
            if end is pair.client:
                pair.take(data)
                if not data:
                    self._desert(pair)
            elif not data and pair.may_rejoin():
                self._rejoin(pair)
                return
            elif not data:
                pair.closing = time.monotonic() + (0.0 if pair.deserted else FLUSH_SECONDS)
            elif pair.deserted:
                pair.closing = time.monotonic() + SILENCE_SECONDS
            else:
                pair.answer(data)
        if pair.waits:
            self._proceed(pair)
        else:
            self._pump(pair)

    def _rejoin(self, pair: Pair) -> None:
        """Hand a debugger that has not attached to the next adapter: this one has ended."""
        self._pairs.discard(pair)
        for end in (pair.client, pair.adapter):
            if self._watched(end):
                self._selector.unregister(end)
        pair.adapter.close()
        self._waking.add(pair.client)
        self._ask(partial(self._let_in, pair.client, b"", not self._released(), pair))

    def _reads(self, pair: Pair, end: socket.socket) -> bool:
        if pair.deserted:
            return end is pair.adapter
        room = pair.room(BUFFER_BYTES) if end is pair.client else len(pair.to_client) < BUFFER_BYTES
        return pair.closing is None and room

    def _desert(self, pair: Pair) -> None:
        """The client has closed; its answers that are on their way are still taken from the adapter.

        As of debugpy 1.8.22 the adapter ends, and with it all debugging of this process,
        when the answer to an `evaluate` finds the connection closed.
        """
        pair.deserted = True
        pair.closing = time.monotonic() + SILENCE_SECONDS
        del pair.to_client[:]
        if self._watched(pair.client):
            self._selector.unregister(pair.client)

    def _pump(self, pair: Pair) -> None:
        """Send what can be sent, then wait for just what is needed next."""
        for end, _read, write in pair.ends():
            while write and not (pair.deserted and end is pair.client):
                try:
                    sent = end.send(write)
                except (BlockingIOError, InterruptedError):
                    break
                except OSError:
                    # Gone; what it has said before is still to be delivered.
                    del write[:]
                    if end is pair.client:
                        self._desert(pair)
                    pair.closing = pair.closing or time.monotonic() + FLUSH_SECONDS
                    break
                del write[:sent]
        if pair.sends_answer():
            self.answers += 1
        if pair.closing is not None and not pair.deserted and not pair.to_adapter and not pair.to_client:
            self._part(pair)
            return
        for end, _read, write in pair.ends():
            wanted = selectors.EVENT_WRITE if write else 0
            if self._reads(pair, end):
                wanted |= selectors.EVENT_READ
            self._watch(pair, end, wanted)

    def _watch(self, pair: Pair, end: socket.socket, wanted: int) -> None:
        known = self._selector.get_map().get(end)
        if known is None:
            if wanted:
                handler = lambda e, mask, p=pair: self._on_traffic(p, e, mask)  # noqa: E731
                self._selector.register(end, wanted, handler)
        elif not wanted:
            self._selector.unregister(end)
        elif known.events != wanted:
            self._selector.modify(end, wanted, known.data)

    def _part(self, pair: Pair) -> None:
        if pair not in self._pairs:
            return
        self._pairs.discard(pair)
        self._spoilt = self._spoilt or (pair.number > self._condemned and not pair.is_orderly)
        if self._spoilt and not self._released():
            self._spoilt = False
            self._condemned = pair.number
            self._ask(partial(self._reset, pair.number))
            # Those who have not attached go on with the next adapter.
            for other in list(self._pairs):
                if other.may_rejoin():
                    self._rejoin(other)
        for end, _read, _write in pair.ends():
            if self._watched(end):
                self._selector.unregister(end)
            end.close()
        if not self._pairs:
            self._announce("client-left")
            self._rest_later()

    # Forks

    def _after_fork(self) -> None:
        """In a forked child: close what would make debuggers connect to nobody.

        Only the descriptors are closed. Taking them out of the selector would take them
        out of the parent's, since both share one.
        """
        for end in self._sockets():
            try:
                end.close()
            except OSError:
                pass
        try:
            self._selector.close()
        except OSError:
            pass
        # New ones: the parent's other threads may hold the locks of these.
        self._pairs = set()
        self.failure = "a forked child has no gate"
        self.settled, self.knocked = threading.Event(), threading.Event()
        self.settled.set()
        self.knocked.set()
        self._debugger.forget_after_fork()
