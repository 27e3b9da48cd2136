"""Inspecting a snapshot: the exception, the stack, a frame's variables, values of expressions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import UserError
from .expression import Evaluator, parse
from .model import LEFT_OUT, Linked, Raised, Snapshot, innermost_own
from .sources import Sources

#: Depth of nested exceptions that are shown.
_MOST_INNER = 20


@dataclass(frozen=True)
class Level:
    """A frame in the order in which frames are numbered.

    Attributes:
        place: Its place in the snapshot.
        stack: Its stack, the innermost frame first.
        link: How the exception of that stack relates to the one that ended the program; None for that one itself.
    """

    place: int
    stack: Sequence[int] = field(repr=False)
    link: Linked | None = None


def levels(snapshot: Snapshot) -> list[Level]:
    """The frames in order: those of the exception that ended the program, then those of the others."""
    stack = snapshot.stack()
    found = [Level(place, stack) for place in stack]
    for link in snapshot.chain():
        inner = snapshot.stack(snapshot.exceptions[link.place])
        found += [Level(place, inner, link) for place in inner]
    return found


def choose_frame(snapshot: Snapshot, wanted: int | None) -> int | None:
    """The number of the frame to show: by default the innermost of the user's code; None if there are no frames.

    Raises:
        UserError: There is no frame with the requested number.
    """
    known = levels(snapshot)
    if wanted is None:
        stack = snapshot.stack() or [level.place for level in known]
        return innermost_own(snapshot, stack) if stack else None
    if wanted >= len(known):
        has = f"frames 0 to {len(known) - 1}" if known else "no frames"
        raise UserError(f"There is no frame {wanted}: the snapshot has {has}.", "Choose one of these: --frame N")
    return wanted


def inspect_snapshot(
    snapshot: Snapshot, sources: Sources, wanted: int | None, expressions: Sequence[str]
) -> dict[str, Any]:
    """The object for ``--json``.

    Args:
        snapshot: The snapshot.
        sources: Finds its files on this machine.
        wanted: The frame's number; None for the innermost of the user's code.
        expressions: Evaluated in that frame, in this order.

    Raises:
        BadValue: An expression has more than names, attributes, items and slices.
        UserError: There is no such frame.
    """
    for expression in expressions:
        parse(expression)
    number = choose_frame(snapshot, wanted)
    found: dict[str, Any] = {
        "snapshot": str(snapshot.path),
        "written": snapshot.written,
        "where": dict(snapshot.where),
        "process": snapshot.process or None,
        "pid": snapshot.program.get("pid"),
        "thread": snapshot.thread,
        "exception": exception_json(snapshot, snapshot.raised, sources),
        "frame": number,
        "stopped": None,
        "stack": [_place(snapshot, place, sources) for place in snapshot.stack()],
        "locals": {},
        "values": {},
        "left_out": list(snapshot.left_out),
    }
    if number is None:
        found["values"] = dict.fromkeys(expressions, "not recorded: the snapshot has no frame")
        return found
    level = levels(snapshot)[number]
    frame = snapshot.frames[level.place]
    evaluator = Evaluator(snapshot, frame, level.stack)
    found["stopped"] = _place(snapshot, level.place, sources)
    for name, place in frame.locals:
        value = snapshot.value(place)
        found["locals"][name] = value.text if value is not None else LEFT_OUT
    found["values"] = {expression: evaluator.text(expression) for expression in expressions}
    return found


def _place(snapshot: Snapshot, place: int, sources: Sources) -> dict[str, Any]:
    frame = snapshot.frames[place]
    return {
        "file": sources.path(frame),
        "line": frame.line,
        "function": frame.function,
        "own": frame.own,
        "same_source": sources.is_same(frame),
    }


def exception_json(snapshot: Snapshot, raised: Raised, sources: Sources) -> dict[str, Any]:
    """The JSON object of an exception with those that led to it or are in its group, each once."""
    seen: set[int] = set()

    def exception_object(one: Raised, depth: int) -> dict[str, Any]:
        seen.add(id(one))
        found: dict[str, Any] = {"type": one.type, "module": one.module, "text": one.text, "notes": list(one.notes)}
        if depth:
            found["stack"] = [_place(snapshot, place, sources) for place in snapshot.stack(one)]
        linked = {"cause": one.cause, "context": None if one.suppressed else one.context}
        for name, place in linked.items():
            inner = None if place is None else snapshot.exceptions[place]
            again = inner is None or id(inner) in seen or depth >= _MOST_INNER
            found[name] = None if again or inner is None else exception_object(inner, depth + 1)
        group = [snapshot.exceptions[place] for place in one.group]
        found["group"] = [
            exception_object(inner, depth + 1) for inner in group if id(inner) not in seen and depth < _MOST_INNER
        ]
        return found

    return exception_object(raised, 0)


def summary(snapshot: Snapshot, sources: Sources) -> dict[str, Any]:
    """The JSON object for one line of ``--list``."""
    stack = snapshot.stack()
    place = stack[innermost_own(snapshot, stack)] if stack else None
    return {
        "snapshot": str(snapshot.path),
        "written": snapshot.written,
        "step": snapshot.step or None,
        "rank": snapshot.rank,
        "process": snapshot.process or None,
        "pid": snapshot.program.get("pid"),
        "exception": snapshot.raised.line,
        "stopped": None if place is None else _place(snapshot, place, sources),
    }
