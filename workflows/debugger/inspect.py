"""Stop a running program at a line, look at its variables, let it go on: a breakpoint without an editor."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from workflows.debugger.children import ANNOUNCED, STOPPED, ChildSessions
from workflows.debugger.dap import (
    DapClient,
    DapClosed,
    DapError,
    DapEvent,
    DapTimeout,
    DapUnreachable,
    Json,
)
from workflows.debugger.frames import Frame, evaluate, read_locals, read_stack
from workflows.debugger.locations import ALWAYS, Condition, check_line, parse_location, resolve_source
from workflows.errors import UserError
from workflows.models import DebugEndpoint, PathMapping

__all__ = ["Frame", "Inspection", "check_line", "inspect_stop", "parse_location", "resolve_source"]

ATTACH_TIMEOUT = 60.0
"""Seconds for connecting and attaching: a program whose C code holds the GIL was seen to need 30."""

_RELEASE_TIMEOUT = 5.0
_TRIGGER_DONE = "trigger done"  # Our own event, in the same queue as the adapter's.
_ENDINGS = ("terminated", "exited")


class Ended(UserError):
    """The program ended before it reached the line."""


class Lost(UserError):
    """The program closed the connection without a word: it has been killed, or has become another by an exec."""


@dataclass(frozen=True)
class Inspection:
    """What was seen at a stop.

    Attributes:
        stopped: Where the program stood.
        stack: The innermost frame first; its first element is ``stopped``.
        locals: ``repr`` of the frame's variables by name.
        values: ``repr`` of each expression's value, or the text of the error that it raised.
        trigger_result: What the trigger returned once the program had gone on.
        child: The process id of the child process that stopped; None where the program itself did.
        exception: ``type`` and ``message`` of the exception at which it stopped; None where it was a line.
    """

    stopped: Frame
    stack: tuple[Frame, ...]
    locals: Mapping[str, str]
    values: Mapping[str, str]
    trigger_result: Any = field(default=None)
    child: int | None = None
    exception: Mapping[str, str] | None = None

    def as_json(self) -> dict[str, Any]:
        """The part that ``--json`` shows; the trigger's result is for the caller to add."""
        return {
            "stopped": self.stopped.as_json(),
            "stack": [frame.as_json() for frame in self.stack],
            "locals": dict(self.locals),
            "values": dict(self.values),
            **({} if self.child is None else {"child": self.child}),
            **({} if self.exception is None else {"exception": dict(self.exception)}),
        }


def _late(place: str, timeout: float) -> tuple[str, str]:
    return (
        f"{place} was not reached within {timeout:g} s",
        f"Choose a line that runs, or allow more time: --timeout {2 * timeout:g}",
    )


def _ended(place: str, summary: str) -> tuple[str, str]:
    return (
        f"{place} was not reached, the request ended without it: {summary}",
        "Choose a line that this request runs; to reach imports and init: inv deploy.debug --wait",
    )


@dataclass(frozen=True)
class Words:
    """The two lines of the error where a stop does not come.

    Attributes:
        late: It has not come in time: of the place, and the seconds.
        ended: The trigger has ended without it: of the place, and how it has ended.
    """

    late: Callable[[str, float], tuple[str, str]] = _late
    ended: Callable[[str, str], tuple[str, str]] = _ended


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
    words: Words = Words(),
    condition: Condition = ALWAYS,
) -> Inspection:
    """Stop at a line once, read the frame, and let the program go on, whatever happens.

    Args:
        endpoint: Where the program welcomes a debugger, and its path mappings.
        source: The file, an absolute local path.
        line: Counted from 1.
        expressions: Evaluated in the frame, in this order.
        trigger: Makes the program run the line, such as a request; called in a thread once the
            breakpoint is set. None where the program gets there by itself.
        timeout: Seconds, each, to reach the line, to evaluate an expression, and for the trigger to return
            once the program goes on.
        summarize: A few words about the trigger's result, and lines of it, for the error where the line was not
            reached.
        seen: Called with what was seen once the program has been let go on, before the trigger's end is waited for.
        attach_timeout: Seconds for connecting and attaching.
        words: What is said where the line is not reached.
        condition: At which of the times that the line runs.

    Raises:
        UserError: The line was not reached; the condition raises; an editor is attached already; nothing answers, or
            not as a debugger; the program has no such file, or ended. What the trigger raises passes through.
    """
    where = f"{endpoint.host}:{endpoint.port}"
    place = f"{source.name}:{line}"
    path = _as_mapped(source, endpoint.path_mappings)

    def attach(session: DapClient, child: int | None) -> Json:
        """Begin a session with the program or a child of its; the breakpoint."""
        return session.attach(
            path_mappings=[mapping.as_json() for mapping in endpoint.path_mappings],
            breakpoints={path: [condition.breakpoint_at(line)]},
            # A line in a library is as good as any other.
            just_my_code=False,
            sub_process=True,
            sub_process_id=child,
            timeout=attach_timeout,
        )[path][0]

    with (
        as_user_errors(where),
        DapClient.connect(endpoint.host, endpoint.port, attach_timeout) as client,
    ):
        try:
            breakpoint_ = attach(client, None)
            _require_file(breakpoint_, path, endpoint)
            with ChildSessions(client, endpoint, attach, attach_timeout) as children:
                running = Trigger(trigger, client) if trigger else None
                passed = itertools.count()
                stop = wait_for_stop(
                    client,
                    children,
                    lambda stop, event: (
                        _is_hit(stop.client, event, stop.breakpoint_ or breakpoint_)
                        and next(passed) >= condition.counted
                    ),
                    place,
                    running,
                    timeout,
                    summarize,
                    words,
                )
                try:
                    # debugpy stops as well where a condition raises.
                    check = [f"bool({condition.when})"] if condition.when else []
                    found = read_stop(stop.client, stop.thread, [*expressions, *check], timeout)
                finally:
                    _go_on(stop.client, path, stop.thread)
                if check:
                    found = _see_true(found, condition.when, place)
                found = replace(found, child=stop.child)
                seen(found)
                result = running.result(timeout) if running else None
        finally:
            # Also lets go what is paused at this moment, and takes breakpoints away.
            with contextlib.suppress(DapError):
                client.disconnect(terminate=False, timeout=_RELEASE_TIMEOUT)
    return replace(found, trigger_result=result)


def _see_true(found: Inspection, when: str, place: str) -> Inspection:
    """A stop without the condition's own value.

    Raises:
        UserError: The condition has raised.
    """
    values = dict(found.values)
    told = values.pop(f"bool({when})")
    if told != "True":
        raise UserError(f"--when {when} raises at {place}: {told}", "Correct it. The program goes on.")
    return replace(found, values=values)


class Trigger:
    """The trigger at work in a thread, which reports its end among the debugger's events."""

    def __init__(self, function: Callable[[], Any], client: DapClient) -> None:
        self._function = function
        self._client = client
        self._value: Any = None
        self._error: BaseException | None = None
        self._done = threading.Event()
        # A daemon, so that one that never returns does not keep the command from ending.
        threading.Thread(target=self._run, name="inspect-trigger", daemon=True).start()

    def _run(self) -> None:
        try:
            self._value = self._function()
        except BaseException as error:
            self._error = error
        finally:
            self._done.set()
            self._client.post(DapEvent(_TRIGGER_DONE))

    def result(self, timeout: float) -> Any:
        """Wait for the end; raise what the trigger raised."""
        deadline = time.monotonic() + timeout
        # In slices, since on Windows Ctrl-C does not interrupt a wait.
        while not self._done.wait(max(0.0, min(0.5, deadline - time.monotonic()))):
            if time.monotonic() < deadline:
                continue
            raise UserError(
                f"the program went on, but the request did not end within {timeout:g} s: --timeout ended the wait",
                f"Allow more time, such as --timeout {2 * timeout:g}, or look at the program's log.",
            )
        if self._error is not None:
            raise self._error
        return self._value


@dataclass(frozen=True)
class Stop:
    """Where something has stopped: the session, the thread, and for a child its process id and breakpoint."""

    client: DapClient
    thread: int
    child: int | None = None
    breakpoint_: Json | None = None


def wait_for_stop(
    client: DapClient,
    children: ChildSessions | None,
    is_ours: Callable[[Stop, DapEvent], bool],
    place: str,
    running: Trigger | None,
    timeout: float,
    summarize: Callable[[Any], tuple[str, Sequence[str]]],
    words: Words,
) -> Stop:
    """Wait for the stop that ``is_ours`` accepts; others, such as ``breakpoint()``, are let go on."""
    deadline = time.monotonic() + timeout
    names = ("stopped", _TRIGGER_DONE, *_ENDINGS, *((ANNOUNCED, STOPPED) if children is not None else ()))
    while True:
        try:
            event = client.wait_event(names, max(0.0, deadline - time.monotonic()))
        except DapTimeout:
            raise UserError(*words.late(place, timeout)) from None
        if event.name == _TRIGGER_DONE and running is not None:
            summary, lines = summarize(running.result(0.0))
            raise UserError(*words.ended(place, " ".join(summary.split())[:200]), details=lines)
        if event.name in _ENDINGS:
            raise Ended(f"the program ended before it reached {place}", "Look at its log, then start it again.")
        if children is not None and event.name == ANNOUNCED:
            children.follow(event)
            continue
        stop = Stop(client, int(event.body.get("threadId", 0)))
        if children is not None and event.name == STOPPED:
            seen = children.stop_of(event)
            event = seen.event
            stop = Stop(seen.client, int(event.body.get("threadId", 0)), seen.pid, seen.breakpoint_)
        # A child may end at any moment, which ends no more than its session.
        with contextlib.nullcontext() if stop.child is None else contextlib.suppress(DapError):
            if is_ours(stop, event):
                return stop
            stop.client.request("continue", {"threadId": stop.thread})


def _is_hit(client: DapClient, event: DapEvent, breakpoint_: Json) -> bool:
    """True where a ``stopped`` event is about this breakpoint."""
    if event.body.get("reason") != "breakpoint":
        return False
    numbers = event.body.get("hitBreakpointIds")
    if numbers and "id" in breakpoint_:
        return breakpoint_["id"] in numbers
    # Not every version of debugpy says which one; the adapter may have moved it to another line.
    top = read_stack(client, int(event.body.get("threadId", 0)), levels=1)[:1]
    file = _base(str((breakpoint_.get("source") or {}).get("path", "")))
    return [(_base(frame.file), frame.line) for frame in top] == [(file, breakpoint_.get("line"))]


def read_stop(
    client: DapClient,
    thread: int,
    expressions: Sequence[str],
    timeout: float,
    choose: Callable[[Frame], bool] = lambda frame: True,
) -> Inspection:
    """Read the stack, the locals of its first frame that ``choose`` accepts, and the expressions' values in it."""
    frames = read_stack(client, thread)
    if not frames:
        raise DapError("it gave no stack for the stopped thread")
    top = next(filter(choose, frames), frames[0])
    found = read_locals(client, top)
    values = {text: evaluate(client, top, text, timeout) for text in expressions}
    # An expression may have ended the program; what evaluate was told then looks like a value.
    client.request("threads")
    return Inspection(top, tuple(frames), found, values)


def _go_on(client: DapClient, path: str, thread: int) -> None:
    """Take the breakpoint away and let a paused program run, as far as the connection still allows.

    Not for a program that runs: debugpy 1.8.22 never answers its ``continue``, and nothing after it.
    """
    with contextlib.suppress(DapError):
        removing = client.send("setBreakpoints", {"source": {"path": path}, "breakpoints": []})
        # Both are on their way before either is waited for, so that a second Ctrl-C changes nothing.
        going_on = client.send("continue", {"threadId": thread})
        client.wait_response(removing, _RELEASE_TIMEOUT)
        client.wait_response(going_on, _RELEASE_TIMEOUT)


def _as_mapped(source: Path, mappings: Sequence[PathMapping]) -> str:
    """``source`` spelled so that a mapping's ``local_root`` begins it, also through symbolic links."""
    if not any(source.is_relative_to(mapping.local_root) for mapping in mappings):
        real = source.resolve()
        for mapping in mappings:
            root = mapping.local_root.resolve()
            if real.is_relative_to(root):
                return str(mapping.local_root / real.relative_to(root))
    return str(source)


def _require_file(breakpoint_: Json, path: str, endpoint: DebugEndpoint) -> None:
    """Refuse a breakpoint of which the program says that it has no such file."""
    if breakpoint_.get("verified", True) or "does not exist" not in str(breakpoint_.get("message", "")):
        return
    roots = ", ".join(f"{m.local_root} is {m.remote_root}" for m in endpoint.path_mappings) or "none"
    raise UserError(f"the program has no file {path}", f"Check the path mappings: {roots}.")


def _base(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]


@contextlib.contextmanager
def as_user_errors(where: str) -> Iterator[None]:
    """What can go wrong with a debugger, in two lines."""
    again = "Start the program again and look at its log."
    try:
        yield
    except DapUnreachable as error:
        raise UserError(
            f"no debugger can be reached on {where}: {error}",
            "Start the program with debugging first.",
        ) from error
    except DapTimeout as error:
        raise UserError(f"the debugger on {where} does not answer: {error}", again) from error
    except DapClosed as error:
        raise Lost(f"lost the debugger on {where}: {error.reason}", again) from error
    except DapError as error:
        if "already being debugged" in str(error):
            raise UserError(
                f"an editor is already attached to the program on {where}",
                "Disconnect it (Shift+F5 in VS Code) and try again.",
            ) from error
        # The words of debugpy 1.8.22's adapter for a program that is gone.
        if "disconnected unexpectedly" in str(error) or str(error) == "No more messages":
            raise UserError(f"the program behind {where} ended while it was looked at", again) from error
        raise UserError(f"the debugger on {where} refused: {error}", again) from error
