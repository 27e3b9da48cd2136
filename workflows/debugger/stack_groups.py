"""Grouping the processes of a run by where their main threads stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

#: Frames below the innermost own one that are compared: what the user's code has called, not how that waits.
_CALLED = 1


@dataclass(frozen=True)
class ProcessStacks:
    """The stacks of one process, or why they are not known.

    Attributes:
        step: Its step; an experiment's or service's name.
        rank: Its rank; None if the step is one process.
        process: As :func:`workflows.debugger.stacks.request_stacks` returns it; None if it is not known.
        child: Whether it is a child process of the script.
        trouble: Why it is not known; empty otherwise.
    """

    step: str
    rank: int | None
    process: dict[str, Any] | None
    child: bool = False
    trouble: str = ""

    @property
    def name(self) -> str:
        """The name of the process within its step, such as ``rank 3`` or ``child process 4711``."""
        rank = "" if self.rank is None else f"rank {self.rank}"
        if not self.child or self.process is None:
            return rank
        called = self.process.get("process")
        child = f"child process {self.process['pid']}{f' ({called})' if called else ''}"
        return ", ".join(filter(None, [rank, child]))

    def as_json(self) -> dict[str, Any]:
        """The object under ``processes``."""
        told = {"step": self.step, "rank": self.rank, "child": self.child}
        return {**told, **(self.process or {}), **({"trouble": self.trouble} if self.trouble else {})}


@dataclass
class Group:
    """Processes of one step whose main threads stand at the same place.

    Attributes:
        step: The step.
        members: The processes.
        frames: The stack of the first one's main thread, outermost first.
    """

    step: str
    frames: Sequence[dict[str, Any]]
    members: list[ProcessStacks] = field(default_factory=list)

    @property
    def summary(self) -> str:
        """The function that is called, and the line of the user's code that calls it: ``all_reduce < train.py:88``."""
        main = main_thread(self.members[0].process or {"threads": []}) if self.members else None
        if main is not None and main["holds"] and innermost_own(self.frames) is None:
            return "held for a debugger before its first line"
        return describe_place(self.frames)

    @property
    def ranks(self) -> list[int]:
        """The ranks of its members, without child processes."""
        return sorted(one.rank for one in self.members if one.rank is not None and not one.child)

    @property
    def name(self) -> str:
        """Its members, briefly: ``ranks 0-6``."""
        others = [one.name for one in self.members if one.child or one.rank is None]
        ranks = self.ranks
        texts = [f"rank{'s' if ranks[1:] else ''} {format_ranges(ranks)}"] if ranks else []
        if len(others) > 3:
            children = [str(one.process["pid"]) for one in self.members if one.child and one.process is not None]
            more = f" and {len(children) - 3} more" if len(children) > 3 else ""
            return ", ".join([*texts, f"child processes {', '.join(children[:3])}{more}"])
        return ", ".join([*texts, *filter(None, others)])


def format_ranges(numbers: Sequence[int]) -> str:
    """Format ascending numbers briefly: ``0-6, 9``."""
    texts: list[str] = []
    first = last = None
    for number in [*numbers, None]:
        if first is not None and last is not None and number != last + 1:
            texts.append(str(first) if first == last else f"{first}-{last}")
            first = None
        if first is None:
            first = number
        last = number
    return ", ".join(texts)


def main_thread(process: dict[str, Any]) -> dict[str, Any] | None:
    """A process's main thread, else its first thread; None if it has none."""
    threads: list[dict[str, Any]] = process["threads"]
    return next((one for one in threads if one["main"]), threads[0] if threads else None)


def main_frames(process: dict[str, Any]) -> list[dict[str, Any]]:
    """The stack of :func:`main_thread`."""
    main = main_thread(process)
    return main["frames"] if main is not None else []


def innermost_own(frames: Sequence[dict[str, Any]]) -> int | None:
    """The index of the innermost frame of the user's code; None if there is none."""
    return next((number for number in range(len(frames) - 1, -1, -1) if frames[number]["own"]), None)


def describe_place(frames: Sequence[dict[str, Any]]) -> str:
    """The place at which a stack stands, briefly."""
    if not frames:
        return "no Python code"
    own = innermost_own(frames)
    if own is None:
        last = frames[-1]
        return f"{last['function']} at {PurePath(last['file']).name}:{last['line']}"
    line = f"{PurePath(frames[own]['file']).name}:{frames[own]['line']}"
    called = frames[own + 1 : own + 2]
    return f"{called[0]['function']} < {line}" if called else f"{frames[own]['function']} at {line}"


def _signature(looked: ProcessStacks) -> tuple[Any, ...]:
    assert looked.process is not None
    frames = main_frames(looked.process)
    own = innermost_own(frames)
    upto = frames if own is None else frames[: own + 1 + _CALLED]
    # Lines of library code change all the time, such as in a loop that polls.
    return (
        looked.step,
        looked.child,
        *((one["file"], one["function"], one["line"] if one["own"] else 0) for one in upto),
    )


def group_alike(found: Sequence[ProcessStacks]) -> list[Group]:
    """Group processes whose main threads stand at the same place; in each step the smallest group comes first."""
    groups: dict[tuple[Any, ...], Group] = {}
    for one in found:
        if one.process is not None:
            key = _signature(one)
            groups.setdefault(key, Group(one.step, main_frames(one.process))).members.append(one)
    steps = list(dict.fromkeys(one.step for one in found))
    return sorted(groups.values(), key=lambda one: (steps.index(one.step), len(one.members), one.members[0].rank or 0))


def group_values(found: Sequence[ProcessStacks], expression: str) -> list[tuple[str, list[ProcessStacks]]]:
    """The values of an expression with the processes that have each; the rarest value first."""
    by_value: dict[str, list[ProcessStacks]] = {}
    for one in found:
        told = (one.process or {}).get("values", {}).get(expression)
        if told is not None:
            text = told["value"] if "value" in told else f"({told['error']})"
            by_value.setdefault(text, []).append(one)
    return sorted(by_value.items(), key=lambda item: len(item[1]))
