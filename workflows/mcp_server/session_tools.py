"""The tools that begin, control and end debug sessions."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import UserError
from . import attach_target, frame_tools, read_tools, request_tools, start_tools, tools
from .attached_session import AttachedSession
from .runs import DEPLOY
from .state import State
from .tools import Answer, Tool

#: Seconds that debugpy may take to answer, besides the program itself.
_PAUSE_SECONDS = 5.0
#: Seconds for a request that somebody else has just posted to reach a breakpoint of a service.
_IDLE_SECONDS = 1.0
_ONE = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "file": tools.text("The source file, as in the stack, or relative to the project or to the step's code."),
        "line": tools.number("The line, counted from 1.", 1, 10**9),
        "function": tools.text("A function of the file, in place of a line, or of `module`, such as Tensor.sum."),
        "module": tools.text("A module that the program can import, in place of a file; needs `function`."),
        "condition": tools.text("RUNS CODE each time: stop only where this Python expression is true."),
        "hits": tools.number("Stop at the Nth time alone.", 1, 10**9),
        "log": tools.text("RUNS CODE each time: do not stop, tell this expression's value (a logpoint)."),
    },
}
BREAKPOINTS = {"type": "array", "maxItems": 50, "items": _ONE, "description": "Where to stop, or what to log."}
EXCEPTIONS = tools.texts(
    "Also stop where these exceptions are raised, caught or not, such as ValueError; `uncaught`: where one leaves the "
    "program; `raised`: at every one. An empty list: at none."
)
_CODE = ("breakpoints.condition", "breakpoints.log")


def session_tools(state: State) -> list[Tool]:
    """The tools that need a session."""
    return [
        _attach(state),
        _detach(state),
        _set_breakpoints(state),
        _clear_breakpoints(state),
        _resume(state),
        _pause(state),
        _wait(state),
        *frame_tools.frame_tools(state),
        *request_tools.request_tools(state),
    ]


def _report(state: State, name: str, session: AttachedSession, **more: Any) -> Answer:
    """The answer with what has happened in a session; a session that is over is dropped once that was reported."""
    session.flush_logged()
    told: Answer = {"session": name, **session.report_news(), **more}
    if told["state"] == "over" and not tools.is_abandoned():
        state.drop_session(name)
    elif told["state"] == "stopped":
        stopped = told["stopped"]
        told["source"] = read_tools.read_around(state, stopped["file"], stopped["line"])
    return told


def _attach(state: State) -> Tool:
    def attach(
        story: str | None = None,
        run: str | None = None,
        step: str | None = None,
        rank: int | None = None,
        breakpoints: Sequence[Mapping[str, Any]] = (),
        exceptions: Sequence[str] = (),
        all_code: bool = False,
        go: bool = False,
        timeout: float = tools.TIMEOUT,
    ) -> Answer:
        deadline = time.monotonic() + timeout
        state.check_session_limit()
        place = attach_target.find_target(state, story, run, step, rank, deadline)
        if isinstance(place, dict):
            return place
        wanted = [attach_target.parse_breakpoint(state, place, one) for one in breakpoints]
        filters, types = attach_target.split_exceptions(exceptions)
        if place.holds and not (wanted or filters or types or go):
            raise UserError(
                f"{place.what} holds before its first line, and would run on once somebody is attached.",
                "Say where to stop: breakpoints or exceptions; or go=true.",
            )
        session = AttachedSession(state, place, wanted, filters, types, all_code, attach_target.SECONDS)
        session.wait_until(deadline, lambda: session.is_attached)
        if session.refusal is not None:
            raise attach_target.explain_taken(state, place, session.refusal)
        name = state.add_session(session)
        if place.story == DEPLOY and not place.holds:
            # A service runs nothing before a request comes, and that is another call.
            deadline = min(deadline, time.monotonic() + _IDLE_SECONDS)
        session.wait_until(deadline, lambda: session.is_stopped)
        return _report(state, name, session, breakpoints=attach_target.list_breakpoints(session))

    return Tool(
        "attach",
        "Begin a debug session",
        "Begins a session with one process of this project's runs, or with its service, and waits for its first stop "
        "(not in a service that serves: post_request comes next). Changes how the program runs: it stops where you "
        "say, and runs on from a hold. A program that holds at an exception (start with on_error) is stopped there at "
        "once. Only one debugger can be attached at a time. The session stays until detach; the program goes on then.",
        {
            "story": tools.STORY,
            "run": tools.RUN,
            "step": tools.text("The step. Default: the first that holds, or can be attached to."),
            "rank": tools.RANK,
            "breakpoints": BREAKPOINTS,
            "exceptions": EXCEPTIONS,
            "all_code": tools.flag("Step into libraries, too.", False),
            "go": tools.flag("Let a program that holds run on, with nothing to stop it.", False),
            "timeout": tools.timeout("the first stop"),
        },
        attach,
        needs_code=_CODE,
    )


def _detach(state: State) -> Tool:
    def detach(session: str, hold: bool = False) -> Answer:
        one = state.session(session)
        then = "The program goes on: see status."
        if hold:
            one.check()
            if not one.keep_holding():
                raise UserError(f"{one.place.what} does not hold at an exception.", "Leave out hold.")
            then = "It holds at the exception again."
        one.end("the agent has ended it")
        state.drop_session(session)
        return {"session": session, **one.place.as_json(), "state": "over", "then": then}

    return Tool(
        "detach",
        "End a debug session",
        "Ends a session: its breakpoints are taken away, and the program goes on, also where it was stopped. One that "
        "held at an exception ends by it, unless hold=true: then it holds there again, for whoever comes next.",
        {"session": tools.SESSION, "hold": tools.flag("Have it hold at the exception again.", False)},
        detach,
        required=("session",),
    )


def _set_breakpoints(state: State) -> Tool:
    def set_breakpoints(
        session: str, breakpoints: Sequence[Mapping[str, Any]] = (), exceptions: Sequence[str] | None = None
    ) -> Answer:
        one = state.session(session)
        one.check()
        one.debug.add(*[attach_target.parse_breakpoint(state, one.place, wanted) for wanted in breakpoints])
        if exceptions is not None:
            filters, types = attach_target.split_exceptions(exceptions)
            one.debug.set_exceptions(types=types, filters=filters)
        return {"session": session, "breakpoints": attach_target.list_breakpoints(one)}

    return Tool(
        "set_breakpoints",
        "Set breakpoints",
        "Adds breakpoints to those there are, also while the program runs: at a line or function, with a condition or "
        "a number of hits, or as a logpoint. `exceptions` replaces at which exceptions it stops. Answers with all.",
        {"session": tools.SESSION, "breakpoints": BREAKPOINTS, "exceptions": EXCEPTIONS},
        set_breakpoints,
        required=("session",),
        needs_code=_CODE,
    )


def _clear_breakpoints(state: State) -> Tool:
    def clear_breakpoints(session: str, numbers: Sequence[int] | None = None) -> Answer:
        one = state.session(session)
        one.check()
        known = [placed.number for placed in one.debug.breakpoints]
        chosen = known if numbers is None else list(numbers)
        if unknown := [number for number in chosen if number not in known]:
            raise UserError(f"There is no breakpoint {unknown[0]}.", f"Existing ones: {known or 'none'}.")
        one.flush_logged()
        one.debug.remove(*chosen)
        return {"session": session, "breakpoints": attach_target.list_breakpoints(one)}

    return Tool(
        "clear_breakpoints",
        "Clear breakpoints",
        "Takes breakpoints away, by their numbers; without numbers all of them. Answers with those that are left.",
        {
            "session": tools.SESSION,
            "numbers": {"type": "array", "items": {"type": "integer"}, "description": "Their numbers."},
        },
        clear_breakpoints,
        required=("session",),
    )


def _resume(state: State) -> Tool:
    def resume(
        session: str, how: str = "continue", process: int | None = None, timeout: float = tools.TIMEOUT
    ) -> Answer:
        deadline = time.monotonic() + timeout
        one = state.session(session)
        one.resume(how, process)
        one.wait_until(deadline, lambda: one.is_stopped)
        return _report(state, session, one)

    return Tool(
        "resume",
        "Continue or step",
        "Lets the stopped program run: continue, or step over, into or out, and waits for the next stop.",
        {
            "session": tools.SESSION,
            "how": tools.text("How far.", enum=["continue", "over", "into", "out"], default="continue"),
            "process": frame_tools.PROCESS,
            "timeout": tools.timeout("the next stop"),
        },
        resume,
        required=("session",),
    )


def _pause(state: State) -> Tool:
    def pause(session: str, process: int | None = None, timeout: float = _PAUSE_SECONDS) -> Answer:
        deadline = time.monotonic() + timeout
        one = state.session(session)
        one.check()
        if not one.is_stopped:
            one.debug.pause(process)
            one.wait_until(deadline, lambda: one.is_stopped)
        return _report(state, session, one)

    return Tool(
        "pause",
        "Pause",
        "Stops the program wherever it is; the stop comes with its next line of Python.",
        {"session": tools.SESSION, "process": frame_tools.PROCESS, "timeout": tools.timeout("the stop")},
        pause,
        required=("session",),
    )


def _wait(state: State) -> Tool:
    def wait(
        session: str | None = None,
        start: str | None = None,
        run: str | None = None,
        request: str | None = None,
        timeout: float = tools.TIMEOUT,
    ) -> Answer:
        deadline = time.monotonic() + timeout
        named = {"session": session, "start": start, "run": run, "request": request}
        if len([one for one in named.values() if one is not None]) != 1:
            raise UserError("Name one thing to wait for.", f"One of: {', '.join(named)}.")
        if start is not None:
            return start_tools.start_result(state, start, deadline)
        if run is not None:
            from . import runs

            return start_tools.wait_until_held(state, runs.find_run(state, run), deadline)
        if request is not None:
            return request_tools.request_result(state, request, deadline)
        assert session is not None
        one = state.session(session)
        one.wait_until(deadline, lambda: one.is_stopped)
        return _report(state, session, one)

    return Tool(
        "wait",
        "Wait for what happens",
        "Read-only. Waits for a session to stop or end, for a start or a run to hold or end, or for a request's "
        "answer, and tells what has happened since the last call: stops, outputs, values of logpoints. Name one.",
        {
            "session": tools.SESSION,
            "start": tools.text("What start has named, such as a1."),
            "run": tools.text("A run, by number or id: until a step of it holds, or it is over."),
            "request": tools.text("What post_request has named, such as r1."),
            "timeout": tools.timeout("it"),
        },
        wait,
        reads=True,
    )
