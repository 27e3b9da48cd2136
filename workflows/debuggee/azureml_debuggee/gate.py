"""The gate, which listens on the debug port in place of debugpy.

debugpy's own listener stops accepting after a peer that connects and closes, and slows the
program down as soon as it listens. The gate accepts any number of such peers, starts
debugpy only for a peer that speaks the Debug Adapter Protocol, and then forwards
bytes both ways. One thread waits on all sockets; a second, started with the first
debugger, does the work that may block.

===================== ==========================================================
event_loop.py         the two threads
listener.py           the port, and connections until their first message has arrived
admission.py, peers.py which of them are admitted
sessions.py, pair.py  debuggers that have been admitted
stack_requests.py     requests for the program's stacks
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
#: Seconds after which another process of the program that holds the port is not considered to be ending.
ENDING_SECONDS = 0.5
#: Seconds between checks whether the program has closed the gate's sockets.
HEARTBEAT_SECONDS = 5.0


class Gate:
    """Listens for debuggers on behalf of this process.

    Args:
        host: Address to listen on.
        port: Port to listen on; 0 for a free one.
        debugger: The debugger that is started for an attaching client.
        announce: Called with events: ``listening`` (host, port), ``client``,
            ``client-left``, ``attach-failed`` (message), ``gate-failed`` (message).
        reached_at: The host name or address by which debuggers reach this host, if it is not ``host``.
        token_digest: SHA-256 in hex of the token that a peer has to send first, as ``AUTH token`` and a line feed,
            which is answered with ``OK``: a debugger can run any code. The token is sent in clear text, so it does not
            protect against a peer that can read the network's traffic.
        tries: How many ports may be tried, from ``port`` on.
        open_to_owner: Whether a peer on this machine needs no token if its user is this process's user or root.
        children: A folder for the child processes' marker file, if child processes are debugged as well.
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
        #: Called with a port that is in use: whether another process of the step listens there.
        self.is_held: Callable[[int], bool] = lambda port: False
        #: Set to give up listening while the port is still in use.
        self.is_cancelled = False
        #: Set once the gate listens, or has failed to.
        self.bind_done = threading.Event()
        #: Set once a debugger has been admitted, or none can be.
        self.admission_done = threading.Event()
        #: Why no debugger can be admitted; None if one can.
        self.failure: Optional[str] = None
        self._loop = EventLoop(self._drop_failed)
        self._children = Children(self._loop, debugger, announce, children) if children else None
        self._sessions = Sessions(self._loop, debugger, announce, lambda: self.admission_done.set(), self._children)
        self._stack_requests = StackRequests(self._loop, self._children)
        admission = Admission(token_digest, open_to_owner)
        self._listener = Listener(self._loop, (host, port), tries, admission, self._admit)

    @property
    def address(self) -> Tuple[str, int]:
        """The address that it listens on, or tries to."""
        return self._listener.address

    @property
    def reached_at(self) -> Tuple[str, int]:
        """The address at which debuggers reach it."""
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
        """Start to listen and return at once; if the port is in use, the gate's thread tries again.

        The process that this one replaces may still be ending and hold the port.
        """
        self._loop.open()
        greenlets.start_before_patching(self._loop.run_in_helper, self._debugger.make_ready)
        if self._children is not None:
            self._children.open()
        bound = self._bind()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)
        start_untraced(self._run, "azureml-debuggee-gate", bound)

    def _admit(self, peer: socket.socket, until: float, data: bytes) -> None:
        """Take over an admitted peer."""
        if data.startswith(OPENING):
            self._stack_requests.add(peer, data)
        else:
            self._sessions.add(peer, until, data)

    # Listening

    def _bind(self) -> bool:
        """Listen; False if the port is in use, True if the gate listens or can never listen there."""
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
        start_time = time.monotonic()
        while not bound:
            time.sleep(0.02)
            if self.is_cancelled:
                return
            bound = self._bind()
            waited = time.monotonic() - start_time
            if not bound and waited > ENDING_SECONDS and self.is_held(self.address[1]):
                self._fail("port {} is in use by another process of the step".format(self.address[1]))
                return
            if not bound and waited > BIND_SECONDS:
                first, last = self._listener.ports()
                which = "port {} is".format(first) if first == last else "ports {} to {} are".format(first, last)
                self._fail("{} held by another program".format(which))
                return
        while True:
            # An error with one peer must not close the gate for the next.
            try:
                if self._loop.wait(self._seconds_to_wait()):
                    self._handle_deadlines(time.monotonic())
                else:
                    self._reopen()
            except Exception:
                report_bug()
                time.sleep(1.0)

    def _seconds_to_wait(self) -> float:
        """Seconds until the next deadline, at most :data:`HEARTBEAT_SECONDS`."""
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
        """Drop a peer whose handler has raised an exception."""
        self._listener.drop_failed(end)
        self._sessions.drop_failed(end)
        if self._children is not None:
            self._children.drop_failed(end)

    def _sockets(self) -> List[socket.socket]:
        children = [] if self._children is None else self._children.sockets()
        own = [*self._listener.sockets(), *self._sessions.sockets(), *self._stack_requests.sockets()]
        return [*self._loop.sockets(), *own, *children]

    def _reopen(self) -> None:
        """Listen again: the program has closed every file descriptor, the gate's among them.

        Their numbers may stand for files of the program by now, so nothing is closed:
        the sockets are detached from their numbers, and the old selector is never released.
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
        """Close the sockets in a forked child, which never accepts on them."""
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
        # New ones: the parent's other threads may have held the locks of the old ones.
        self.failure = "a forked child has no gate"
        self.bind_done, self.admission_done = threading.Event(), threading.Event()
        self.bind_done.set()
        self.admission_done.set()
        self._debugger.clear_after_fork()
