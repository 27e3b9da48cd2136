"""The tools that read a stopped program's frames, and those that run code in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..debugger.frames import Frame
from ..debugger.sessions import Stop
from ..errors import UserError
from . import attach_target, read_tools, tools, variable_page
from .attached_session import AttachedSession
from .state import State
from .tools import Answer, Tool

#: Frames of a stack that one call returns at most.
_MOST_FRAMES = 100
PROCESS = tools.number("The process id of a child process that has stopped. Default: what stopped last.", 1)
FRAME = tools.number("The frame, by its number in the stack: 0 is the innermost.", 0, 100_000, default=0)


def frame_tools(state: State) -> list[Tool]:
    """The tools for frames of a stopped program."""
    return [_stack(state), _variables(state), _source(state), _evaluate(state), _set_variable(state)]


def _at(session: AttachedSession, frame: int, process: int | None) -> tuple[Stop, Frame]:
    """A frame of the current stop.

    Raises:
        UserError: Nothing is stopped, or there is no such frame.
    """
    stop = session.stopped(process)
    found = session.debug.stack(stop, frame, 1)
    if not found:
        raise UserError(f"There is no frame {frame}.", "See stack.")
    return stop, found[0]


def _stack(state: State) -> Tool:
    def stack(session: str, process: int | None = None, start: int = 0, count: int = 20) -> Answer:
        one = state.session(session)
        stop = one.stopped(process)
        found = one.debug.stack(stop, start, count)
        frames = [{"frame": start + at, **frame.as_json()} for at, frame in enumerate(found)]
        for entry, frame in zip(frames, found, strict=True):
            entry["text"] = read_tools.read_line(state, frame.file, frame.line)
        return {"session": session, "stopped": one.stop_json(stop), "frames": frames, "more": len(found) == count}

    return Tool(
        "stack",
        "Read the stack",
        "Read-only. The frames of what has stopped, the innermost first, with their lines.",
        {
            "session": tools.SESSION,
            "process": PROCESS,
            "start": tools.number("How many frames to pass over.", 0, 100_000, default=0),
            "count": tools.number("How many.", 1, _MOST_FRAMES, default=20),
        },
        stack,
        required=("session",),
        reads=True,
    )


def _variables(state: State) -> Tool:
    def variables(
        session: str,
        frame: int = 0,
        path: Sequence[str] = (),
        start: int = 0,
        count: int = 50,
        depth: int = 0,
        characters: int = 300,
        process: int | None = None,
    ) -> Answer:
        one = state.session(session)
        stop, at = _at(one, frame, process)
        found = variable_page.read_variable_page(
            state.secrets, one.debug, stop, at, path, start, count, depth, characters
        )
        return {"session": session, "frame": frame, "function": at.function, **found}

    return Tool(
        "variables",
        "Read variables",
        "Read-only. The variables of a frame, page by page; with `path` what is in one of them, and with `depth` what "
        "is in each. Values are what repr gives, which the debugger asks the program's objects for. Names that look "
        "secret have no value here.",
        {
            "session": tools.SESSION,
            "frame": FRAME,
            "path": tools.texts("Into containers, by the names that this tool gives, such as ['batch', '0']."),
            "start": tools.number("How many to pass over.", 0, 10**7, default=0),
            "count": tools.number("How many, here and in each container.", 1, variable_page.MOST_COUNT, default=50),
            "depth": tools.number("How deep containers are opened.", 0, variable_page.MOST_DEPTH, default=0),
            "characters": tools.number("How much of each value.", 1, variable_page.MOST_CHARACTERS, default=300),
            "process": PROCESS,
        },
        variables,
        required=("session",),
        reads=True,
    )


def _source(state: State) -> Tool:
    def source(
        session: str, frame: int = 0, file: str | None = None, line: int | None = None, lines: int = 40,
        process: int | None = None,
    ) -> Answer:  # fmt: skip
        one = state.session(session)
        one.check()
        mark: int | None = None
        if file is None:
            _stop, at = _at(one, frame, process)
            path, mark = Path(at.file), at.line
        else:
            path = attach_target.find_source(state, one.place, file)
            if not attach_target.is_own(state, one.place, path):
                raise UserError(f"{path} is not part of what is debugged.", "Name a file of the project, or a frame.")
        middle = line if line is not None else mark or 1
        return read_tools.read_source(state, path, middle - lines // 2, middle + (lines - 1) // 2, mark)

    return Tool(
        "source",
        "Read source",
        "Read-only. Lines of source around where a frame stands, or around a line of a Python file of the project.",
        {
            "session": tools.SESSION,
            "frame": FRAME,
            "file": tools.text("A Python file of the project, in place of a frame."),
            "line": tools.number("The line in the middle. Default: where the frame stands.", 1, 10**9),
            "lines": tools.number("How many.", 1, 500, default=40),
            "process": PROCESS,
        },
        source,
        required=("session",),
        reads=True,
    )


def _evaluate(state: State) -> Tool:
    def evaluate(
        session: str,
        expression: str,
        frame: int = 0,
        process: int | None = None,
        characters: int = 2000,
        timeout: float = tools.TIMEOUT,
    ) -> Answer:
        one = state.session(session)
        stop, at = _at(one, frame, process)
        secret = state.secrets.names_secret(expression)
        if secret:
            told = state.secrets.mask_value(secret, "")
            return {"session": session, "expression": expression, "value": told, "left_out": secret}
        text = one.debug.evaluate(stop, expression, at, timeout)
        shown = state.secrets.mask_text(text)
        more = {"length": len(shown)} if len(shown) > characters else {}
        return {"session": session, "expression": expression, "value": shown[:characters], **more}

    return Tool(
        "evaluate",
        "Evaluate an expression",
        "RUNS CODE in the program. The repr of a Python expression's value in a frame, or the error that it raises. "
        "One that does not end within the timeout is interrupted. What names a secret is left out.",
        {
            "session": tools.SESSION,
            "expression": tools.text("A Python expression.", minLength=1, maxLength=20_000),
            "frame": FRAME,
            "process": PROCESS,
            "characters": tools.number("How much of the value.", 1, 100_000, default=2000),
            "timeout": tools.timeout("the value"),
        },
        evaluate,
        required=("session", "expression"),
        destroys=True,
        runs_code=True,
    )


def _set_variable(state: State) -> Tool:
    def set_variable(
        session: str,
        name: str,
        expression: str,
        frame: int = 0,
        process: int | None = None,
        timeout: float = tools.TIMEOUT,
    ) -> Answer:
        one = state.session(session)
        stop, at = _at(one, frame, process)
        text = one.debug.set_variable(stop, name, expression, at, timeout)
        secret = state.secrets.names_secret(name) or state.secrets.names_secret(expression)
        return {
            "session": session,
            "name": name,
            "value": state.secrets.mask_value(secret, text)[: variable_page.MOST_CHARACTERS],
        }

    return Tool(
        "set_variable",
        "Set a variable",
        "RUNS CODE in the program, and changes it: gives a variable, an attribute or an item of a frame another value.",
        {
            "session": tools.SESSION,
            "name": tools.text("What is set, such as rate, config.rate or rows[0].", minLength=1, maxLength=2000),
            "expression": tools.text("A Python expression for its value.", minLength=1, maxLength=20_000),
            "frame": FRAME,
            "process": PROCESS,
            "timeout": tools.timeout("it"),
        },
        set_variable,
        required=("session", "name", "expression"),
        destroys=True,
        runs_code=True,
    )
