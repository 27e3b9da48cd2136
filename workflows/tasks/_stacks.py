"""Shows the current stacks of processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke import Exit

from ..errors import UserError
from ._closed_output import INTERRUPTED
from ._values import SHOWN_CHARACTERS

if TYPE_CHECKING:
    from ..console import Console
    from ..debugger.stack_groups import Group, ProcessStacks
    from ..runs.record import RunRecord, StepRecord

#: Seconds between two reads of the stacks with `--watch`.
WATCH_SECONDS = 1.0
#: The most asyncio tasks of one process that are shown.
SHOWN_TASKS = 10
HELP = {
    "eval": "Expression to evaluate in the innermost frame of your own code, in the running program; may be repeated.",
    "watch": "Look again every second until you press Ctrl-C.",
    "all_code": "Show the frames of libraries, too.",
}


def show(
    console: Console,
    read_stacks: Callable[[], list[ProcessStacks]],
    expressions: Sequence[str],
    *,
    watch: bool,
    all_code: bool,
    notes: Sequence[str] = (),
    run_id: str = "",
) -> None:
    """Show the current stacks of processes, repeatedly with ``watch``. ``--json`` shows the last stacks.

    Args:
        console: Where to show them.
        read_stacks: Reads the stacks of the processes.
        expressions: The expressions that were evaluated in each process.
        watch: Whether to repeat every second, until Ctrl-C or until nothing runs any more.
        all_code: Whether frames of libraries are shown.
        notes: Notes about processes that cannot be read.
        run_id: The run's id; empty for a service.

    Raises:
        UserError: No stack could be read.
    """
    result: dict[str, Any] = {}
    try:
        while True:
            try:
                found = read_stacks()
            except UserError:
                if not result:
                    raise
                break  # The program has ended while it was watched.
            if watch:
                console.line(f"-- {time.strftime('%H:%M:%S')}")
            _show_groups(console, found, expressions, all_code)
            for note in notes:
                console.line(f"  note: {note}")
            if any(one.process is not None for one in found):
                result = {**({"run_id": run_id} if run_id else {}), **_as_json(found)}
            elif not result:
                why = f"No stack could be read: {found[0].trouble}."
                raise UserError(why, "See whether it still runs, and try again.")
            # While watching, a process may be exiting, or may be busy in C code for a while.
            if not watch:
                break
            time.sleep(WATCH_SECONDS)
    except KeyboardInterrupt:
        if result:
            console.result(result)
        raise Exit(code=INTERRUPTED) from None
    console.result(result)


def show_run(
    console: Console,
    refresh: Callable[[RunRecord], RunRecord],
    run: RunRecord,
    step: StepRecord | None,
    rank: int | None,
    expressions: Sequence[str],
    *,
    watch: bool,
    all_code: bool,
) -> None:
    """Show the current stacks of a run's processes; see :func:`show`.

    Args:
        console: Where to show them.
        refresh: Returns the current record of the run.
        run: The run.
        step: If given, only this step.
        rank: If given, only this rank.
        expressions: The expressions to evaluate in each process.
        watch: Whether to repeat every second.
        all_code: Whether frames of libraries are shown.

    Raises:
        UserError: No stack could be read.
    """
    from ..flows import stacks

    def read_stacks() -> list[ProcessStacks]:
        now = refresh(run)
        only = now.step(step.name) if step is not None else None
        return stacks.read_stacks(stacks.find_targets(now, only, rank), expressions)

    notes = stacks.notes_on_unreadable(run, step) if rank is None else []
    show(console, read_stacks, expressions, watch=watch, all_code=all_code, notes=notes, run_id=run.run_id)


def _show_groups(console: Console, found: list[ProcessStacks], expressions: Sequence[str], all_code: bool) -> None:
    from ..debugger.stack_groups import group_alike

    groups = group_alike(found)
    steps = {one.step for one in found}
    for number, one in enumerate(groups):
        names = [one.step] if len(steps) > 1 or not one.name else []
        console.line(f"{', '.join(filter(None, [*names, one.name]))}: {one.summary}{_state(one)}")
        _show_frames(console, one.frames, all_code)
        if len(one.members) == 1 or number == 0 or all_code:
            _show_others(console, one.members[0], all_code)
    for looked in found:
        if looked.trouble:
            name = ", ".join(filter(None, [looked.step, looked.name]))
            console.line(f"  note: {name}: {looked.trouble}")
    for expression in expressions:
        for step in dict.fromkeys(one.step for one in found):
            alike = [one for one in found if one.step == step]
            _show_values(console, alike, expression, f"{step}: " if len(steps) > 1 else "")


def _state(group: Group) -> str:
    from ..debugger.stack_groups import main_thread

    main = main_thread(group.members[0].process or {"threads": []})
    if main is not None and main["paused"]:
        return "  (stopped in a debugger)"
    held = main is not None and main["holds"] and "held for" not in group.summary
    return "  (held for a debugger)" if held else ""


def _show_frames(console: Console, frames: Sequence[dict[str, Any]], all_code: bool, indent: str = "  ") -> None:
    """Show a stack with the innermost frame first, as `inspect` does."""
    from ..paths import shown

    others = 0
    for frame in reversed(frames):
        if frame["own"] or all_code:
            console.line(f"{indent}{frame['function']:<24} {shown(Path(frame['file']))}:{frame['line']}")
        else:
            others += 1
        if frame.get("left_out"):
            console.line(f"{indent}({frame['left_out']} frames in between)")
    if others:
        console.line(f"{indent}({others} frame{'s' if others > 1 else ''} of other code)")


def _show_others(console: Console, looked: ProcessStacks, all_code: bool) -> None:
    """Show the other threads of a process, and its asyncio tasks."""
    from ..debugger.stack_groups import describe_place, main_frames

    process = looked.process
    if process is None:
        return
    main = main_frames(process)
    for thread in process["threads"]:
        if thread["frames"] is not main:
            console.line(f"  thread {thread['name']}: {describe_place(thread['frames'])}")
            if all_code:
                _show_frames(console, thread["frames"], all_code, "    ")
    for task in process["tasks"][:SHOWN_TASKS]:
        console.line(
            f"  task {task['name']}{' (running)' if task['running'] else ''}: {describe_place(task['frames'])}"
        )
    if len(process["tasks"]) > SHOWN_TASKS:
        console.line(f"  and {len(process['tasks']) - SHOWN_TASKS} more tasks; --json shows all")


def _show_values(console: Console, found: list[ProcessStacks], expression: str, before: str) -> None:
    """Show the value of an expression in each process of a step. Values that differ from the majority are marked."""
    from ..debugger.stack_groups import group_values

    groups = group_values(found, expression)
    for text, members in groups:
        # If all values differ, as process ids do, none is marked.
        differs = len(members) < len(groups[-1][1])
        names = _names(members)
        short = text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}… ({len(text)} characters)"
        who = f"  ({names})" if names else ""
        console.value(f"  {before}{expression} = {short}{who}{'  <- differs' if differs else ''}")


def _names(members: Sequence[ProcessStacks]) -> str:
    from ..debugger.stack_groups import format_ranges

    ranks = sorted(one.rank for one in members if one.rank is not None and not one.child)
    texts = [f"rank{'s' if ranks[1:] else ''} {format_ranges(ranks)}"] if ranks else []
    return ", ".join([*texts, *(one.name for one in members if one.child)])


def _as_json(found: Sequence[ProcessStacks]) -> dict[str, Any]:
    from ..debugger.stack_groups import group_alike

    groups = [
        {"step": one.step, "name": one.name, "ranks": one.ranks, "count": len(one.members), "summary": one.summary}
        for one in group_alike(found)
    ]
    return {"groups": groups, "processes": [one.as_json() for one in found]}
