"""What a stopped program shows: its stack, its variables, the values of expressions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from workflows.debugger.dap import DapClient, Json
from workflows.debugger.value_text import describe_variable, evaluate_to_text
from workflows.errors import UserError

_PAGE = 500

# Entries that debugpy puts among the variables to hold others (pydevd_utils.DAPGrouper, 1.8.22).
# "special" ones are dunders. The rest are a function's own locals, such as _x or a callback.
_ALL_GROUPS = {"special variables", "protected variables", "function variables", "class variables"}
_GROUPS_OF_LOCALS = {"protected variables", "function variables", "class variables"}
_GROUPS_OF_MODULE = {"protected variables"}
#: Types of what a module has by importing and defining, where debugpy does not put them into a group.
_IMPORTED = ("module", "function", "builtin_function_or_method", "type")
#: What debugpy shows in a container besides what is in it.
_ADDED = {"len()"}


@dataclass(frozen=True)
class Frame:
    """One level of a stack.

    Attributes:
        file: A local path where the path mappings reach, else the program's own.
        line: Counted from 1.
        function: The function's name, ``<module>`` outside of any.
        number: What the adapter calls it, valid until the program goes on.
    """

    file: str
    line: int
    function: str
    number: int = field(default=0, compare=False, repr=False)

    def as_json(self) -> dict[str, str | int]:
        """The place, without the adapter's number."""
        return {"file": self.file, "line": self.line, "function": self.function}


@dataclass(frozen=True)
class Variable:
    """A variable, or something in one.

    Attributes:
        name: Its name, or its key or index.
        value: The beginning of its ``repr``.
        type: The name of its type.
        length: Characters of the whole ``repr`` that debugpy gives.
        is_container: Whether there is something in it.
        children: What is in it, as far as it was opened.
        total: How many there are in it, where it was opened.
    """

    name: str
    value: str
    type: str = ""
    length: int = 0
    is_container: bool = False
    children: tuple[Variable, ...] = ()
    total: int = 0

    def as_json(self) -> dict[str, Any]:
        """What is known of it; ``value`` alone where that is all."""
        more = {"length": self.length} if self.length > len(self.value) else {}
        inside = {"children": [one.as_json() for one in self.children], "total": self.total} if self.total else {}
        return {"name": self.name, "type": self.type, "value": self.value, **more, **inside}


def read_stack(client: DapClient, thread: int, levels: int = 0, start: int = 0) -> list[Frame]:
    """The frames of a stopped thread, the innermost first.

    Args:
        client: An attached client.
        thread: The adapter's number of the thread.
        levels: How many frames; 0 is all of them.
        start: How many of the innermost to pass over.

    Raises:
        DapError: As :meth:`DapClient.request`; the same for the other functions here.
    """
    arguments = {"threadId": thread, "startFrame": start, "levels": levels}
    frames = []
    for frame in client.request("stackTrace", arguments).get("stackFrames", []):
        file = (frame.get("source") or {}).get("path") or ""
        frames.append(Frame(str(file), int(frame["line"]), _plain_name(str(frame["name"])), int(frame["id"])))
    return frames


def _plain_name(name: str) -> str:
    """A function's name without what debugpy 1.8.22 adds to it at an exception."""
    return name.removesuffix(" (Current frame)")


def read_locals(client: DapClient, frame: Frame, everything: bool = False) -> dict[str, str]:
    """``repr`` of the frame's variables by name; of arrays and tables a description.

    In a module's frame its modules, functions, classes and dunders are left out; in a function's frame they are
    variables like any other, except dunders.

    Args:
        client: An attached client.
        frame: The frame.
        everything: In a module's frame, too, modules, functions and classes are variables like any other.
    """
    return {
        str(entry["name"]): describe_variable(client, frame.number, entry)
        for entry in _entries(client, frame, everything)
    }


def read_variables(
    client: DapClient,
    frame: Frame,
    start: int,
    count: int,
    depth: int,
    characters: int,
    path: Sequence[str] = (),
) -> list[Variable]:
    """A page of a frame's variables, as :func:`read_locals` has them, with what is in them.

    Args:
        client: An attached client.
        frame: The frame.
        start: How many to pass over.
        count: How many at most, here and in each container.
        depth: So deep containers are opened.
        characters: So many of each value are kept.
        path: What is in one of them, by names.

    Raises:
        UserError: There is nothing of such a name.
    """
    found = _entries(client, frame)
    for place, name in enumerate(path):
        entry = next((one for one in found if one["name"] == name), None)
        if entry is None:
            where = " in " + ".".join(path[:place]) if place else ""
            names = ", ".join(str(one["name"]) for one in found[:20]) or "nothing"
            raise UserError(f"There is no {name}{where}.", f"There is: {names}")
        reference = int(entry.get("variablesReference") or 0)
        found = [e for e in _variables(client, reference, set()) if e["name"] not in _ADDED] if reference else []
    return [_opened(client, entry, count, depth, characters) for entry in found[start : start + count]]


def _entries(client: DapClient, frame: Frame, everything: bool = False) -> list[Json]:
    reference = _locals_of(client, frame)
    if reference is None:
        return []
    if frame.function != "<module>" or everything:
        return _variables(client, reference, _GROUPS_OF_LOCALS)
    found = _variables(client, reference, _GROUPS_OF_MODULE)
    return [entry for entry in found if entry.get("type") not in _IMPORTED]


def _locals_of(client: DapClient, frame: Frame) -> int | None:
    for scope in client.request("scopes", {"frameId": frame.number}).get("scopes", []):
        if scope.get("presentationHint") == "locals" or scope.get("name") == "Locals":
            return int(scope["variablesReference"])
    return None


def _opened(client: DapClient, entry: Json, count: int, depth: int, characters: int) -> Variable:
    """A variable with what is in it. What debugpy adds to a container, such as ``len()``, is left out."""
    value, reference = str(entry["value"]), int(entry.get("variablesReference") or 0)
    children: tuple[Variable, ...] = ()
    total = 0
    if reference and depth > 0:
        # Not "protected variables" and the like: what is in a container is its items, or its attributes.
        inner = [e for e in _variables(client, reference, set()) if e["name"] not in _ADDED]
        total = len(inner)
        children = tuple(_opened(client, one, count, depth - 1, characters) for one in inner[:count])
    return Variable(
        str(entry["name"]),
        value[:characters],
        str(entry.get("type") or ""),
        len(value),
        bool(reference),
        children,
        total,
    )


def evaluate(client: DapClient, frame: Frame, expression: str, timeout: float) -> str:
    """``repr`` of the expression's value, or type and text of the error that it raised.

    Args:
        client: An attached client.
        frame: Where the names are looked up.
        expression: A Python expression.
        timeout: Seconds.
    """
    return evaluate_to_text(client, frame.number, expression, timeout)


def _variables(client: DapClient, reference: int, groups: set[str]) -> list[Json]:
    """All variables behind ``reference``, with the content of ``groups`` in place of the groups."""
    found: dict[str, Json] = {}
    seen: set[str] = set()
    while True:
        arguments = {"variablesReference": reference, "start": len(seen), "count": _PAGE}
        page = client.request("variables", arguments).get("variables", [])
        fresh = [entry for entry in page if entry["name"] not in seen]
        seen.update(entry["name"] for entry in fresh)
        for entry in fresh:
            name = str(entry["name"])
            # Groups have no type; a variable could be called so in a frame made by exec().
            if name not in _ALL_GROUPS or entry.get("type"):
                found[name] = entry
            elif name in groups:
                inner = _variables(client, int(entry["variablesReference"]), groups)
                found.update((one["name"], one) for one in inner)
        # debugpy 1.8.22 takes no notice of start and count and sends all: more than was asked for,
        # or the same again.
        if len(page) != _PAGE or not fresh:
            return list(found.values())
