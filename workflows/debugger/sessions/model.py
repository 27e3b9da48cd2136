"""The values of a debug session: where to stop, and what has happened."""

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
"""The kinds of what happens. ``condition``: one has raised, or it or a value to log did not end in time; its breakpoint
is taken away, and the program goes on."""
#: What the program tells of a condition, or of a value to log, that did not end in time.
ENDLESS = "endless"


@dataclass(frozen=True)
class Breakpoint:
    """Where to stop, or of what to log a value.

    Attributes:
        file: The path as a path mapping's local folder begins it, else the program's own (:func:`as_mapped`).
        line: Counted from 1.
        condition: At which of the times that the line runs.
        log: An expression whose value is told, with no stop; empty to stop.
        function: The only function on this line that is meant; empty for any.
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
    """A function of a module that the program can import, to stop in.

    Attributes:
        module: Its full name.
        function: The function's name there, such as ``load`` or ``Tensor.sum``.
        condition: As of :class:`Breakpoint`, like the next.
        log: What to log.
        most: As of :class:`Breakpoint`.
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
        number: By which it is taken away, and by which stops and values name it.
        breakpoint: What was asked for; of a :class:`Function` the line that was found.
        line: Where the debugger has put it.
        message: What the debugger says where it is not sure.
    """

    number: int
    breakpoint: Breakpoint
    line: int
    message: str = ""


@dataclass(frozen=True)
class Stop:
    """A program, or a child process of its, that has stopped.

    Attributes:
        reason: ``breakpoint``, ``exception``, ``step``, ``pause``, or debugpy's own word for another.
        thread: The debugger's number of the thread.
        frame: The innermost frame.
        child: The process id of a child; None for the program itself.
        breakpoint: The number of the one that was hit; None where none of the session's was.
        exception: Its ``type`` and ``message``; None where it is no exception.
    """

    reason: str
    thread: int
    frame: Frame
    child: int | None = None
    breakpoint: int | None = None
    exception: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Happening:
    """Something that has happened in the program.

    Attributes:
        kind: One of the kinds above, or what :meth:`DebugSession.post` was handed.
        at: When, in seconds since 1970; of a logged value in the program's time.
        child: As of :class:`Stop`.
        stop: Where it has stopped.
        breakpoint: The number of the breakpoint behind a value or a condition.
        text: A value, output, the error of a condition, why it was lost.
        is_error: Whether the expression has raised, and ``text`` is its error.
        dropped: How many values and outputs before this one were let go, since nobody took them in time.
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
    """``source`` spelled so that a mapping's ``local_root`` begins it, also through symbolic links."""
    if not any(source.is_relative_to(mapping.local_root) for mapping in mappings):
        real = source.resolve()
        for mapping in mappings:
            root = mapping.local_root.resolve()
            if real.is_relative_to(root):
                return str(mapping.local_root / real.relative_to(root))
    return str(source)


def exception_filters(types: Sequence[str], filters: Sequence[str]) -> dict[str, Any]:
    """The arguments of ``setExceptionBreakpoints`` for types that stop where they are raised, and for filters."""
    if not types:
        return {"filters": list(filters)}
    path = [{"names": ["Python Exceptions"]}, {"names": list(types)}]
    return {"filters": list(filters), "exceptionOptions": [{"path": path, "breakMode": "always"}]}
