"""The flags of the `inspect` tasks, and the output of an inspection while it runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadValue

if TYPE_CHECKING:
    from ..console import Console
    from ..debugger.inspect_places import InspectOptions, Report
    from ..flows.step_inspection import StepInspection
    from ..runs.record import RunRecord
    from ._command import Command

INSPECT_HELP = {
    "at": "Another place to stop at; may be repeated.",
    "when": "Stop only where this expression is true.",
    "hits": "N: stop from the Nth time on that the line runs, in each process; of --when from the Nth that it is true.",
    "times": "N: stop N times at each place; default: 1. Of --log: show N values; default: 100.",
    "log": "Do not stop: show this expression's value each time the line is passed.",
    "steps": "N: go on line by line from the stop, N times, and show what changes.",
    "step_into": "Go into the functions that are called, too, with each of the steps.",
    "frames": "all: show the variables of every frame of your own code.",
    "depth": "N: open lists, dicts and objects N levels deep; default: 0.",
    "set": "NAME=EXPRESSION: give a variable another value before going on; may be repeated.",
    "all_code": "Look into libraries, too; a place may then be package.module:FUNCTION.",
    "all_locals": "At a module's own lines show its modules, functions and classes, too.",
    "eval": "Expression to evaluate at the stop; may be repeated.",
}
INSPECT_ITERABLE = ("at", "eval", "set")
ON_ERROR_HELP = "Stop where an exception is raised, caught or not; with a TYPE where one of that type is."

_MOST = {"times": 1_000_000, "steps": 10_000, "depth": 10, "repeat": 10_000}


@dataclass(frozen=True)
class InspectFlags:
    """What was typed after the flags of :data:`INSPECT_HELP`."""

    location: str | None
    at: Sequence[str]
    eval: Sequence[str]
    set: Sequence[str]
    when: str | None
    hits: str | None
    times: str | None
    log: str | None
    steps: str | None
    step_into: bool
    frames: str | None
    depth: str | None
    all_code: bool
    timeout: str
    on_error: object = None
    all_locals: bool = False

    @property
    def locations(self) -> tuple[str, ...]:
        """The locations to stop at, as typed."""
        return (*([self.location] if self.location is not None else []), *self.at)


def read_inspection(typed: InspectFlags) -> InspectOptions:
    """Read what an inspection has to do.

    Raises:
        BadValue: A value is not valid, or two of them exclude each other.
    """
    from ..debugger.inspect_places import InspectOptions
    from ..debugger.locations import check_expression, read_condition
    from ..debugger.places import is_module
    from ._inspection import read_timeout

    seconds, condition = read_timeout(typed.timeout), read_condition(typed.when, typed.hits)
    if not typed.locations:
        for flag in ("when", "hits"):
            if getattr(typed, flag) is not None:
                raise BadValue("--when and --hits need a line.", "Name one, such as score.py:21.")
        if typed.log is not None:
            raise BadValue("--log needs a line.", "Name one, such as score.py:21.")
    for place in typed.locations:
        if is_module(place) and not typed.all_code:
            raise BadValue(f"{place} is of a module, which may be a library's.", "For those: --all-code")
    if typed.frames not in (None, "all"):
        raise BadValue(f"--frames must be `all`, not {typed.frames!r}.", "Correct it.")
    if typed.log is not None:
        check_expression("--log", typed.log)
        others = ("eval", "set", "steps", "step_into", "frames", "depth")
        more = [f"--{name.replace('_', '-')}" for name in others if getattr(typed, name)]
        if more:
            raise BadValue(f"--log does not stop, so there is no {' and no '.join(more)}.", "Leave out one.")
    steps = read_number("steps", typed.steps, 0)
    if typed.step_into and not steps:
        raise BadValue("--step-into needs --steps.", "Add it: --steps N")
    kind = typed.on_error if isinstance(typed.on_error, str) else ""
    if kind and not all(part.isidentifier() for part in kind.split(".")):
        raise BadValue(f"--on-error takes the type of an exception, not {kind!r}.", "Such as: --on-error ValueError")
    return InspectOptions(
        condition=condition,
        expressions=tuple(typed.eval),
        times=read_number("times", typed.times, 1 if typed.log is None else 100),
        log=typed.log or "",
        steps=steps,
        into=typed.step_into,
        every_frame=typed.frames is not None,
        depth=read_number("depth", typed.depth, 0),
        sets=tuple(_parse_set(text) for text in typed.set),
        all_code=typed.all_code,
        all_locals=typed.all_locals,
        raised=kind if typed.on_error else None,
        timeout=seconds,
    )


def read_number(name: str, text: str | None, default: int) -> int:
    """The number typed after a flag.

    Raises:
        BadValue: It is not a number from 1 on, or it is too large.
    """
    if text is None:
        return default
    most = _MOST[name]
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= most:
        raise BadValue(f"--{name} must be a whole number from 1 to {most}, not {text!r}.", "Correct it.")
    return int(text)


def _parse_set(text: str) -> tuple[str, str]:
    from ..debugger.locations import check_expression

    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise BadValue(f"--set must be NAME=EXPRESSION, not {text!r}.", "Correct it.")
    check_expression("--set", value)
    return name.strip(), value.strip()


def read_stdin() -> bytes:
    """Read standard input to its end."""
    return sys.stdin.buffer.read()


def inspect_run(
    call: Command,
    run: RunRecord,
    typed: InspectFlags,
    rank: str | None,
    release: bool,
    inspect: Callable[[StepInspection, Report], dict[str, Any]],
) -> dict[str, Any]:
    """Inspect a run, show results as they arrive, and return what ``--json`` shows.

    Args:
        call: The command.
        run: The run.
        typed: The flags.
        rank: The value typed after ``--rank``.
        release: Whether to let a held program end afterwards.
        inspect: Does the inspection, and reports results to the function that it is given.

    Raises:
        BadValue: A value is not valid.
        UserError: ``inspect`` has raised it.
    """
    from ..flows.step_inspection import StepInspection
    from ._inspection import code_folders
    from ._runs import read_rank

    number = read_rank(rank) if rank is not None else None
    every = rank is not None and number is None
    shown = InspectionPrinter(call.console, code_folders(run, call.project), typed.all_code)
    look = StepInspection(typed.locations, read_inspection(typed), None, number, every, release)
    try:
        result = inspect(look, shown.show)
    except BaseException:
        # Results from before the error are not lost.
        if shown.results:
            call.console.result(shown.results)
        raise
    print_unreached(call.console, result)
    return result


class InspectionPrinter:
    """Shows the results of an inspection as they arrive.

    Args:
        console: Where to show them.
        code: Folders of the user's code.
        all_code: Whether frames of other code are shown.
    """

    def __init__(self, console: Console, code: Iterable[Path], all_code: bool = False) -> None:
        self._console, self._code, self._all_code = console, list(code), all_code
        #: The results so far, which are shown even if the inspection fails later.
        self.results: dict[str, Any] = {}

    def show(self, kind: str, event: Mapping[str, Any]) -> None:
        """Show one result: a ``stop``, a ``step``, a ``log``, a ``response``, ``holds`` or ``ranks``."""
        from ._inspection import show_response

        if kind == "stop":
            self._show_stop(event)
        elif kind == "step":
            self._show_step(event)
        elif kind == "log":
            self._show_log(event)
        elif kind == "response":
            show_response(self._console, event)
        elif kind == "holds":
            self._console.line(f"The service holds before {Path(event['file']).name} is loaded; nothing has run yet.")
            self._console.line(f"To stop in it   inv deploy.inspect {Path(event['file']).name}:{event['line']}")
        elif kind == "ranks":
            self._show_ranks(event)

    def _show_stop(self, event: Mapping[str, Any]) -> None:
        from ._inspection import show
        from ._values import shorten, show_value

        if self.results:
            self.results.setdefault("stops", [{**self.results}]).append(dict(event))
        else:
            self.results.update(event)
        shown = {**event, "locals": {}} if "frame_locals" in event or "opened" in event else event
        show(self._console, shown, self._code, all_code=self._all_code)
        for frame in event.get("frame_locals", ()):
            self._console.line(f"Locals of {frame['function']}, line {frame['line']}")
            for name, value in frame["locals"].items():
                show_value(self._console, name, value)
        if "opened" in event:
            self._console.line("Locals")
            self._show_variables(event["opened"], 1)
        for name, value in event.get("set", {}).items():
            self._console.value(f"Set {name} = {shorten(value)}")

    def _show_variables(self, variables: Iterable[Mapping[str, Any]], level: int) -> None:
        from ._values import shorten

        for one in variables:
            self._console.value(f"{'  ' * level}{one['name']} = {shorten(one['value'])}")
            self._show_variables(one.get("children", ()), level + 1)
            more = one.get("total", 0) - len(one.get("children", ()))
            if more > 0:
                self._console.line(f"{'  ' * (level + 1)}({more} more)")

    def _show_step(self, event: Mapping[str, Any]) -> None:
        from ..paths import shown
        from ._values import show_value

        self._console.line(f"Then {event['function']} at {shown(Path(event['file']))}:{event['line']}")
        for name, value in event["changed"].items():
            show_value(self._console, name, value)

    def _show_log(self, event: Mapping[str, Any]) -> None:
        from ._values import shorten

        self.results.setdefault("logged_values", []).append(dict(event))
        rank = f" rank {event['rank']}" if "rank" in event else ""
        child = f" process {event['child']}" if "child" in event else ""
        if event.get("dropped"):
            self._console.line(f"  ({event['dropped']} values came too quickly to be taken)")
        clock = event["at"].partition("T")[2]
        value = shorten(event["value"])
        self._console.value(f"{clock} {event['place']}{rank}{child} #{event['count']}: {value}")

    def _show_ranks(self, event: Mapping[str, Any]) -> None:
        """Show ranks side by side: each name with its values, marked with a star if they differ."""
        from ..paths import shown
        from ._values import shorten

        stopped = [row for row in event["by_rank"] if row.get("stopped")]
        for row in event["by_rank"]:
            if "error" in row:
                self._console.line(f"Rank {row['rank']}: {row['error']}")
            elif row["stopped"] is not None:
                place = row["stopped"]
                where = f"{place['function']} at {shown(Path(place['file']))}:{place['line']}"
                self._console.line(f"Rank {row['rank']} stopped in {where}")
        for kind, title in (("locals", "Locals"), ("values", "Values")):
            names = dict.fromkeys(name for row in stopped for name in row[kind])
            if names:
                self._console.line(f"{title} (* differs)")
            for name in names:
                if name not in event["differ"]:
                    self._console.value(f"    {name} = {shorten(stopped[0][kind][name])}")
                    continue
                for row in stopped:
                    value = shorten(row[kind][name]) if name in row[kind] else "(not there)"
                    self._console.value(f"  * {name} = {value}  (rank {row['rank']})")


def print_unreached(console: Console, result: Mapping[str, Any]) -> None:
    """Print which places were not reached."""
    if result.get("not_reached"):
        console.line(f"  note: not reached: {', '.join(result['not_reached'])}")
