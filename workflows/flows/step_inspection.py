"""Inspects steps of a run without an editor: at lines of their code, all ranks at once, or where they hold."""

from __future__ import annotations

import contextlib
import os
import shlex
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..runs import attachable
from ..runs import record as records
from ..runs.attachable import Attachable
from ..runs.record import RunRecord, StepRecord
from . import exception_hold
from .run_failures import rerun_command, step_failed
from .watching import ENDING_SECONDS, POLL_SECONDS, Watch, Watching, summary

if TYPE_CHECKING:
    from ..debugger.inspect_places import InspectOptions, InspectResult, Report
    from ..debugger.places import Place

#: How many ranks are inspected at the same time.
_MOST_RANKS = 64
#: Seconds that a rank's thread may take to disconnect at the end.
_LEAVE_SECONDS = 30.0


@dataclass(frozen=True)
class StepInspection:
    """What to inspect in a run.

    Attributes:
        locations: Where to stop, as typed; none to inspect a step that holds, or to stop at the next ``breakpoint()``.
        wanted: What to do there.
        step: The step; None for the one with the file, or the first one that holds.
        rank: The rank; None for any.
        every_rank: Whether to inspect all ranks at the same time.
        release: Whether a step that holds at an exception goes on after the inspection.
    """

    locations: tuple[str, ...]
    wanted: InspectOptions
    step: StepRecord | None = None
    rank: int | None = None
    every_rank: bool = False
    release: bool = False


def inspect_step(watching: Watching, run: RunRecord, look: StepInspection, tell: Report) -> dict[str, Any]:
    """Stop at lines of a step, read its state, and let it go on; or inspect where it holds.

    Args:
        watching: How to watch.
        run: The run.
        look: What to inspect.
        tell: Called with ``stop``, ``step``, ``log`` or ``ranks`` and the details as they arrive.

    Raises:
        UserError: For example, no line is reached, or nothing holds.
    """
    from ..debugger.places import read_place

    wanted = look.wanted
    if not look.locations and wanted.raised is None:
        return _inspect_hold(watching, run, look, tell)
    steps = [look.step] if look.step else [entry for entry in run.steps if entry.debugged]
    roots = [Path(local) for entry in steps for local, _remote in entry.mappings]
    roots += [root / _script_folder(run) for root in roots]
    roots = list(dict.fromkeys(roots))
    places = [read_place(text, cwd=Path.cwd(), roots=roots) for text in look.locations]
    sources = [place.source for place in places if place.source is not None]
    target = look.step or (
        _step_of(run, sources[0]) if sources else next((one for one in steps if not one.final), None)
    )
    if target is None:
        raise UserError(f"Nothing in the run {run.run_id} is debugged.", f"Submit it again: {rerun_command(run)}")
    rank = look.rank
    if rank is None and not run.on_error and not look.every_rank:
        rank = min(target.ports, default=0)
    _check_rank(run, [target], rank)
    found = _wait_for_attachables(watching, run, target, rank)
    one = found[0]
    if one.error is not None and "message" in one.error and run.on_error:
        if len(places) != 1 or places[0].source is None:
            raise UserError(f"{one.step.name} holds at {one.error_text}.", f"To see it: inv {run.kind}.inspect")
        place = (places[0].source, places[0].line)
        return _report_stop(
            tell,
            exception_hold.inspect_hold_of_step(watching, run, place, found, wanted.expressions, wanted.timeout, True),
        )
    if look.release:
        raise exception_hold.nothing_holds_error(run)
    if look.every_rank and len(found) > 1:
        return _inspect_every_rank(found, places, wanted, tell)
    while True:
        try:
            return _inspect_one(found[0], places, wanted, tell).as_json()
        except UserError as error:
            found = _wait_for_next(watching, run, target.name, rank, error, wanted.timeout)


def _wait_for_next(
    watching: Watching, run: RunRecord, name: str, rank: int | None, error: UserError, timeout: float
) -> list[Attachable]:
    """Wait for the next script after one that has ended before a line was reached.

    Raises:
        UserError: No script follows, or the error was another one.
    """
    from ..debugger.dap_connection import DapError
    from ..debugger.sessions import Ended, Lost

    if not isinstance(error, Ended | Lost):
        if isinstance(error.__cause__, DapError):
            _check_ended(run, name)
        raise error
    # A step may start several scripts, one after the other, and a script may replace itself by an exec.
    found = Watch(watching, run, name, rank).until_next(timeout)
    if not found:
        if isinstance(error, Lost):
            _check_ended(run, name)
        elif _without_children(run, name):
            why = "Child processes are left out of this run (--no-children). With them: "
            raise UserError(error.problem, why + rerun_command(run, name)) from error
        raise error
    return found


def _inspect_one(
    one: Attachable,
    places: Sequence[Place],
    wanted: InspectOptions,
    tell: Report,
    meet: Callable[[], None] = lambda: None,
) -> InspectResult:
    from ..debugger import inspect_places
    from ..debugger.inspect_exceptions import is_own_code

    own = is_own_code(one.endpoint.path_mappings)
    return inspect_places.inspect_places(one.endpoint, places, wanted, report=tell, is_own=own, wait_for_ranks=meet)


def _report_stop(tell: Report, result: dict[str, Any]) -> dict[str, Any]:
    tell("stop", result)
    return result


# All ranks


@dataclass
class _Rank:
    """The inspection of one rank."""

    number: int
    told: list[dict[str, Any]] = field(default_factory=list)
    found: InspectResult | None = None
    error: BaseException | None = None


def _inspect_every_rank(
    found: Sequence[Attachable], places: Sequence[Place], wanted: InspectOptions, tell: Report
) -> dict[str, Any]:
    """Inspect all ranks at the same time. None goes on before all have stopped, since they may wait for each other.

    Raises:
        UserError: No rank has stopped. Otherwise errors of single ranks are part of the result.
    """
    ranks = [_Rank(one.rank or 0) for one in found[:_MOST_RANKS]]
    everyone = threading.Barrier(len(ranks))
    speaking = threading.Lock()

    def meet() -> None:
        # After the limit, missing ranks are not waited for, at the next stop either.
        with contextlib.suppress(threading.BrokenBarrierError):
            everyone.wait(wanted.timeout)

    def work(one: Attachable, rank: _Rank) -> None:
        def report_rank(kind: str, report: dict[str, Any]) -> None:
            report["rank"] = rank.number
            if kind == "stop":
                rank.told.append(report)
            elif kind == "log":
                with speaking:
                    tell(kind, report)

        try:
            rank.found = _inspect_one(one, places, wanted, report_rank, meet)
        except BaseException as error:
            rank.error = error
        finally:
            # The other ranks do not wait for this one any more.
            if rank.error is not None:
                everyone.abort()

    # Daemon threads, so that Ctrl-C ends the command. Its connections close then, and the ranks go on.
    threads = [
        threading.Thread(target=work, args=(one, rank), name=f"rank-{rank.number}", daemon=True)
        for one, rank in zip(found, ranks, strict=False)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(0.5)
    seen = [rank for rank in ranks if rank.found is not None]
    if not seen:
        raise next(rank.error for rank in ranks if rank.error is not None)
    return _compare_ranks(ranks, tell)


def _compare_ranks(ranks: Sequence[_Rank], tell: Report) -> dict[str, Any]:
    """Combine the ranks' stops, with the names whose values differ."""
    found = [(rank, rank.found) for rank in ranks if rank.found is not None]
    rows = []
    for rank, one in found:
        told = one.as_json()
        rows.append({"rank": rank.number, **told})
    stopped = [row for row in rows if row["stopped"] is not None]
    differ = []
    for kind in ("locals", "values"):
        names = dict.fromkeys(name for row in stopped for name in row[kind])
        differ += [name for name in names if len({row[kind].get(name) for row in stopped}) > 1]
    missing = [
        {"rank": rank.number, "error": rank.error.problem if isinstance(rank.error, UserError) else str(rank.error)}
        for rank in ranks
        if rank.error is not None
    ]
    result = {**found[0][1].as_json(), "by_rank": [*rows, *missing], "differ": differ}
    logged = sorted(
        (entry for row in rows for entry in row.get("logged_values", ())), key=lambda entry: str(entry["at"])
    )
    if logged:
        result["logged_values"] = logged
    tell("ranks", result)
    return result


# What holds


def _inspect_hold(watching: Watching, run: RunRecord, look: StepInspection, tell: Report) -> dict[str, Any]:
    """Inspect the exception at which a step holds, or report that it holds before its first line.

    If it does not hold, stop it where its code calls ``breakpoint()``.
    """
    wanted = look.wanted
    steps = [look.step] if look.step else [step for step in run.steps if step.debugged]
    _check_rank(run, steps, look.rank)
    if run.on_error or look.release:
        exception_hold.check_on_error(run)
        found = _wait_for_attachables(watching, run, look.step, look.rank)
        return _report_stop(
            tell,
            exception_hold.inspect_hold_of_step(
                watching, run, None, found, wanted.expressions, wanted.timeout, look.release
            ),
        )
    found = _wait_for_attachables(watching, run, look.step, look.rank)
    if found[0].state != attachable.WAITING:
        return _inspect_one(found[0], (), wanted, tell).as_json()
    script = _first_line(run, found[0])
    which = "" if found[0].rank is None else f" --rank {found[0].rank}"
    watching.console.line(
        f"{found[0].step.name} holds before its first line; nothing has run yet. To stop in it: "
        f"inv {run.kind}.inspect FILE:LINE --run {run.number}{which}"
    )
    place = {"file": script[0], "line": script[1], "function": "<module>"} if script else None
    return {"stopped": place, "stack": [place] if place else [], "locals": {}, "values": {}, "holds": True}


def _first_line(run: RunRecord, one: Attachable) -> tuple[str, int] | None:
    """The script before whose first line a step holds, and that line; None if it is not known."""
    from ..debugger.locations import first_line
    from ..runs import plan

    command = next(step.command for step in plan.load(run.folder).steps if step.name == one.step.name)
    with contextlib.suppress(ValueError):
        for word in shlex.split(command[:20_000]):
            for local, _remote in one.step.mappings:
                script = Path(local, word)
                if word.endswith(".py") and script.is_file():
                    return str(script), first_line(script)
    return None


# Steps and ranks


def _check_rank(run: RunRecord, steps: Sequence[StepRecord], rank: int | None) -> None:
    """Check that a rank is debugged in one of the steps."""
    if rank is None or any(not step.ports or rank in step.ports for step in steps):
        return
    target = steps[0]
    ranks = ", ".join(map(str, target.ports))
    raise UserError(
        f"Rank {rank} of {target.name} is not debugged in this run; debugged: {ranks}.",
        f"For this one: {rerun_command(run, target.name)} --rank {rank}",
    )


def _wait_for_attachables(
    watching: Watching, run: RunRecord, target: StepRecord | None, rank: int | None
) -> list[Attachable]:
    """Wait for ranks that can be inspected, and note which others hold."""
    name = target.name if target is not None else None
    with watching.console.step("tail-log") as shown:
        found = Watch(watching, run, name, rank).until_open(shown)
        if not found:
            raise UserError(f"No step of the run {run.run_id} has raised.", f"Submit it again: {rerun_command(run)}")
        shown.text = summary(found, watching.limit)
    one = found[0]
    others = [
        str(other.rank)
        for other in attachable.attachables_of_step(one.run, one.step)
        if other.rank != one.rank and other.state == attachable.WAITING
    ]
    if others:
        which = f"ranks {', '.join(others)} hold too" if others[1:] else f"rank {others[0]} holds too"
        watching.console.line(
            f"  note: {which}; a script that waits for {'them' if others[1:] else 'it'} goes no further"
        )
    return found


def _script_folder(run: RunRecord) -> str:
    """The folder of an experiment's script, relative to its source folder; empty for the source folder itself."""
    with contextlib.suppress(ValueError):
        words = shlex.split(run.command)
        return os.path.dirname(words[0]) if words else ""
    # Masking a secret may have left an open quote in the command.
    return ""


def _check_ended(run: RunRecord, name: str) -> None:
    """Check whether a step that the debugger could not reach has ended.

    Raises:
        UserError: It has.
    """
    deadline = time.monotonic() + ENDING_SECONDS
    while time.monotonic() < deadline:
        now = records.load(run.folder) or run
        step = now.step(name)
        if step.status == records.FAILED:
            raise step_failed(now, step)
        if step.final:
            raise UserError(f"{name} has ended: {step.status}.", f"Submit it again: {rerun_command(now, name)}")
        time.sleep(POLL_SECONDS)


def _step_of(run: RunRecord, source: Path) -> StepRecord:
    """The step whose code folder has a file; the first one that is not over, if there are several."""
    # The file may be a link, and the step's code folder may have the link or its target.
    names = (source.resolve(), source.parent.resolve() / source.name)
    matching = [
        step
        for step in run.steps
        if step.debugged
        and any(name.is_relative_to(Path(local).resolve()) for local, _remote in step.mappings for name in names)
    ]
    if not matching:
        debugged = ", ".join(step.name for step in run.steps if step.debugged) or "none"
        raise UserError(
            f"No debugged step of the run {run.run_id} has {source.name} in its code folder.",
            f"Debugged are: {debugged}. Name the step: --step NAME",
        )
    return next((step for step in matching if not step.final), matching[-1])


def _without_children(run: RunRecord, step: str) -> bool:
    """Whether child processes of a step's scripts are not debugged."""
    from ..runs import plan

    if run.in_workspace:
        return False
    planned = next((one for one in plan.load(run.folder).steps if one.name == step), None)
    return planned is not None and planned.debug is not None and not planned.debug.children
