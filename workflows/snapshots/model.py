"""What a snapshot holds: exceptions, frames with their variables, and the values that these name."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

#: What is shown in the place of a value that the writer has left out.
LEFT_OUT = "<not recorded>"
#: Kinds whose items are found by their number alone.
SEQUENCES = frozenset(("list", "tuple", "deque", "array"))
#: Places on the way from an exception to those that led to it, at the most: what a person reads through.
MOST_LINKED = 100

#: The place of a value in the snapshot's list of them; None for one that was left out.
Place = int | None


@dataclass(frozen=True)
class Value:
    """One value as it was recorded.

    Attributes:
        type: Its type's full name.
        kind: As the file's format has it: ``scalar``, ``str``, ``list``, ``object``, ….
        text: What stands for it.
        plain: The value itself where JSON has it; of a text its first characters.
        has_plain: Whether ``plain`` says anything: it may be None itself.
        length: How many items or characters it has.
        items: Key and item; the key is None but in mappings.
        more: How many items were left out.
        attributes: By name.
        facts: What else is known of it, such as an array's shape, by name.
    """

    type: str
    kind: str
    text: str
    plain: Any = None
    has_plain: bool = False
    length: int | None = None
    items: Sequence[tuple[Place, Place]] = ()
    more: int = 0
    attributes: Sequence[tuple[str, Place]] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def keyed(self) -> bool:
        """Whether its items are found by keys; a table's rows have their labels."""
        return bool(self.items) and self.kind not in SEQUENCES and any(key is not None for key, _item in self.items)


@dataclass(frozen=True)
class Frame:
    """One level of a stack.

    Attributes:
        file: As the program named it.
        real: The same file without links; empty where the program's name has none.
        line: Counted from 1.
        function: Its name, with its class where that is known.
        module: The module's name.
        own: Whether it is the person's own code.
        first: The number of the first recorded line.
        lines: The recorded lines.
        sha256: Of the whole file; empty where it is not known.
        locals: Name and place of each variable.
    """

    file: str
    line: int
    function: str
    module: str = ""
    own: bool = False
    first: int = 0
    lines: Sequence[str] = ()
    sha256: str = ""
    locals: Sequence[tuple[str, Place]] = ()
    real: str = ""


@dataclass(frozen=True)
class Raised:
    """One exception.

    Attributes:
        type: Its class's name.
        module: The module of that.
        text: What it says.
        notes: Lines that were added to it.
        frames: Places of its frames, the outermost first.
        cause: The place of the exception that it was raised from.
        context: The place of the one that was being handled.
        suppressed: Whether the context does not count.
        group: Places of the exceptions in it.
        value: The place of the exception itself, with its attributes.
    """

    type: str
    module: str
    text: str
    notes: Sequence[str] = ()
    frames: Sequence[int] = ()
    cause: int | None = None
    context: int | None = None
    suppressed: bool = False
    group: Sequence[int] = ()
    value: Place = None

    @property
    def name(self) -> str:
        """The class as a traceback names it."""
        return self.type if self.module in ("", "builtins", "__main__") else f"{self.module}.{self.type}"

    @property
    def line(self) -> str:
        """Class and text as a traceback ends with them."""
        return f"{self.name}: {self.text}" if self.text else self.name


@dataclass(frozen=True)
class Linked:
    """An exception that belongs to another one.

    Attributes:
        how: What it is to that one: ``cause``, ``while handling``, ``in the group``.
        place: Its place among the exceptions.
        depth: How many steps it is away.
    """

    how: str
    place: int
    depth: int


@dataclass(frozen=True)
class ThreadStack:
    """Where another thread stood.

    Attributes:
        name: The thread's name.
        frames: Places of its frames, the outermost first.
    """

    name: str
    frames: Sequence[int]


@dataclass(frozen=True)
class Snapshot:
    """A failure as it was written.

    Attributes:
        path: The file.
        written: When, as the file has it.
        where: Story, run, step, rank, as far as they are known.
        program: Arguments, folder, versions.
        packages: Versions by name.
        exceptions: The first one ended the program.
        frames: All of them.
        values: All of them.
        thread: The thread that raised.
        threads: The others.
        left_out: What is not in it, in sentences.
    """

    path: Path
    written: str
    where: Mapping[str, Any]
    program: Mapping[str, Any]
    packages: Mapping[str, str]
    exceptions: Sequence[Raised]
    frames: Sequence[Frame]
    values: Sequence[Value]
    thread: str = ""
    threads: Sequence[ThreadStack] = ()
    left_out: Sequence[str] = ()

    @property
    def raised(self) -> Raised:
        """The exception that ended the program."""
        return self.exceptions[0]

    @property
    def step(self) -> str:
        """The step, or what stands for it."""
        return str(self.where.get("step") or "")

    @property
    def rank(self) -> int:
        """The rank; 0 where there are none."""
        found = self.where.get("rank")
        return found if type(found) is int else 0

    @property
    def process(self) -> str:
        """The process's name where the program has not started as that one; empty for its first."""
        name = str(self.program.get("process") or "")
        return "" if name == "MainProcess" else name

    @property
    def time(self) -> float:
        """When it was written, in seconds since the epoch; the latest of all where that cannot be read."""
        try:
            return datetime.fromisoformat(self.written.replace("Z", "+00:00")).astimezone(timezone.utc).timestamp()
        except (ValueError, OverflowError, OSError):
            return float("inf")

    @property
    def when(self) -> str:
        """When it was written, in this machine's own time."""
        try:
            return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.time))
        except (OverflowError, ValueError, OSError):
            return self.written

    def value(self, place: Place) -> Value | None:
        """The value at a place; None for one that was left out."""
        return None if place is None else self.values[place]

    def stack(self, raised: Raised | None = None) -> list[int]:
        """Places of an exception's frames, the innermost first; by default of the one that ended the program."""
        return list(reversed((raised or self.raised).frames))

    def chain(self) -> Iterator[Linked]:
        """Every exception that led to the first one or is in it, each once, the nearest first."""
        seen, left = {0}, [Linked("", 0, 0)]
        while left and len(seen) <= MOST_LINKED:
            at = left.pop(0)
            if at.depth:
                yield at
            one = self.exceptions[at.place]
            further = [("cause", one.cause)]
            if one.cause is None and not one.suppressed:
                further.append(("while handling", one.context))
            further += [("in the group", place) for place in one.group]
            new = []
            for how, place in further:
                if place is not None and place not in seen:
                    seen.add(place)
                    new.append(Linked(how, place, at.depth + 1))
            left = new + left


def innermost_own(snapshot: Snapshot, stack: Sequence[int]) -> int:
    """Which frame of a stack a person wants to see first: the innermost of their own code, else one with variables."""
    for wanted in (lambda one: one.own, lambda one: bool(one.locals)):
        for number, place in enumerate(stack):
            if wanted(snapshot.frames[place]):
                return number
    return 0
