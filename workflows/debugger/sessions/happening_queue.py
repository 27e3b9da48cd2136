"""The queue of a debug session's happenings that have not been taken yet."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import replace

from workflows.debugger.sessions import model
from workflows.debugger.sessions.model import Happening

#: Values and outputs that are queued at most; stops are always kept.
_MOST_WAITING = 150_000
# On Windows a wait on a lock cannot be interrupted by Ctrl-C: wait in slices of this many seconds.
_SLICE = 0.5


class HappeningQueue:
    """A queue with an end. Any thread may post; one takes."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[Happening] = deque()
        self._dropped = 0
        self._over: Happening | None = None

    def wait(self, timeout: float) -> Happening | None:
        """Take the next happening; None if none comes within ``timeout`` seconds. The end is returned repeatedly."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                if self._waiting:
                    return self._waiting.popleft()
                if self._over is not None:
                    return self._over
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                self._changed.wait(min(left, _SLICE))

    def post(self, happening: Happening) -> None:
        """Post a happening. Values and outputs are dropped, and counted, if the queue is full."""
        with self._changed:
            if happening.kind in (model.LOGGED, model.OUTPUT):
                if len(self._waiting) >= _MOST_WAITING:
                    self._dropped += 1
                    return
                happening, self._dropped = replace(happening, dropped=self._dropped), 0
            self._waiting.append(happening)
            self._changed.notify_all()

    def end(self, kind: str, text: str = "") -> None:
        """Mark the end of the queue; the first reason counts."""
        with self._changed:
            self._over = self._over or Happening(kind, text=text)
            self._changed.notify_all()
