"""The events that the debuggee writes to a file: the only source of readiness.

Nothing connects to a debug port to test it, and nothing sleeps for a fixed time.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Events:
    """The events of one service, read as they are appended.

    Args:
        path: The file, which may not exist yet.
        offset: The offset to begin at, in bytes.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._path = path
        self.offset = offset

    def read(self) -> list[dict[str, Any]]:
        """The events that have come since the last call."""
        try:
            with open(self._path, "rb") as file:
                file.seek(self.offset)
                data = file.read()
        except FileNotFoundError:
            return []
        # An incomplete line is left for the next call.
        whole = data[: data.rfind(b"\n") + 1]
        self.offset += len(whole)
        events = []
        for line in whole.splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and isinstance(event.get("event"), str):
                events.append(event)
        return events


def read_events(path: Path) -> list[dict[str, Any]]:
    """All events so far."""
    return Events(path).read()


def current_worker(path: Path) -> int:
    """The process id, in the service's PID namespace, of the worker that was started last; 0 if there is none."""
    workers = [event.get("pid", 0) for event in read_events(path) if event["event"] == "worker"]
    return int(workers[-1]) if workers else 0


def current_state(path: Path) -> str | None:
    """The last state of a service's debugger: ``waiting``, ``attached``, ``client-left``…; None if there is none."""
    kinds = ("waiting", "loaded", "attached", "client-left", "not-attached")
    states = [event["event"] for event in read_events(path) if event["event"] in kinds]
    return states[-1] if states else None
