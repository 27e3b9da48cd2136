"""Reading a stopped program through DAP: its stack, its variables, the values of expressions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from workflows.debugger.dap import DapClient, Json
from workflows.debugger.value_text import describe_variable, evaluate_to_text
from workflows.errors import UserError

_PAGE = 500

# Groups that debugpy puts among the variables (pydevd_utils.DAPGrouper, 1.8.22). The special ones hold dunders, the
# others a function's own locals, such as _x or a callback.
_ALL_GROUPS = {"special variables", "protected variables", "function variables", "class variables"}
_GROUPS_OF_LOCALS = {"protected variables", "function variables", "class variables"}
_GROUPS_OF_MODULE = {"protected variables"}
#: Types of a module's imports and definitions, which debugpy does not always group.
_IMPORTED = ("module", "function", "builtin_function_or_method", "type")
#: Entries that debugpy adds to a container's items.
_ADDED = {"len()"}


@dataclass(frozen=True)
class Frame:
    """One level of a stack.

    Attributes:
        file: The local path if a path mapping covers it, else the program's own path.
        line: Counted from 1.
        function: The function's name, ``<module>`` outside of any.
        number: The adapter's id, valid until the program continues.
    """

    file: str
    line: int
    function: str
    number: int = field(default=0, compare=False, repr=False)

    def as_json(self) -> dict[str, str | int]:
        """File, line and function, without the adapter's id."""
        return {"file": self.file, "line": self.line, "function": self.function}


@dataclass(frozen=True)
class Variable:
    """A variable, or an item or attribute of one.

    Attributes:
        name: Its name, or its key or index.
        value: The beginning of its ``repr``.
        type: The name of its type.
        length: Characters of the complete ``repr`` that debugpy returns.
        is_container: Whether it has children.
        children: Its children, as far as they were read.
        total: How many children it has, if they were read.
    """

    name: str
    value: str
    type: str = ""
    length: int = 0
    is_container: bool = False
    children: tuple[Variable, ...] = ()
    total: int = 0

    def as_json(self) -> dict[str, Any]:
        """The JSON object, without what is not known."""
        more = {"length": self.length} if self.length > len(self.value) else {}
        inside = {"children": [one.as_json() for one in self.children], "total": self.total} if self.total else {}
        return {"name": self.name, "type": self.type, "value": self.value, **more, **inside}


def read_stack(client: DapClient, thread: int, levels: int = 0, start: int = 0) -> list[Frame]:
    """The frames of a stopped thread, the innermost first.

    Args:
        client: An attached client.
        thread: The adapter's id of the thread.
        levels: How many frames; 0 is all of them.
        start: How many of the innermost to skip.

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
    """A function's name without the suffix that debugpy 1.8.22 adds at an exception."""
    return name.removesuffix(" (Current frame)")


def read_locals(client: DapClient, frame: Frame, everything: bool = False) -> dict[str, str]:
    """The ``repr`` of a frame's variables by name; for arrays and tables a description.

    In a module's frame its modules, functions, classes and dunders are left out; in a function's frame they are
    variables like any other, except dunders.

    Args:
        client: An attached client.
        frame: The frame.
        everything: Include modules, functions and classes in a module's frame, too.
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
    """A page of a frame's variables, chosen as in :func:`read_locals`, with their children.

    Args:
        client: An attached client.
        frame: The frame.
        start: How many to skip.
        count: How many at most, here and in each container.
        depth: How many levels of containers are opened.
        characters: How many characters of each value are kept.
        path: Names that lead to a container whose children are read instead.

    Raises:
        UserError: There is no such name.
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
    """A variable with its children, without the entries that debugpy adds, such as ``len()``."""
    value, reference = str(entry["value"]), int(entry.get("variablesReference") or 0)
    children: tuple[Variable, ...] = ()
    total = 0
    if reference and depth > 0:
        # No groups such as "protected variables": a container's children are its items or attributes.
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
    """The ``repr`` of an expression's value, or type and text of the error that it raised.

    Args:
        client: An attached client.
        frame: The frame to evaluate it in.
        expression: A Python expression.
        timeout: Seconds.
    """
    return evaluate_to_text(client, frame.number, expression, timeout)


def _variables(client: DapClient, reference: int, groups: set[str]) -> list[Json]:
    """All variables behind a reference, with the groups in ``groups`` replaced by their content."""
    found: dict[str, Json] = {}
    seen: set[str] = set()
    while True:
        arguments = {"variablesReference": reference, "start": len(seen), "count": _PAGE}
        page = client.request("variables", arguments).get("variables", [])
        fresh = [entry for entry in page if entry["name"] not in seen]
        seen.update(entry["name"] for entry in fresh)
        for entry in fresh:
            name = str(entry["name"])
            # Groups have no type; in a frame made by exec() a variable could have such a name.
            if name not in _ALL_GROUPS or entry.get("type"):
                found[name] = entry
            elif name in groups:
                inner = _variables(client, int(entry["variablesReference"]), groups)
                found.update((one["name"], one) for one in inner)
        # debugpy 1.8.22 ignores start and count and sends all: more than requested, or the same again.
        if len(page) != _PAGE or not fresh:
            return list(found.values())
