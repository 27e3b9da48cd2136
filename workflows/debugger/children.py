"""Debug sessions with the child processes of a program, each begun when the debugger is told of the child."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass

from workflows.debugger.dap import DapClient, DapError, DapEvent, Json
from workflows.models import DebugEndpoint

ANNOUNCED = "debugpyAttach"
"""The event by which debugpy tells of a child (https://github.com/microsoft/debugpy/wiki/Subprocess-debugging)."""
STOPPED = "child stopped"
"""Our own event, in the queue of the program's session: a child has stopped. See :meth:`ChildSessions.stop_of`."""

_ENDINGS = ("terminated", "exited")
#: Seconds that a child's session may be silent before it is looked at again.
_SILENCE = 3600.0


@dataclass(frozen=True)
class ChildStop:
    """A child process that has stopped.

    Attributes:
        pid: Its process id, where it runs.
        client: The session with it.
        event: The event ``stopped``.
        breakpoint_: The adapter's view of the breakpoint in this session.
    """

    pid: int
    client: DapClient
    event: DapEvent
    breakpoint_: Json


class ChildSessions:
    """The sessions with a program's children. A context manager, which ends them.

    Args:
        client: The session with the program itself.
        endpoint: Where its debugger is reached; the children's is there, too.
        begin: Attaches: called with a new session and the child's process id; returns the adapter's view of the
            breakpoint.
        timeout: Seconds for connecting.
    """

    def __init__(
        self, client: DapClient, endpoint: DebugEndpoint, begin: Callable[[DapClient, int], Json], timeout: float
    ) -> None:
        self._client, self._endpoint, self._begin, self._timeout = client, endpoint, begin, timeout
        self._lock = threading.Lock()
        self._sessions: list[DapClient] = []
        self._stops: dict[int, ChildStop] = {}
        self._over = False

    def __enter__(self) -> ChildSessions:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._over = True
            sessions = list(self._sessions)
        # All at once: each waits a moment until the adapter has forgotten it.
        ending = [threading.Thread(target=_end, args=(session,), daemon=True) for session in sessions]
        for thread in ending:
            thread.start()
        for thread in ending:
            thread.join()

    def follow(self, event: DapEvent) -> None:
        """Attach to a child of which an event tells; returns at once."""
        pid = event.body.get("subProcessId")
        if isinstance(pid, int):
            threading.Thread(target=self._follow, args=(pid,), name=f"child-{pid}", daemon=True).start()

    def stop_of(self, event: DapEvent) -> ChildStop:
        """What an event :data:`STOPPED` is about."""
        with self._lock:
            return self._stops.pop(int(event.body["number"]))

    def _follow(self, pid: int) -> None:
        # A child may end at any moment.
        with contextlib.suppress(DapError):
            session = DapClient.connect(self._endpoint.host, self._endpoint.port, self._timeout)
            with session:
                with self._lock:
                    if self._over:
                        return
                    self._sessions.append(session)
                self._report(session, pid, self._begin(session, pid))

    def _report(self, session: DapClient, pid: int, breakpoint_: Json) -> None:
        while True:
            event = session.wait_event(("stopped", *_ENDINGS), _SILENCE)
            if event.name in _ENDINGS:
                with self._lock:
                    self._sessions.remove(session)
                session.disconnect()
                return
            with self._lock:
                number = len(self._stops) + 1
                while number in self._stops:
                    number += 1
                self._stops[number] = ChildStop(pid, session, event, breakpoint_)
            self._client.post(DapEvent(STOPPED, {"number": number}))


def _end(session: DapClient) -> None:
    with contextlib.suppress(DapError):
        session.disconnect(terminate=False, timeout=5.0)
