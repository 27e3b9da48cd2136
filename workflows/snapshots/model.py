"""The data classes of a snapshot: exceptions, frames with their variables, and values."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

#: Shown in place of a value that was not recorded.
LEFT_OUT = "<not recorded>"
#: Kinds whose items have an index but no key.
SEQUENCES = frozenset(("list", "tuple", "deque", "array"))
#: Exceptions that are followed at most in a chain.
MOST_LINKED = 100

#: The index of a value in the snapshot's list; None for a value that was not recorded.
Place = int | None


@dataclass(frozen=True)
class Value:
    """One recorded value.

    Attributes:
        type: Its type's full name.
        kind: Its kind in the file's format: ``scalar``, ``str``, ``list``, ``object``, ….
        text: Its text.
        plain: The value itself if JSON can hold it; of a text its first characters.
        has_plain: Whether ``plain`` is set: the value may be None.
        length: How many items or characters it has.
        items: Key and item; the key is None except in mappings.
        more: How many items were not recorded.
        attributes: By name.
        facts: Further facts by name, such as an array's shape.
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
        """Whether its items have keys; those of a table's rows are their labels."""
        return bool(self.items) and self.kind not in SEQUENCES and any(key is not None for key, _item in self.items)


@dataclass(frozen=True)
class Frame:
    """One level of a stack.

    Attributes:
        file: The file's path in the program.
        real: That path with symbolic links resolved; empty if there are none.
        line: Counted from 1.
        function: The function's name, with its class if that is known.
        module: The module's name.
        own: Whether it is the user's code.
        first: The number of the first recorded line.
        lines: The recorded lines.
        sha256: The digest of the complete file; empty if it is not known.
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
        module: The class's module.
        text: Its message.
        notes: Its notes (``add_note``).
        frames: Places of its frames, the outermost first.
        cause: The place of the exception that it was raised from.
        context: The place of the one that was being handled.
        suppressed: Whether the context is suppressed (``raise … from None``).
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
        """The class's name as in a traceback."""
        return self.type if self.module in ("", "builtins", "__main__") else f"{self.module}.{self.type}"

    @property
    def line(self) -> str:
        """The last line of a traceback."""
        return f"{self.name}: {self.text}" if self.text else self.name


@dataclass(frozen=True)
class Linked:
    """An exception that is linked to another one.

    Attributes:
        how: The kind of link: ``cause``, ``while handling``, ``in the group``.
        place: Its place among the exceptions.
        depth: How many links it is away.
    """

    how: str
    place: int
    depth: int


@dataclass(frozen=True)
class ThreadStack:
    """The stack of another thread.

    Attributes:
        name: The thread's name.
        frames: Places of its frames, the outermost first.
    """

    name: str
    frames: Sequence[int]


@dataclass(frozen=True)
class Snapshot:
    """A recorded failure.

    Attributes:
        path: The file.
        written: When it was written, as text.
        where: Story, run, step and rank, as far as they are known.
        program: Arguments, folder, versions.
        packages: Versions by name.
        exceptions: All exceptions; the first one ended the program.
        frames: All frames.
        values: All values.
        thread: The name of the thread that raised.
        threads: The other threads.
        left_out: Sentences about what was not recorded.
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
        """The name of the step; empty if there is none."""
        return str(self.where.get("step") or "")

    @property
    def rank(self) -> int:
        """The rank; 0 if there are no ranks."""
        found = self.where.get("rank")
        return found if type(found) is int else 0

    @property
    def process(self) -> str:
        """The name of a child process; empty for the program's main process."""
        name = str(self.program.get("process") or "")
        return "" if name == "MainProcess" else name

    @property
    def time(self) -> float:
        """When it was written, in seconds since the epoch; infinity if that cannot be parsed."""
        try:
            return datetime.fromisoformat(self.written.replace("Z", "+00:00")).astimezone(timezone.utc).timestamp()
        except (ValueError, OverflowError, OSError):
            return float("inf")

    @property
    def when(self) -> str:
        """When it was written, in this machine's time zone."""
        try:
            return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.time))
        except (OverflowError, ValueError, OSError):
            return self.written

    def value(self, place: Place) -> Value | None:
        """The value at a place; None if it was not recorded."""
        return None if place is None else self.values[place]

    def stack(self, raised: Raised | None = None) -> list[int]:
        """The places of an exception's frames, the innermost first; by default for the one that ended the program."""
        return list(reversed((raised or self.raised).frames))

    def chain(self) -> Iterator[Linked]:
        """All exceptions that led to the first one or are in its group, each once, depth first."""
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
    """The index of the frame to show first: the innermost of the user's code, else one with variables."""
    for wanted in (lambda one: one.own, lambda one: bool(one.locals)):
        for number, place in enumerate(stack):
            if wanted(snapshot.frames[place]):
                return number
    return 0
