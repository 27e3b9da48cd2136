"""The definition of a tool: its name, description, arguments and handler."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from ..errors import UserError

#: Default and largest timeout of a call, in seconds: clients give up after a minute.
TIMEOUT, MOST_SECONDS = 20.0, 50.0

Answer = dict[str, Any]

#: Set if the call that is being handled was abandoned.
_GIVEN_UP: ContextVar[threading.Event | None] = ContextVar("given up", default=None)


@contextlib.contextmanager
def abandonable_call() -> Iterator[threading.Event]:
    """Run a call that may be abandoned; the caller sets the event then."""
    event = threading.Event()
    token = _GIVEN_UP.set(event)
    try:
        yield event
    finally:
        _GIVEN_UP.reset(token)


def is_abandoned() -> bool:
    """Whether the answer to this call will not be delivered, so that its news have to stay for the next one."""
    event = _GIVEN_UP.get()
    return event is not None and event.is_set()


@dataclass(frozen=True)
class Tool:
    """One tool.

    Attributes:
        name: Its name in calls.
        title: Its name for people.
        description: What it does, for the agent; it says so if the tool runs the user's code.
        properties: Its arguments in JSON Schema.
        required: The names of required arguments.
        call: The handler, called with the arguments.
        reads: Whether it changes nothing and runs none of the user's code.
        destroys: Whether it may end or change something.
        runs_code: Whether it runs, starts or changes the user's code; ``--read-only`` removes the tool then.
        needs_code: Arguments that are code, which ``--read-only`` removes.
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
        """The JSON Schema of its arguments."""
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
    """Remove an argument; ``a.b`` is the property ``b`` of the objects in the array ``a``."""
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
    """Validate the arguments of a call.

    Raises:
        UserError: They are not valid.
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
    """The schema of a text."""
    return {"type": "string", "description": description, **more}


def flag(description: str, default: bool) -> dict[str, Any]:
    """The schema of a boolean."""
    return {"type": "boolean", "description": description, "default": default}


def number(description: str, least: int = 0, most: int = 2**31, **more: Any) -> dict[str, Any]:
    """The schema of an integer."""
    return {"type": "integer", "description": description, "minimum": least, "maximum": most, **more}


def texts(description: str) -> dict[str, Any]:
    """The schema of a list of texts."""
    return {"type": "array", "items": {"type": "string"}, "description": description}


def timeout(what: str) -> dict[str, Any]:
    """The schema of a timeout in seconds."""
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
