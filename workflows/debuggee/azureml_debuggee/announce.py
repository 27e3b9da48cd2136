"""Announces events of the debugged program to observers outside the process.

Events are JSON objects, one a line, appended to a file. The program's own output is not
used, because the program may discard, reformat or imitate it.
"""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Optional


class Announcer:
    """Appends events to a file; without a file it does nothing.

    Args:
        path: The file, created if missing.
        rank: This process's rank, which every event contains.
        world: The number of ranks, if known, which every event contains as well.
    """

    def __init__(self, path: Optional[str], rank: Optional[int] = None, world: Optional[int] = None) -> None:
        self._path = path
        self._rank = {} if rank is None else {"rank": rank} if world is None else {"rank": rank, "world": world}
        #: Whether the last line is incomplete, because the disk was full.
        self._is_incomplete = False

    def __call__(self, event: str, **details: Any) -> None:
        """Append one event; never raises, so that the program is not disturbed."""
        if not self._path:
            return
        record = {"event": event, "pid": os.getpid(), "time": time.time(), **self._rank, **details}
        from . import imports

        try:
            line = imports.standard_module("json").dumps(record, default=str) + "\n"
            # One write in append mode: lines of several processes do not mix.
            handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
            try:
                # An incomplete line must not spoil the next event.
                data = (b"\n" if self._is_incomplete else b"") + line.encode("utf-8", "backslashreplace")
                self._is_incomplete = 0 < os.write(handle, data) < len(data)
            finally:
                os.close(handle)
        except (OSError, ValueError):
            pass


def print_line(line: str) -> None:
    """Write one line to the program's own log.

    ``print`` is not used: the inference server replaces it with a function that adds a prefix,
    and editors search for the exact published lines.
    """
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except Exception:
        # There is no standard output, or it is closed, or the program has replaced it.
        pass


def warn(message: str) -> None:
    """Write one line to the program's standard error; never raises."""
    try:
        sys.stderr.write("azureml_debuggee: " + message + "\n")
        sys.stderr.flush()
    except Exception:
        pass
