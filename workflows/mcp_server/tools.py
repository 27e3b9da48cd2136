"""What a tool is: its name, what is said of it, its arguments, and who answers."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from ..errors import UserError

#: Seconds that a call waits, unless it says otherwise, and at most: clients give up after a minute.
TIMEOUT, MOST_SECONDS = 20.0, 50.0

Answer = dict[str, Any]

#: Set where the client has given up the call that is being answered.
_GIVEN_UP: ContextVar[threading.Event | None] = ContextVar("given up", default=None)


@contextlib.contextmanager
def abandonable_call() -> Iterator[threading.Event]:
    """A call that may be given up: then the event is to be set."""
    event = threading.Event()
    token = _GIVEN_UP.set(event)
    try:
        yield event
    finally:
        _GIVEN_UP.reset(token)


def is_abandoned() -> bool:
    """Whether nobody gets the answer to this call any more: what it would tell is for the next one."""
    event = _GIVEN_UP.get()
    return event is not None and event.is_set()


@dataclass(frozen=True)
class Tool:
    """One tool.

    Attributes:
        name: What it is called by.
        title: Its name for people.
        description: What it does, for the agent; one that runs code of the person's says so.
        properties: Its arguments, as JSON Schema has them.
        required: Those that have to be given.
        call: Answers, given the arguments.
        reads: Whether it changes nothing and runs none of the person's code.
        destroys: Whether it may end or change what is there.
        runs_code: Whether it runs, begins or changes code of the person's; then it is not there with ``--read-only``.
        needs_code: Arguments that are not there with ``--read-only``, since they are code.
    """

    name: str
    title: str
    description: str
    properties: Mapping[str, Any]
    call: Callable[..., Answer]
    required: tuple[str, ...] = ()
    reads: bool = False
    destroys: bool = False
    runs_code: bool = False
    needs_code: tuple[str, ...] = ()

    def schema(self, read_only: bool) -> dict[str, Any]:
        """Its arguments as JSON Schema."""
        properties = dict(self.properties)
        for name in self.needs_code if read_only else ():
            _take_out(properties, name)
        return {
            "type": "object",
            "properties": properties,
            "required": list(self.required),
            "additionalProperties": False,
        }


def _take_out(properties: dict[str, Any], name: str) -> None:
    """Take an argument out; ``a.b`` is the property ``b`` of the objects in the array ``a``."""
    outer, _dot, inner = name.partition(".")
    if not inner:
        properties.pop(outer, None)
        return
    entry = dict(properties[outer])
    items = dict(entry["items"])
    items["properties"] = {key: value for key, value in items["properties"].items() if key != inner}
    entry["items"] = items
    properties[outer] = entry


def check_arguments(tool: Tool, arguments: Mapping[str, Any], read_only: bool) -> dict[str, Any]:
    """The arguments of a call.

    Raises:
        UserError: They are not what the tool takes.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    error = best_match(Draft202012Validator(tool.schema(read_only)).iter_errors(dict(arguments)))
    if error is not None:
        where = ".".join(str(part) for part in error.absolute_path)
        said = " ".join(str(error.message).split())[:300]
        known = ", ".join(tool.schema(read_only)["properties"]) or "none"
        code = ""
        if read_only and any(name.rpartition(".")[2] in said for name in tool.needs_code):
            code = " The server was started with --read-only, so nothing that runs code is taken."
        raise UserError(
            f"The arguments of {tool.name} are not right{f' at {where}' if where else ''}: {said}.{code}",
            f"Its arguments: {known}.",
        )
    return dict(arguments)


# Pieces of JSON Schema ------------------------------------------------------------------------------


def text(description: str, **more: Any) -> dict[str, Any]:
    """A text."""
    return {"type": "string", "description": description, **more}


def flag(description: str, default: bool) -> dict[str, Any]:
    """True or false."""
    return {"type": "boolean", "description": description, "default": default}


def number(description: str, least: int = 0, most: int = 2**31, **more: Any) -> dict[str, Any]:
    """A whole number."""
    return {"type": "integer", "description": description, "minimum": least, "maximum": most, **more}


def texts(description: str) -> dict[str, Any]:
    """Several texts."""
    return {"type": "array", "items": {"type": "string"}, "description": description}


def timeout(what: str) -> dict[str, Any]:
    """Seconds to wait."""
    return {
        "type": "number",
        "minimum": 0,
        "maximum": MOST_SECONDS,
        "default": TIMEOUT,
        "description": f"Seconds to wait at most for {what}. 0 does not wait. Call again to go on waiting.",
    }


SESSION = text("The session, as attach named it, such as s1.")
RUN = text("The run, by number or id. Default: the latest.")
STORY = text("Which story.", enum=["deploy", "pipeline", "experiment"])
RANK = number("The rank of a distributed step.", most=99_999)
