"""Stopping a running program at a line, reading its variables and letting it continue, without an editor."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from workflows.debugger.frames import Frame, Variable
from workflows.debugger.locations import ALWAYS, Condition, check_line, parse_location, resolve_source
from workflows.debugger.sessions import (
    ATTACH_TIMEOUT,
    Breakpoint,
    DebugSession,
    Ended,
    Happening,
    Lost,
    Stop,
    as_mapped,
    model,
)
from workflows.errors import UserError
from workflows.models import DebugEndpoint

__all__ = ["Ended", "Frame", "Inspection", "Lost", "check_line", "inspect_stop", "parse_location", "resolve_source"]

TRIGGER_DONE = "trigger done"
"""The kind of our own happening when the trigger has ended."""


@dataclass(frozen=True)
class Inspection:
    """What was read at a stop.

    Attributes:
        stopped: Where the program stood.
        stack: The innermost frame first; its first element is ``stopped``.
        locals: ``repr`` of the frame's variables by name.
        values: ``repr`` of each expression's value, or the text of the error that it raised.
        trigger_result: What the trigger returned once the program had gone on.
        child: The process id of the child process that stopped; None where the program itself did.
        exception: ``type`` and ``message`` of the exception at which it stopped; None where it was a line.
        frames: Frames and their variables, if those of more than one were requested.
        variables: The variables with their children, if requested.
        changed: The new values of variables that were set, by name.
        steps: The lines stepped to, each with its place and the variables that it has ``changed``.
    """

    stopped: Frame
    stack: tuple[Frame, ...]
    locals: Mapping[str, str]
    values: Mapping[str, str]
    trigger_result: Any = field(default=None)
    child: int | None = None
    exception: Mapping[str, str] | None = None
    frames: tuple[tuple[Frame, Mapping[str, str]], ...] = ()
    variables: tuple[Variable, ...] = ()
    changed: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[Mapping[str, Any], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The part that ``--json`` shows; the caller adds the trigger's result."""
        return {
            "stopped": self.stopped.as_json(),
            "stack": [frame.as_json() for frame in self.stack],
            "locals": dict(self.locals),
            "values": dict(self.values),
            **({} if self.child is None else {"child": self.child}),
            **({} if self.exception is None else {"exception": dict(self.exception)}),
            **self._more(),
        }

    def _more(self) -> dict[str, Any]:
        """The parts that are there only if they were requested."""
        frames = [{**frame.as_json(), "locals": dict(found)} for frame, found in self.frames]
        more = {
            "frame_locals": frames,
            "opened": [one.as_json() for one in self.variables],
            "set": dict(self.changed),
            "stepped": [dict(step) for step in self.steps],
        }
        return {name: value for name, value in more.items() if value}


def _late_error(place: str, timeout: float) -> tuple[str, str]:
    return (
        f"{place} was not reached within {timeout:g} s",
        f"Choose a line that runs, or allow more time: --timeout {2 * timeout:g}",
    )


def _ended_error(place: str, summary: str) -> tuple[str, str]:
    return (
        f"{place} was not reached, the request ended without it: {summary}",
        "Choose a line that this request runs; to reach imports and init: inv deploy.debug --wait",
    )


@dataclass(frozen=True)
class NotReached:
    """The two lines of the error if a stop does not come.

    Attributes:
        late: Returns them for a place and a timeout in seconds, if the stop has not come in time.
        ended: Returns them for a place and the trigger's summary, if the trigger has ended without a stop.
    """

    late: Callable[[str, float], tuple[str, str]] = _late_error
    ended: Callable[[str, str], tuple[str, str]] = _ended_error


def inspect_stop(
    endpoint: DebugEndpoint,
    source: Path,
    line: int,
    expressions: Sequence[str],
    *,
    trigger: Callable[[], Any] | None,
    timeout: float,
    summarize: Callable[[Any], tuple[str, Sequence[str]]] = lambda value: (str(value), ()),
    seen: Callable[[Inspection], None] = lambda found: None,
    attach_timeout: float = ATTACH_TIMEOUT,
    messages: NotReached = NotReached(),
    condition: Condition = ALWAYS,
) -> Inspection:
    """Stop at a line once, read the frame, and always let the program continue.

    Args:
        endpoint: The program's address for debuggers, and its path mappings.
        source: The file, an absolute local path.
        line: Counted from 1.
        expressions: Evaluated in the frame, in this order.
        trigger: Makes the program run the line, such as a request; called in a thread once the
            breakpoint is set. None if the program gets there by itself.
        timeout: Seconds, each, to reach the line, to evaluate an expression, and for the trigger to return
            once the program continues.
        summarize: Returns a summary of the trigger's result, and lines of it, for the error if the line was not
            reached.
        seen: Called with what was read once the program continues, before the wait for the trigger's end.
        attach_timeout: Seconds for connecting and attaching.
        messages: The error where the line is not reached.
        condition: When the breakpoint stops.

    Raises:
        UserError: The line was not reached; the condition raises; an editor is attached already; nothing answers, or
            not as a debugger; the program has no such file, or ended. What the trigger raises passes through.
    """
    wanted = Breakpoint(as_mapped(source, endpoint.path_mappings), line, condition)
    with DebugSession(endpoint, breakpoints=[wanted], timeout=attach_timeout) as session:
        trigger_run = Trigger(trigger, session) if trigger else None
        place = f"{source.name}:{line}"
        stop = wait_for_stop(
            session, lambda stop: stop.breakpoint is not None, place, trigger_run, timeout, summarize, messages
        )
        try:
            found = read_stop(session, stop, expressions, timeout)
        finally:
            session.release()
        seen(found)
        result = trigger_run.result(timeout) if trigger_run else None
    return replace(found, trigger_result=result)


class Trigger:
    """Runs the trigger in a thread and posts a happening when it ends."""

    def __init__(self, function: Callable[[], Any], session: DebugSession) -> None:
        self._function = function
        self._session = session
        self._value: Any = None
        self._error: BaseException | None = None
        self._done = threading.Event()
        # A daemon, so that a trigger that never returns does not keep the command from ending.
        threading.Thread(target=self._run, name="inspect-trigger", daemon=True).start()

    def _run(self) -> None:
        try:
            self._value = self._function()
        except BaseException as error:
            self._error = error
        finally:
            self._done.set()
            self._session.post(Happening(TRIGGER_DONE))

    def result(self, timeout: float) -> Any:
        """Wait for the trigger's result; raises what the trigger raised."""
        deadline = time.monotonic() + timeout
        # In slices, since on Windows Ctrl-C does not interrupt a wait.
        while not self._done.wait(max(0.0, min(0.5, deadline - time.monotonic()))):
            if time.monotonic() < deadline:
                continue
            raise UserError(
                f"The program went on, but the request did not end within {timeout:g} s: --timeout ended the wait",
                f"Allow more time, such as --timeout {2 * timeout:g}, or look at the program's log.",
            )
        if self._error is not None:
            raise self._error
        return self._value


def wait_for_stop(
    session: DebugSession,
    is_ours: Callable[[Stop], bool],
    place: str,
    trigger_run: Trigger | None,
    timeout: float,
    summarize: Callable[[Any], tuple[str, Sequence[str]]],
    messages: NotReached,
) -> Stop:
    """Wait for a stop that ``is_ours`` accepts; the program continues from others, such as ``breakpoint()``."""
    deadline = time.monotonic() + timeout
    while True:
        happening = session.wait(max(0.0, deadline - time.monotonic()))
        if happening is None:
            raise UserError(*messages.late(place, timeout))
        if happening.kind == TRIGGER_DONE and trigger_run is not None:
            summary, lines = summarize(trigger_run.result(0.0))
            raise UserError(*messages.ended(place, " ".join(summary.split())[:200]), details=lines)
        check_still_reachable(session, happening, place)
        if happening.stop is not None:
            if is_ours(happening.stop):
                return happening.stop
            # A child may end at any moment, which ends no more than its session.
            with contextlib.nullcontext() if happening.child is None else contextlib.suppress(UserError):
                session.go_on(happening.stop)


def check_still_reachable(session: DebugSession, happening: Happening, place: str) -> None:
    """Check that a program can still reach a place.

    Raises:
        Ended: It has ended.
        Lost: Its connection was lost.
        UserError: The breakpoint's condition has raised.
    """
    if happening.kind == model.ENDED:
        raise Ended(f"The program ended before it reached {place}", "Look at its log, then start it again.")
    if happening.kind == model.LOST:
        again = "Start the program again and look at its log."
        raise Lost(f"Lost the debugger on {session.where}: {happening.text}", again)
    if happening.kind == model.CONDITION:
        raise UserError(happening.text, "Correct it. The program goes on.")


def read_stop(
    session: DebugSession,
    stop: Stop,
    expressions: Sequence[str],
    timeout: float,
    choose: Callable[[Frame], bool] = lambda frame: True,
) -> Inspection:
    """Read the stack, the locals of its first frame that ``choose`` accepts, and the expressions' values in it."""
    frames = session.stack(stop) or [stop.frame]
    top = next(filter(choose, frames), frames[0])
    found = session.locals(stop, top)
    values = {text: session.evaluate(stop, text, top, timeout) for text in expressions}
    # An expression may have ended the program; the debugger's error then looks like a value.
    session.check_alive(stop)
    return Inspection(top, tuple(frames), found, values, child=stop.child, exception=stop.exception)
