"""Those who ask where the program stands: one line with what is wanted, one line with the answer.

``STACKS {"expressions": ["..."]}`` and a line feed, in place of a debugger's first message and after the token where
the gate asks for one. Child processes that have said that they are there are asked as well; one that has not answered
in time, such as one whose interpreter is held by C code, is named as silent.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Set

from . import imports
from .event_loop import EventLoop, report_bug
from .threads import start_untraced

if TYPE_CHECKING:
    from .children import Children

OPENING = b"STACKS "
#: Bytes that a request may have.
REQUEST_BYTES = 64 * 1024
#: Seconds that child processes may take to answer.
CHILDREN_SECONDS = 1.5
#: Seconds that the answer may take to be sent.
SEND_SECONDS = 10.0
#: Requests that are worked on at the same time.
MOST = 8


def is_request(data: bytes) -> Optional[bool]:
    """Whether the first bytes of a peer are such a request; None while that is open."""
    opening = data[: len(OPENING)]
    if not OPENING.startswith(opening):
        return False
    if len(opening) == len(OPENING) and b"\n" in data:
        return True
    return None if len(data) < REQUEST_BYTES else False


def expressions_in(text: str) -> Optional[List[str]]:
    """The expressions of a request's JSON; None where it is none."""
    try:
        wanted = imports.get("json").loads(text)
    except (ValueError, RecursionError):
        return None
    expressions = wanted.get("expressions", []) if isinstance(wanted, dict) else None
    if not isinstance(expressions, list) or not all(isinstance(one, str) for one in expressions):
        return None
    return expressions


def collect_stacks(expressions: List[str]) -> Dict[str, Any]:
    """Where this process stands; see :func:`azureml_debuggee.stacks.collect`."""
    # Imported when it is first wanted: most programs are never asked.
    with imports.own:
        from . import stacks
    return stacks.collect(expressions)


class _Request:
    """One peer that has asked."""

    def __init__(self, peer: socket.socket, asked: Set[int]) -> None:
        self.peer = peer
        self.until = time.monotonic() + CHILDREN_SECONDS
        self.processes: List[Dict[str, Any]] = []
        #: Child processes that have not answered yet.
        self.asked = asked
        #: Whether this process has answered.
        self.is_own_done = False


class StackRequests:
    """Answers requests for stacks. All methods belong to the loop's thread.

    Args:
        loop: Where it waits.
        children: The program's child processes, where they are known.
    """

    def __init__(self, loop: EventLoop, children: Optional[Children]) -> None:
        self._loop, self._children = loop, children
        self._requests: Dict[int, _Request] = {}
        self._numbers = 0

    def add(self, peer: socket.socket, data: bytes) -> None:
        """Take a peer whose first bytes are a request."""
        text = data[len(OPENING) :].partition(b"\n")[0].decode("utf-8", "replace")
        expressions = expressions_in(text)
        if expressions is None or len(self._requests) >= MOST:
            peer.close()
            return
        self._numbers += 1
        number = self._numbers
        asked = self._children.request_stacks(number, text, self._answered) if self._children is not None else set()
        self._requests[number] = _Request(peer, asked)
        # A thread of its own: the helper may be waiting for debugpy's start.
        start_untraced(self._look, "azureml-debuggee-stacks", number, expressions)

    def _look(self, number: int, expressions: List[str]) -> None:
        try:
            found: Optional[Dict[str, Any]] = collect_stacks(expressions)
        except Exception:
            report_bug()
            found = None

        def done() -> None:
            request = self._requests.get(number)
            if request is not None:
                request.processes[:0] = [found] if found is not None else []
                request.is_own_done = True
                self._see_done(number)

        self._loop.run(done)

    def _answered(self, number: int, pid: int, found: Optional[Dict[str, Any]]) -> None:
        """A child has answered, or has ended."""
        request = self._requests.get(number)
        if request is None or pid not in request.asked:
            return
        request.asked.discard(pid)
        if found is not None:
            request.processes.append(found)
        self._see_done(number)

    def _see_done(self, number: int, now: float = 0.0) -> None:
        request = self._requests[number]
        if not request.is_own_done or (request.asked and now < request.until):
            return
        del self._requests[number]
        answer = {"version": 1, "processes": request.processes, "silent": sorted(request.asked)}
        line = imports.get("json").dumps(answer).encode("ascii") + b"\n"
        start_untraced(_send, "azureml-debuggee-stacks", request.peer, line)

    def deadlines(self) -> List[float]:
        """When it has something to do, whatever happens on its sockets."""
        return [request.until for request in self._requests.values() if request.is_own_done]

    def handle_deadlines(self, now: float) -> None:
        """Do what is due at this moment."""
        for number, request in list(self._requests.items()):
            if request.until <= now:
                self._see_done(number, now)

    def sockets(self) -> List[socket.socket]:
        """All that it has."""
        return [request.peer for request in self._requests.values()]

    def clear(self) -> None:
        """Forget all, after the sockets have been detached or closed."""
        self._requests = {}


def _send(peer: socket.socket, line: bytes) -> None:
    try:
        peer.settimeout(SEND_SECONDS)
        peer.sendall(line)
        peer.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # It has gone, or does not read.
    finally:
        peer.close()
