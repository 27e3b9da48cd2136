"""What a stopped program shows: its stack, its variables, the values of expressions."""

from __future__ import annotations

from dataclasses import dataclass, field

from workflows.debugger.dap import DapClient, DapClosed, DapError, DapTimeout

_PAGE = 500

# Entries that debugpy puts among the variables to hold others (pydevd_utils.DAPGrouper, 1.8.22).
# "special" ones are dunders. The rest are a function's own locals, such as _x or a callback.
_ALL_GROUPS = {"special variables", "protected variables", "function variables", "class variables"}
_GROUPS_OF_LOCALS = {"protected variables", "function variables", "class variables"}
_GROUPS_OF_MODULE = {"protected variables"}


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


def read_stack(client: DapClient, thread: int, levels: int = 0) -> list[Frame]:
    """The frames of a stopped thread, the innermost first.

    Args:
        client: An attached client.
        thread: The adapter's number of the thread.
        levels: How many frames; 0 is all of them.

    Raises:
        DapError: As :meth:`DapClient.request`; the same for the other functions here.
    """
    arguments = {"threadId": thread, "startFrame": 0, "levels": levels}
    frames = []
    for frame in client.request("stackTrace", arguments).get("stackFrames", []):
        file = (frame.get("source") or {}).get("path") or ""
        frames.append(Frame(str(file), int(frame["line"]), _plain_name(str(frame["name"])), int(frame["id"])))
    return frames


def _plain_name(name: str) -> str:
    """A function's name without what debugpy 1.8.22 adds to it at an exception."""
    return name.removesuffix(" (Current frame)")


def read_locals(client: DapClient, frame: Frame) -> dict[str, str]:
    """``repr`` of the frame's variables by name.

    In a module's frame its functions, classes and dunders are left out; in a function's frame they are
    variables like any other, except dunders.
    """
    groups = _GROUPS_OF_MODULE if frame.function == "<module>" else _GROUPS_OF_LOCALS
    for scope in client.request("scopes", {"frameId": frame.number}).get("scopes", []):
        if scope.get("presentationHint") == "locals" or scope.get("name") == "Locals":
            return _variables(client, int(scope["variablesReference"]), groups)
    return {}


def evaluate(client: DapClient, frame: Frame, expression: str, timeout: float) -> str:
    """``repr`` of the expression's value, or type and text of the error that it raised.

    Args:
        client: An attached client.
        frame: Where the names are looked up.
        expression: A Python expression.
        timeout: Seconds.
    """
    # In "watch" debugpy answers an expression that raises with the error's type and text.
    arguments = {"expression": expression, "frameId": frame.number, "context": "watch"}
    try:
        return str(client.request("evaluate", arguments, timeout).get("result", ""))
    except (DapTimeout, DapClosed):
        raise
    except DapError as error:
        return str(error)


def _variables(client: DapClient, reference: int, groups: set[str]) -> dict[str, str]:
    """All variables behind ``reference``, with the content of ``groups`` in place of the groups."""
    found: dict[str, str] = {}
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
                found[name] = str(entry["value"])
            elif name in groups:
                found.update(_variables(client, int(entry["variablesReference"]), groups))
        # debugpy 1.8.22 takes no notice of start and count and sends all: more than was asked for,
        # or the same again.
        if len(page) != _PAGE or not fresh:
            return found
