"""The data classes of a debug session: breakpoints, stops, happenings."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workflows.debugger.frames import Frame
from workflows.debugger.locations import ALWAYS, Condition
from workflows.models import PathMapping

STOPPED, LOGGED, OUTPUT, CONTINUED, CONDITION, ENDED, LOST = (
    "stopped",
    "logged",
    "output",
    "continued",
    "condition",
    "ended",
    "lost",
)
"""The kinds of happenings. ``condition``: a condition has raised, or a condition or logged expression did not end in
time; its breakpoint is removed, and the program continues."""
#: The kind that the program reports for a condition or logged expression that did not end in time.
ENDLESS = "endless"


@dataclass(frozen=True)
class Breakpoint:
    """A line to stop at, or to log a value at.

    Attributes:
        file: The path, below a path mapping's local folder if possible (:func:`as_mapped`), else the program's own.
        line: Counted from 1.
        condition: When it stops.
        log: An expression whose value is logged instead of stopping; empty to stop.
        function: The function on this line that is meant, if there are several; empty for any.
        most: How many values are logged in each process; 0 is all.
    """

    file: str
    line: int
    condition: Condition = ALWAYS
    log: str = ""
    function: str = ""
    most: int = 0


@dataclass(frozen=True)
class Function:
    """A function to stop in, of a module that the program can import.

    Attributes:
        module: Its full name.
        function: The function's name in the module, such as ``load`` or ``Tensor.sum``.
        condition: As in :class:`Breakpoint`.
        log: As in :class:`Breakpoint`.
        most: As in :class:`Breakpoint`.
    """

    module: str
    function: str
    condition: Condition = ALWAYS
    log: str = ""
    most: int = 0


@dataclass(frozen=True)
class Placed:
    """A breakpoint that is set.

    Attributes:
        number: The number by which it is removed, and by which stops and values refer to it.
        breakpoint: The breakpoint requested; for a :class:`Function` the line that was found.
        line: The line at which the debugger has set it.
        message: The debugger's message if the breakpoint is not verified.
    """

    number: int
    breakpoint: Breakpoint
    line: int
    message: str = ""


@dataclass(frozen=True)
class Stop:
    """A stop of the program or of one of its child processes.

    Attributes:
        reason: ``breakpoint``, ``exception``, ``step``, ``pause``, or another reason of debugpy's.
        thread: The debugger's id of the thread.
        frame: The innermost frame.
        child: The process id of a child; None for the program itself.
        breakpoint: The number of the session's breakpoint that was hit; None if there is none.
        exception: Its ``type`` and ``message``; None if it is no exception.
    """

    reason: str
    thread: int
    frame: Frame
    child: int | None = None
    breakpoint: int | None = None
    exception: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Happening:
    """An event of a debug session.

    Attributes:
        kind: One of the kinds above, or one of the caller's own (:meth:`DebugSession.post`).
        at: When, in seconds since the epoch; for a logged value by the program's clock.
        child: As in :class:`Stop`.
        stop: The stop, of the kind ``stopped``.
        breakpoint: The number of the breakpoint behind a value or a condition.
        text: The value, the output, the condition's error, or why the connection was lost.
        is_error: Whether the expression has raised; ``text`` is then its error.
        dropped: How many values and outputs before this one were dropped because the queue was full.
    """

    kind: str
    at: float = field(default_factory=time.time)
    child: int | None = None
    stop: Stop | None = None
    breakpoint: int | None = None
    text: str = ""
    is_error: bool = False
    dropped: int = 0


def as_mapped(source: Path, mappings: Sequence[PathMapping]) -> str:
    """The path of ``source`` below a mapping's ``local_root``, also if symbolic links lead there."""
    if not any(source.is_relative_to(mapping.local_root) for mapping in mappings):
        real = source.resolve()
        for mapping in mappings:
            root = mapping.local_root.resolve()
            if real.is_relative_to(root):
                return str(mapping.local_root / real.relative_to(root))
    return str(source)


def exception_filters(types: Sequence[str], filters: Sequence[str]) -> dict[str, Any]:
    """The arguments of ``setExceptionBreakpoints`` for exception types and for debugpy's filters."""
    if not types:
        return {"filters": list(filters)}
    path = [{"names": ["Python Exceptions"]}, {"names": list(types)}]
    return {"filters": list(filters), "exceptionOptions": [{"path": path, "breakMode": "always"}]}
