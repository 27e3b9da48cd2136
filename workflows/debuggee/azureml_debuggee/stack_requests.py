"""Answers requests for the program's stacks: one line with the request, one line with the answer.

A request is ``STACKS {"expressions": ["..."]}`` and a line feed, in place of a debugger's first message, and after the
token if the gate requires one. It is passed on to registered child processes. A child that does not answer in time,
for instance because C code holds its interpreter, is listed as silent.
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
#: Bytes of a request at most.
REQUEST_BYTES = 64 * 1024
#: Seconds that child processes may take to answer.
CHILDREN_SECONDS = 1.5
#: Seconds that the answer may take to be sent.
SEND_SECONDS = 10.0
#: Requests that are handled at the same time at most.
MOST_REQUESTS = 8


def is_request(data: bytes) -> Optional[bool]:
    """Whether the first bytes of a peer are such a request; None while that is undecided."""
    opening = data[: len(OPENING)]
    if not OPENING.startswith(opening):
        return False
    if len(opening) == len(OPENING) and b"\n" in data:
        return True
    return None if len(data) < REQUEST_BYTES else False


def expressions_in(text: str) -> Optional[List[str]]:
    """The expressions in a request's JSON; None if it is invalid."""
    try:
        wanted = imports.standard_module("json").loads(text)
    except (ValueError, RecursionError):
        return None
    expressions = wanted.get("expressions", []) if isinstance(wanted, dict) else None
    if not isinstance(expressions, list) or not all(isinstance(one, str) for one in expressions):
        return None
    return expressions


def collect_stacks(expressions: List[str]) -> Dict[str, Any]:
    """The stacks of this process; see :func:`azureml_debuggee.stacks.collect`."""
    # Imported with the first request, which most programs never get.
    with imports.own:
        from . import stacks
    return stacks.collect(expressions)


class _Request:
    """One request."""

    def __init__(self, peer: socket.socket, awaited: Set[int]) -> None:
        self.peer = peer
        self.until = time.monotonic() + CHILDREN_SECONDS
        self.processes: List[Dict[str, Any]] = []
        #: Child processes that have not answered yet.
        self.awaited = awaited
        #: Whether this process has answered.
        self.is_own_done = False


class StackRequests:
    """Answers requests for stacks. All methods belong to the loop's thread.

    Args:
        loop: The event loop.
        children: The program's child processes, if they are debugged.
    """

    def __init__(self, loop: EventLoop, children: Optional[Children]) -> None:
        self._loop, self._children = loop, children
        self._requests: Dict[int, _Request] = {}
        self._numbers = 0

    def add(self, peer: socket.socket, data: bytes) -> None:
        """Handle a peer whose first bytes are a request."""
        text = data[len(OPENING) :].partition(b"\n")[0].decode("utf-8", "replace")
        expressions = expressions_in(text)
        if expressions is None or len(self._requests) >= MOST_REQUESTS:
            peer.close()
            return
        self._numbers += 1
        number = self._numbers
        awaited = (
            self._children.request_stacks(number, text, self._on_child_answer) if self._children is not None else set()
        )
        self._requests[number] = _Request(peer, awaited)
        # In a thread of its own: the helper may be waiting for debugpy's start.
        start_untraced(self._collect, "azureml-debuggee-stacks", number, expressions)

    def _collect(self, number: int, expressions: List[str]) -> None:
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
                self._send_if_complete(number)

        self._loop.run(done)

    def _on_child_answer(self, number: int, pid: int, found: Optional[Dict[str, Any]]) -> None:
        """Handle that a child has answered, or has ended."""
        request = self._requests.get(number)
        if request is None or pid not in request.awaited:
            return
        request.awaited.discard(pid)
        if found is not None:
            request.processes.append(found)
        self._send_if_complete(number)

    def _send_if_complete(self, number: int, now: float = 0.0) -> None:
        request = self._requests[number]
        if not request.is_own_done or (request.awaited and now < request.until):
            return
        del self._requests[number]
        answer = {"version": 1, "processes": request.processes, "silent": sorted(request.awaited)}
        line = imports.standard_module("json").dumps(answer).encode("ascii") + b"\n"
        start_untraced(_send, "azureml-debuggee-stacks", request.peer, line)

    def deadlines(self) -> List[float]:
        """The times at which :meth:`handle_deadlines` has something to do."""
        return [request.until for request in self._requests.values() if request.is_own_done]

    def handle_deadlines(self, now: float) -> None:
        """Handle the deadlines that have passed at this time."""
        for number, request in list(self._requests.items()):
            if request.until <= now:
                self._send_if_complete(number, now)

    def sockets(self) -> List[socket.socket]:
        """All its sockets."""
        return [request.peer for request in self._requests.values()]

    def clear(self) -> None:
        """Drop all requests, after their sockets have been detached or closed."""
        self._requests = {}


def _send(peer: socket.socket, line: bytes) -> None:
    try:
        peer.settimeout(SEND_SECONDS)
        peer.sendall(line)
        peer.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # It has closed, or does not read.
    finally:
        peer.close()
