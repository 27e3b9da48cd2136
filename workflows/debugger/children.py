"""Debug sessions with the child processes of a program, each begun when debugpy announces the child."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from workflows.debugger.dap import DapClient, DapError, DapEvent, DapTimeout
from workflows.models import DebugEndpoint

ANNOUNCED = "debugpyAttach"
"""The event by which debugpy announces a child (https://github.com/microsoft/debugpy/wiki/Subprocess-debugging)."""

_ENDINGS = ("terminated", "exited")
#: Seconds of one wait for a child's next event.
_SILENCE = 3600.0


class ChildSessions:
    """The sessions with a program's children.

    Args:
        endpoint: The address of the program's debugger, which also serves its children.
        begin: Called with a new connection and the child's process id, to attach.
        on_event: Called with the process id and each event of a child in turn; with None when it has ended.
        timeout: Seconds for connecting.
    """

    def __init__(
        self,
        endpoint: DebugEndpoint,
        begin: Callable[[DapClient, int], None],
        on_event: Callable[[int, DapEvent | None], None],
        timeout: float,
    ) -> None:
        self._endpoint, self._begin, self._on_event, self._timeout = endpoint, begin, on_event, timeout
        self._lock = threading.Lock()
        self._sessions: list[DapClient] = []
        self._over = False

    def close(self) -> None:
        """End them; the children go on."""
        with self._lock:
            self._over = True
            sessions = list(self._sessions)
        # All at once: each waits a moment until the adapter has dropped it.
        ending = [threading.Thread(target=_end, args=(session,), daemon=True) for session in sessions]
        for thread in ending:
            thread.start()
        for thread in ending:
            thread.join()

    def follow(self, event: DapEvent) -> None:
        """Attach to the child that an event announces; returns at once."""
        pid = event.body.get("subProcessId")
        if isinstance(pid, int):
            threading.Thread(target=self._follow, args=(pid,), name=f"child-{pid}", daemon=True).start()

    def _follow(self, pid: int) -> None:
        # A child may end at any moment.
        with contextlib.suppress(DapError):
            session = DapClient.connect(self._endpoint.host, self._endpoint.port, self._timeout)
            with session:
                with self._lock:
                    if self._over:
                        return
                    self._sessions.append(session)
                self._begin(session, pid)
                try:
                    self._report(session, pid)
                finally:
                    self._on_event(pid, None)

    def _report(self, session: DapClient, pid: int) -> None:
        while True:
            try:
                event = session.wait_event(None, _SILENCE)
            except DapTimeout:
                continue
            if event.name in _ENDINGS:
                with self._lock:
                    self._sessions.remove(session)
                session.disconnect()
                return
            self._on_event(pid, event)


def _end(session: DapClient) -> None:
    with contextlib.suppress(DapError):
        session.disconnect(terminate=False, timeout=5.0)
