"""Look at an exception: one at which a program holds already, or the first that a request raises."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workflows.debugger.dap import DapClient, DapClosed, DapError, DapEvent
from workflows.debugger.frames import Frame
from workflows.debugger.inspect import (
    _RELEASE_TIMEOUT,
    ATTACH_TIMEOUT,
    Inspection,
    Stop,
    Trigger,
    Words,
    as_user_errors,
    read_stop,
    wait_for_stop,
)
from workflows.errors import UserError
from workflows.models import DebugEndpoint, PathMapping

__all__ = ["Hold", "inspect_hold", "inspect_raised"]

#: Exceptions of one group that are looked through.
_MOST_PARTS = 1000
#: What libraries are installed in; also where an environment lies in the project.
_PACKAGES = {"site-packages", "dist-packages"}
#: Evaluated where a program holds at an exception: it is to hold again once the debugger has left.
_KEEP = "__import__('sys').modules['azureml_debuggee.postmortem'].hold_again()"


@dataclass(frozen=True)
class Hold:
    """What was seen of a program that holds at an exception.

    Attributes:
        seen: What was seen in the frame that was looked for, else in the innermost of the person's own code.
        is_part: Whether the place that was looked for is in the stack; True where none was.
        holds: Whether it still holds.
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
) -> Hold:
    """Look at the exception at which a program holds, and let it end or have it hold on.

    Args:
        endpoint: Where the program welcomes a debugger, and its path mappings.
        place: An absolute local path and a line of it, whose frame is read. Where the stack has none of these, the
            program holds on.
        expressions: Evaluated in the frame, in this order.
        timeout: Seconds, each, for the stop to come and to evaluate an expression.
        release: Whether it is let end.

    Raises:
        UserError: As :func:`~workflows.debugger.inspect.inspect_stop`.
    """
    where = f"{endpoint.host}:{endpoint.port}"
    wanted = None if place is None else (place[0].resolve(), place[1])

    def is_meant(frame: Frame) -> bool:
        return wanted is None or (frame.line == wanted[1] and Path(frame.file).resolve() == wanted[0])

    with as_user_errors(where), DapClient.connect(endpoint.host, endpoint.port, ATTACH_TIMEOUT) as client:
        found: Inspection | None = None
        is_part = holds = False
        try:
            client.attach(
                path_mappings=[mapping.as_json() for mapping in endpoint.path_mappings],
                just_my_code=False,
                sub_process=False,
                timeout=ATTACH_TIMEOUT,
            )
            # A group of exceptions is followed by those in it, each with its own frames.
            parts = 0
            for number in range(_MOST_PARTS):
                stop = _wait_for_exception(client, None, timeout, lambda value: (str(value), ()), Words())
                if number == 0:
                    # Before anything else, so that a look that is broken off uses nothing up.
                    parts = _hold_again(client, stop)
                    holds = parts > 0
                choose = is_meant if wanted is not None else _own(endpoint.path_mappings)
                seen = _read(client, stop, expressions, timeout, choose)
                found = found or seen
                if any(map(is_meant, seen.stack)):
                    found, is_part = seen, True
                    break
                if number + 1 == parts:
                    break
                if number == 0 and not (found.exception or {}).get("type", "").endswith("ExceptionGroup"):
                    break
                try:
                    client.request("continue", {"threadId": stop.thread})
                except DapError:
                    break
            assert found is not None
            if holds and is_part and release:
                holds = not _hold_again(client, stop, "False")
        except (UserError, DapClosed):
            if found is None:
                raise
        finally:
            # Lets the program go on, to its end or to its next hold.
            with contextlib.suppress(DapError):
                client.disconnect(terminate=False, timeout=_RELEASE_TIMEOUT)
    return Hold(found, is_part, holds)


def inspect_raised(
    endpoint: DebugEndpoint,
    expressions: Sequence[str],
    *,
    trigger: Callable[[], Any],
    timeout: float,
    summarize: Callable[[Any], tuple[str, Sequence[str]]],
    seen: Callable[[Inspection], None],
    words: Words,
    by_debugger: bool,
) -> Inspection:
    """Stop at the exception that a request raises, read its frames, and let the program go on.

    Args:
        endpoint: Where the program welcomes a debugger, and its path mappings.
        expressions: Evaluated in the innermost frame of the person's own code, in this order.
        trigger: Posts the request; called in a thread once the debugger is there.
        timeout: As of :func:`~workflows.debugger.inspect.inspect_stop`, like the next two.
        summarize: A few words about the answer.
        seen: Called with what was seen before the answer is waited for.
        words: What is said where nothing is raised.
        by_debugger: Whether the debugger has to find the exception, which it does where one leaves the person's own
            code; else the debuggee stops at what the server answers for.

    Raises:
        UserError: As :func:`~workflows.debugger.inspect.inspect_stop`.
    """
    where = f"{endpoint.host}:{endpoint.port}"
    filters = ("userUnhandled", "uncaught") if by_debugger else ()
    with as_user_errors(where), DapClient.connect(endpoint.host, endpoint.port, ATTACH_TIMEOUT) as client:
        try:
            client.attach(
                path_mappings=[mapping.as_json() for mapping in endpoint.path_mappings],
                exception_filters=filters,
                # What is own code is asked only where the debugger looks.
                just_my_code=by_debugger,
                sub_process=False,
                timeout=ATTACH_TIMEOUT,
            )
            running = Trigger(trigger, client)
            stop = _wait_for_exception(client, running, timeout, summarize, words)
            try:
                found = _read(client, stop, expressions, timeout, _own(endpoint.path_mappings))
            finally:
                with contextlib.suppress(DapError):
                    # It may be raised again on its way out.
                    removing = client.send("setExceptionBreakpoints", {"filters": []})
                    going_on = client.send("continue", {"threadId": stop.thread})
                    client.wait_response(removing, _RELEASE_TIMEOUT)
                    client.wait_response(going_on, _RELEASE_TIMEOUT)
            seen(found)
            result = running.result(timeout)
        finally:
            with contextlib.suppress(DapError):
                client.disconnect(terminate=False, timeout=_RELEASE_TIMEOUT)
    return replace(found, trigger_result=result)


def _wait_for_exception(
    client: DapClient,
    running: Trigger | None,
    timeout: float,
    summarize: Callable[[Any], tuple[str, Sequence[str]]],
    words: Words,
) -> Stop:
    def is_exception(stop: Stop, event: DapEvent) -> bool:
        return event.body.get("reason") == "exception"

    return wait_for_stop(client, None, is_exception, "the exception", running, timeout, summarize, words)


def _read(
    client: DapClient, stop: Stop, expressions: Sequence[str], timeout: float, choose: Callable[[Frame], bool]
) -> Inspection:
    """What a stop at an exception shows."""
    info = client.request("exceptionInfo", {"threadId": stop.thread})
    # Behind the name pydevd may say where the program really is.
    kind = str(info.get("exceptionId") or "").split(" ")[0]
    exception = {"type": kind, "message": str(info.get("description") or "")}
    return replace(read_stop(client, stop.thread, expressions, timeout, choose=choose), exception=exception)


def _own(mappings: Sequence[PathMapping]) -> Callable[[Frame], bool]:
    """Whether a frame is of the person's own code."""
    roots = [root for mapping in mappings for root in (mapping.local_root, mapping.local_root.resolve())]

    def is_own(frame: Frame) -> bool:
        file = Path(frame.file)
        return any(
            one.is_relative_to(root) and not _PACKAGES.intersection(one.relative_to(root).parts)
            for root in roots
            for one in (file, file.resolve())
        )

    return is_own


def _hold_again(client: DapClient, stop: Stop, wanted: str = "") -> int:
    """Have the program hold once more after this, or not.

    Returns:
        How many exceptions this hold shows; 0 where it was not understood.
    """
    expression = _KEEP.replace("()", f"({wanted})")
    try:
        frames = client.request("stackTrace", {"threadId": stop.thread, "startFrame": 0, "levels": 1})
        arguments = {"expression": expression, "frameId": frames["stackFrames"][0]["id"], "context": "watch"}
        text = str(client.request("evaluate", arguments).get("result"))
    except (DapError, LookupError):
        return 0
    # A program that was begun by an older version of this one does not know it.
    return int(text) if text.isdigit() else 0
