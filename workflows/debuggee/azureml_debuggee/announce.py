"""Says what happens to the debugged program, to whoever watches from outside.

One JSON object a line, appended to a file. A file and not the program's own output,
because that belongs to the program: it may be swallowed, reformatted or imitated.
"""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Optional


class Announcer:
    """Appends events to a file; without a file it says nothing.

    Args:
        path: The file, made when missing.
        rank: This process's among several, noted in every event.
        world: How many those are, as far as is known; noted with it.
    """

    def __init__(self, path: Optional[str], rank: Optional[int] = None, world: Optional[int] = None) -> None:
        self._path = path
        self._rank = {} if rank is None else {"rank": rank} if world is None else {"rank": rank, "world": world}
        #: Whether the disk was full in the middle of a line.
        self._torn = False

    def __call__(self, event: str, **details: Any) -> None:
        """Append one event. Never raises: the program matters more than its watcher."""
        if not self._path:
            return
        record = {"event": event, "pid": os.getpid(), "time": time.time(), **self._rank, **details}
        from . import imports

        try:
            line = imports.get("json").dumps(record, default=str) + "\n"
            # One write in append mode: lines of several processes do not mix.
            handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
            try:
                # The half of a line must not take the next event with it.
                data = (b"\n" if self._torn else b"") + line.encode("utf-8", "backslashreplace")
                self._torn = 0 < os.write(handle, data) < len(data)
            finally:
                os.close(handle)
        except (OSError, ValueError):
            pass


def print_line(line: str) -> None:
    """Write one line to the program's own log.

    Not by ``print``: the inference server replaces it with one that adds a prefix, and
    the published lines are looked for as they stand.
    """
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except Exception:
        # No standard output, or closed already, or replaced by something of the program's.
        pass


def warn(message: str) -> None:
    """Write one line to the program's standard error, without harm to the program."""
    try:
        sys.stderr.write("azureml_debuggee: " + message + "\n")
        sys.stderr.flush()
    except Exception:
        pass
