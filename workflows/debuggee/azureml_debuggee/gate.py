"""The gate: what listens on the debug port in place of debugpy.

debugpy's own listener dies of a peer that connects and closes, and slows the program
down from the moment it listens. The gate takes any number of such peers, wakes the
debugger only for one that speaks the Debug Adapter Protocol, and from then on carries
bytes both ways. One thread waits on all sockets; a second, started with the first
debugger, does what may block.

===================== ==========================================================
event_loop.py         the two threads
listener.py           the port, and peers of whom nothing is known yet
admission.py, peers.py which of them may come in
sessions.py, pair.py  debuggers that have been let in
stack_requests.py     those who ask where the program stands
children.py           the program's child processes
adapter_link.py       the connections to debugpy's adapter
===================== ==========================================================
"""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, List, Optional, Tuple

from . import greenlets
from .admission import Admission
from .children import Children
from .event_loop import EventLoop, report_bug
from .listener import CannotListen, Listener
from .sessions import Sessions
from .stack_requests import OPENING, StackRequests
from .threads import start_untraced

if TYPE_CHECKING:
    from .debugger import Debugger

BIND_SECONDS = 10.0
#: Seconds that a process of the same program may take to end, before it counts as one that stays.
ENDING_SECONDS = 0.5
#: Seconds between looks at whether the gate's sockets are still its own.
HEARTBEAT_SECONDS = 5.0


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
        children: A folder for what the child processes are to find, where the debugger is let into those as well.
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
        children: Optional[str] = None,
    ) -> None:
        self._reached_at = reached_at or None
        self._debugger = debugger
        self._announce = announce
        #: Asked where the port is held: whether by one that runs beside this one, and stays.
        self.is_held: Callable[[int], bool] = lambda port: False
        #: Set where no debugger is to be let in here after all, while the port is still held.
        self.is_cancelled = False
        #: Set once the gate listens, or never will.
        self.bind_done = threading.Event()
        #: Set once a debugger has been let in, or will never be.
        self.admission_done = threading.Event()
        #: Why nobody can be let in, if so.
        self.failure: Optional[str] = None
        self._loop = EventLoop(self._drop_failed)
        self._children = Children(self._loop, debugger, announce, children) if children else None
        self._sessions = Sessions(self._loop, debugger, announce, lambda: self.admission_done.set(), self._children)
        self._stack_requests = StackRequests(self._loop, self._children)
        admission = Admission(token_digest, open_to_owner)
        self._listener = Listener(self._loop, (host, port), tries, admission, self._admit)

    @property
    def address(self) -> Tuple[str, int]:
        """Where it listens, or would."""
        return self._listener.address

    @property
    def reached_at(self) -> Tuple[str, int]:
        """The address for debuggers, from where they are."""
        return self._reached_at or self.address[0], self.address[1]

    @property
    def answer_count(self) -> int:
        """How many debuggers have been sent the answer to their `attach`."""
        return self._sessions.answer_count

    @property
    def owes_answer(self) -> bool:
        """Whether there are debuggers, and none of them has been sent the answer to its `attach`."""
        return self._sessions.owes_answer

    def start(self) -> None:
        """Listen and return at once; where the port is still held, go on trying in the thread.

        The holder may be the process that this one replaces, whose last deadlines overlap.
        """
        self._loop.open()
        greenlets.watch(self._loop.run_in_helper, self._debugger.make_ready)
        if self._children is not None:
            self._children.open()
        bound = self._bind()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)
        start_untraced(self._run, "azureml-debuggee-gate", bound)

    def _admit(self, peer: socket.socket, until: float, data: bytes) -> None:
        """Take a peer that may come in."""
        if data.startswith(OPENING):
            self._stack_requests.add(peer, data)
        else:
            self._sessions.add(peer, until, data)

    # Listening

    def _bind(self) -> bool:
        """Listen; False where the port is held, True as well where it cannot be listened on at all."""
        try:
            if not self._listener.bind():
                return False
        except CannotListen as error:
            self._fail(str(error))
            return True
        self._debugger.gate = self.address
        more = {} if self._children is None else {"children": self._children.socket_and_file}
        self._announce("listening", host=self.reached_at[0], port=self.reached_at[1], **more)
        self.bind_done.set()
        return True

    def _fail(self, message: str) -> None:
        self.failure = message
        self._announce("gate-failed", message=message)
        self.bind_done.set()
        self.admission_done.set()

    def _run(self, bound: bool) -> None:
        began = time.monotonic()
        while not bound:
            time.sleep(0.02)
            if self.is_cancelled:
                return
            bound = self._bind()
            waited = time.monotonic() - began
            if not bound and waited > ENDING_SECONDS and self.is_held(self.address[1]):
                self._fail("port {} is in use by another process of the step".format(self.address[1]))
                return
            if not bound and waited > BIND_SECONDS:
                first, last = self._listener.ports()
                which = "port {} is".format(first) if first == last else "ports {} to {} are".format(first, last)
                self._fail("{} held by another program".format(which))
                return
        while True:
            # Whatever goes wrong with one peer, the gate stays open for the next.
            try:
                if self._loop.wait(self._patience()):
                    self._handle_deadlines(time.monotonic())
                else:
                    self._start_over()
            except Exception:
                report_bug()
                time.sleep(1.0)

    def _patience(self) -> float:
        """Seconds until something has to be done without anybody's asking."""
        deadlines = self._listener.deadlines() + self._sessions.deadlines() + self._stack_requests.deadlines()
        if self._children is not None:
            deadlines += self._children.deadlines()
        return max(0.0, min(HEARTBEAT_SECONDS, min(deadlines) - time.monotonic())) if deadlines else HEARTBEAT_SECONDS

    def _handle_deadlines(self, now: float) -> None:
        self._listener.handle_deadlines(now)
        self._sessions.handle_deadlines(now)
        self._stack_requests.handle_deadlines(now)
        if self._children is not None:
            self._children.handle_deadlines(now)

    def _drop_failed(self, end: Any) -> None:
        """Let go of a peer with whom something unforeseen has happened."""
        self._listener.drop_failed(end)
        self._sessions.drop_failed(end)
        if self._children is not None:
            self._children.drop_failed(end)

    def _sockets(self) -> List[socket.socket]:
        children = [] if self._children is None else self._children.sockets()
        own = [*self._listener.sockets(), *self._sessions.sockets(), *self._stack_requests.sockets()]
        return [*self._loop.sockets(), *own, *children]

    def _start_over(self) -> None:
        """Listen anew: the program has closed every file descriptor, the gate's among them.

        Their numbers may stand for files of the program's by now, so nothing is closed:
        the sockets forget their numbers, the selector is kept for good.
        """
        for end in self._sockets():
            end.detach()
        self._sessions.clear()
        self._stack_requests.clear()
        self._listener.clear()
        self._loop.reopen()
        if self._children is not None:
            self._children.clear()
        if not self._bind():
            self._fail("port {} is held by another program".format(self.address[1]))

    # Forks

    def _after_fork(self) -> None:
        """In a forked child: close what would make debuggers connect to nobody."""
        for end in self._sockets():
            try:
                end.close()
            except OSError:
                pass
        self._loop.close_after_fork()
        self._sessions.clear_after_fork()
        self._stack_requests.clear()
        if self._children is not None:
            self._children.clear_after_fork()
        # New ones: the parent's other threads may hold the locks of these.
        self.failure = "a forked child has no gate"
        self.bind_done, self.admission_done = threading.Event(), threading.Event()
        self.bind_done.set()
        self.admission_done.set()
        self._debugger.clear_after_fork()
