"""The variables of a snapshot for an editor: frames' variables, exceptions and values have fixed reference numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..terminal import printable
from .expression import fact_value
from .model import LEFT_OUT, MOST_LINKED, Frame, Raised, Snapshot, Value

#: Variables in one response, unless the client names a count.
MOST_AT_ONCE = 1000
#: Characters of one text.
MOST_LETTERS = 20_000
#: Values made by expressions that get a reference number.
_MOST_MADE = 10_000
#: Characters of an expression for something deep in a value.
_LONGEST_PATH = 250


@dataclass(frozen=True)
class Child:
    """A child of a value.

    Attributes:
        name: Its name.
        value: The value; None if it was not recorded.
        expression: The suffix that turns the parent's expression into its own; None if there is none.
    """

    name: str
    value: Value | None
    expression: str | None = None


def named_children(snapshot: Snapshot, value: Value) -> list[Child]:
    """A value's attributes and facts."""
    found = [Child(name, fact_value(known), f".{name}") for name, known in value.facts.items()]
    found += [
        Child(name, snapshot.value(place), f".{name}" if name.isidentifier() else None)
        for name, place in value.attributes
    ]
    if value.more:
        found.append(Child("(left out)", Value("", "opaque", f"{value.more:,} more")))
    return found


def indexed_children(snapshot: Snapshot, value: Value, start: int, count: int) -> Iterator[Child]:
    """Some of a value's items."""
    for number, (key, item) in enumerate(value.items[start : start + count], start):
        if value.keyed:
            known = snapshot.value(key)
            text = known.text if known is not None else LEFT_OUT
            whole = known is not None and known.has_plain and len(text) < 200
            yield Child(text, snapshot.value(item), f"[{text}]" if whole else None)
        else:
            yield Child(
                f"[{number}]", snapshot.value(item), None if value.kind in ("set", "frozenset") else f"[{number}]"
            )


class VariableNumbers:
    """Reference numbers (``variablesReference``) and the variables behind each.

    A frame's variables, an exception and a recorded value keep their number for the whole session.

    Args:
        snapshot: The snapshot.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._exceptions = 1 + len(snapshot.frames)
        self._values = self._exceptions + len(snapshot.exceptions)
        self._made_from = self._values + len(snapshot.values)
        self._made: list[Value] = []
        #: The expression under which a number was last shown.
        self._paths: dict[int, str] = {}
        self._numbers = {id(value): self._values + place for place, value in enumerate(snapshot.values)}

    @staticmethod
    def of_frame(place: int) -> int:
        """The number of a frame's variables."""
        return 1 + place

    def of_exception(self, place: int) -> int:
        """The number of an exception."""
        return self._exceptions + place

    def of_value(self, value: Value) -> int:
        """The number of a value; 0 if it has no children."""
        if not (value.items or value.attributes or value.facts):
            return 0
        number = self._numbers.get(id(value))
        if number is None:
            if len(self._made) >= _MOST_MADE:
                return 0
            # Kept alive, so that no other value gets its id.
            self._made.append(value)
            number = self._numbers[id(value)] = self._made_from + len(self._made) - 1
        return number

    def answer(self, number: int, start: int, count: int, which: str) -> list[dict[str, Any]]:
        """The variables behind a number, as objects of the protocol.

        Args:
            number: The reference number.
            start: The index of the first one.
            count: How many; 0 for all.
            which: ``named``, ``indexed``, or empty for both.

        Raises:
            LookupError: Nothing has that number.
        """
        most = count or MOST_AT_ONCE
        if 1 <= number < self._exceptions:
            frame = self._snapshot.frames[number - 1]
            return [self._row(child, "") for child in _variables(self._snapshot, frame)[start : start + most]]
        if number < self._exceptions + len(self._snapshot.exceptions):
            return self._exception(number - self._exceptions)[start : start + most]
        made = number - self._made_from
        if self._values <= number < self._made_from:
            value = self._snapshot.values[number - self._values]
        elif 0 <= made < len(self._made):
            value = self._made[made]
        else:
            raise LookupError(number)
        own = named_children(self._snapshot, value) if which != "indexed" else []
        if which == "named":
            found = own[start : start + most]
        elif which == "indexed":
            found = list(indexed_children(self._snapshot, value, start, most))
        else:
            items = indexed_children(self._snapshot, value, max(0, start - len(own)), most)
            found = [*own[start : start + most], *items][:most]
        return [self._row(child, self._paths.get(number)) for child in found]

    def shown(self, value: Value | None) -> dict[str, Any]:
        """A value as an object of the protocol, without its name."""
        if value is None:
            return {"value": LEFT_OUT, "type": "", "variablesReference": 0}
        found: dict[str, Any] = {
            "value": displayable(value.text),
            "type": displayable(value.type.removeprefix("builtins.")),
            "variablesReference": self.of_value(value),
        }
        if value.items:
            found["indexedVariables"] = len(value.items)
            found["namedVariables"] = len(value.attributes) + len(value.facts) + bool(value.more)
        return found

    def _row(self, child: Child, parent: str | None) -> dict[str, Any]:
        """A variable as an object of the protocol, with its expression if its parent has one."""
        found = {"name": displayable(child.name), **self.shown(child.value)}
        if parent is not None and child.expression is not None and len(parent) < _LONGEST_PATH:
            found["evaluateName"] = f"{parent}{child.expression}"
            if number := found["variablesReference"]:
                self._paths[number] = found["evaluateName"]
        return found

    def _exception(self, place: int) -> list[dict[str, Any]]:
        one = self._snapshot.exceptions[place]
        rows: list[tuple[str, str, int]] = [("type", one.name, 0), ("text", one.text, 0)]
        rows += [("note", note, 0) for note in one.notes]
        value = self._snapshot.value(one.value)
        if value is not None and self.of_value(value):
            rows.append(("value", value.text, self.of_value(value)))
        linked = [("cause", one.cause), ("context", one.context)]
        linked += [(f"in the group, {number}", inner) for number, inner in enumerate(one.group[:MOST_LINKED])]
        for name, inner in linked:
            if inner is not None:
                rows.append((name, self._snapshot.exceptions[inner].line, self.of_exception(inner)))
        return [
            {"name": name, "value": displayable(text), "type": "", "variablesReference": number}
            for name, text, number in rows
        ]


def _variables(snapshot: Snapshot, frame: Frame) -> list[Child]:
    return [Child(name, snapshot.value(place), name if name.isidentifier() else None) for name, place in frame.locals]


def displayable(text: str) -> str:
    """A text without control characters, cut if it is too long."""
    cut = text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}… ({len(text):,} characters)"
    return printable(cut, lines=True)


@dataclass
class Stack:
    """A stack that an editor shows as a thread.

    Attributes:
        name: Its name.
        frames: Places of its frames, the innermost first.
        raised: The exception of the stack; None for a thread that has not raised.
    """

    name: str
    frames: list[int] = field(default_factory=list)
    raised: Raised | None = None


def list_stacks(snapshot: Snapshot) -> list[Stack]:
    """The stacks of the thread that raised, of each linked exception, and of the other threads."""
    found = [Stack(snapshot.thread or "MainThread", snapshot.stack(), snapshot.raised)]
    for link in snapshot.chain():
        one = snapshot.exceptions[link.place]
        found.append(Stack(f"{link.how}: {one.name}", snapshot.stack(one), one))
    return [*found, *(Stack(one.name, list(reversed(one.frames))) for one in snapshot.threads)]
