"""Inspecting an exception: the one at which a program holds, or the first that a request raises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workflows.debugger.frames import Frame
from workflows.debugger.inspect_stop import Inspection, NotReached, Trigger, read_stop, wait_for_stop
from workflows.debugger.sessions import DebugSession, Stop
from workflows.errors import UserError
from workflows.models import DebugEndpoint, PathMapping

__all__ = ["HoldInspection", "inspect_hold", "inspect_raised"]

#: Exceptions of one group that are read at most.
_MOST_PARTS = 1000
#: Folders of installed libraries, also in an environment inside the project.
_PACKAGES = {"site-packages", "dist-packages"}
#: Evaluated in a program that holds at an exception, so that it holds again once the debugger has left.
_KEEP = "__import__('sys').modules['azureml_debuggee.postmortem'].hold_again()"


@dataclass(frozen=True)
class HoldInspection:
    """What was read of a program that holds at an exception.

    Attributes:
        seen: What was read in the requested frame, else in the innermost of the user's code.
        is_part: Whether the requested place is in the stack; True if none was requested.
        holds: Whether the program still holds.
    """

    seen: Inspection
    is_part: bool
    holds: bool


def inspect_hold(
    endpoint: DebugEndpoint,
    place: tuple[Path, int] | None,
    expressions: Sequence[str],
    timeout: float,
    *,
    release: bool,
) -> HoldInspection:
    """Read the exception at which a program holds, and let it end or keep holding.

    Args:
        endpoint: The program's address for debuggers, and its path mappings.
        place: An absolute local path and a line, whose frame is read. If the stack has no such frame, the program
            keeps holding.
        expressions: Evaluated in the frame, in this order.
        timeout: Seconds, each, for the stop to come and to evaluate an expression.
        release: Whether the program is to end.

    Raises:
        UserError: As :func:`~workflows.debugger.inspect_stop.inspect_stop`.
    """
    wanted = None if place is None else (place[0].resolve(), place[1])

    def is_meant(frame: Frame) -> bool:
        return wanted is None or (frame.line == wanted[1] and Path(frame.file).resolve() == wanted[0])

    found: Inspection | None = None
    is_part = holds = False
    try:
        with DebugSession(endpoint, children=False) as session:
            # The exceptions of a group follow it, each with its own frames.
            parts = 0
            for number in range(_MOST_PARTS):
                stop = _wait_for_exception(session, None, timeout, lambda value: (str(value), ()), NotReached())
                if number == 0:
                    # First of all, so that the program holds again even if this inspection is interrupted.
                    parts = _hold_again(session, stop)
                    holds = parts > 0
                choose = is_meant if wanted is not None else is_own_code(endpoint.path_mappings)
                seen = read_stop(session, stop, expressions, timeout, choose)
                found = found or seen
                if any(map(is_meant, seen.stack)):
                    found, is_part = seen, True
                    break
                if number + 1 == parts:
                    break
                if number == 0 and not (found.exception or {}).get("type", "").endswith("ExceptionGroup"):
                    break
                session.go_on(stop)
            if holds and is_part and release:
                holds = not _hold_again(session, stop, "False")
    except UserError:
        if found is None:
            raise
    assert found is not None
    return HoldInspection(found, is_part, holds)


def inspect_raised(
    endpoint: DebugEndpoint,
    expressions: Sequence[str],
    *,
    trigger: Callable[[], Any],
    timeout: float,
    summarize: Callable[[Any], tuple[str, Sequence[str]]],
    seen: Callable[[Inspection], None],
    messages: NotReached,
    by_debugger: bool,
) -> Inspection:
    """Stop at the exception that a request raises, read its frames, and let the program continue.

    Args:
        endpoint: The program's address for debuggers, and its path mappings.
        expressions: Evaluated in the innermost frame of the user's code, in this order.
        trigger: Posts the request; called in a thread once the debugger is attached.
        timeout: As of :func:`~workflows.debugger.inspect_stop.inspect_stop`, like the next two.
        summarize: Returns a summary of the answer.
        seen: Called with what was read, before the wait for the answer.
        messages: The error where nothing is raised.
        by_debugger: Whether the debugger detects the exception, where it leaves the user's code; else the debuggee
            stops at exceptions that the server handles.

    Raises:
        UserError: As :func:`~workflows.debugger.inspect_stop.inspect_stop`.
    """
    filters = ("userUnhandled", "uncaught") if by_debugger else ()
    # Own code matters only if the debugger detects exceptions.
    with DebugSession(endpoint, filters=filters, just_my_code=by_debugger, children=False) as session:
        running = Trigger(trigger, session)
        stop = _wait_for_exception(session, running, timeout, summarize, messages)
        try:
            found = read_stop(session, stop, expressions, timeout, is_own_code(endpoint.path_mappings))
        finally:
            # It may be raised again on its way out.
            session.release()
        seen(found)
        result = running.result(timeout)
    return replace(found, trigger_result=result)


def _wait_for_exception(
    session: DebugSession,
    running: Trigger | None,
    timeout: float,
    summarize: Callable[[Any], tuple[str, Sequence[str]]],
    messages: NotReached,
) -> Stop:
    return wait_for_stop(
        session, lambda stop: stop.exception is not None, "the exception", running, timeout, summarize, messages
    )


def is_own_code(mappings: Sequence[PathMapping]) -> Callable[[Frame], bool]:
    """A predicate: whether a frame is of the user's code."""
    roots = [root for mapping in mappings for root in (mapping.local_root, mapping.local_root.resolve())]

    def is_own(frame: Frame) -> bool:
        file = Path(frame.file)
        return any(
            one.is_relative_to(root) and not _PACKAGES.intersection(one.relative_to(root).parts)
            for root in roots
            for one in (file, file.resolve())
        )

    return is_own


def _hold_again(session: DebugSession, stop: Stop, wanted: str = "") -> int:
    """Have the program hold again after this session, or not.

    Returns:
        How many exceptions this hold shows; 0 if the program does not support it.
    """
    try:
        text = session.evaluate(stop, _KEEP.replace("()", f"({wanted})"))
    except UserError:
        return 0
    # A program that was started by an older version does not support it.
    return int(text) if text.isdigit() else 0
