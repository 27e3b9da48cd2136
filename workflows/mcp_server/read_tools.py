"""The tools that only read: status, logs, stacks, snapshots."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..reading import read_bytes
from ..runs.record import RunRecord
from . import runs, tools
from .runs import DEPLOY
from .state import State
from .tools import Answer, Tool

#: Lines of a log or a file, and bytes of a log, that one call returns.
_MOST_LINES, _MOST_BYTES = 500, 256 * 1024
#: Characters of one line, and of one value.
_MOST_LINE, _MOST_VALUE = 1000, 2000
#: Frames of a snapshot's stack.
_MOST_FRAMES = 100
#: Processes whose stacks one call returns.
_MOST_PROCESSES = 64
#: Characters of all of these stacks, and variables of a snapshot's frame.
_MOST_ANSWER, _MOST_LOCALS = 100_000, 200


def read_tools(state: State) -> list[Tool]:
    """The tools that only read."""
    return [_status(state), _logs(state), _stacks(state), _snapshot(state)]


def _status(state: State) -> Tool:
    def status(run: str | None = None) -> Answer:
        if run is not None:
            return {"run": runs.run_json(state, runs.find_run(state, run))}
        found = runs.all_runs(state)
        active = [one for one in found if not one.final]
        over = [one for one in found if one.final][: max(0, runs.MOST_RUNS - len(active))]
        listed = [runs.run_json(state, one, steps=not one.final) for one in (*active, *over)]
        return {
            "project": str(state.project),
            "read_only": state.read_only,
            "service": runs.service_json(state),
            "runs": listed,
            "more_runs": len(found) - len(listed),
            "sessions": {name: one.summary() for name, one in state.sessions().items()},
            "starts": {
                name: {"command": one.typed, "state": "starting", "seconds": round(one.seconds, 1)}
                for name, one in state.commands().items()
                if one.is_at_work
            },
        }

    return Tool(
        "status",
        "What runs",
        "Read-only. What this project runs: its service, its runs with their steps, ranks and where a debugger can be "
        "let in, this server's debug sessions, and starts that are at work. With a run: that run alone, whole.",
        {"run": tools.text("A run, by number or id.")},
        status,
        reads=True,
    )


def _logs(state: State) -> Tool:
    def logs(
        story: str | None = None,
        run: str | None = None,
        step: str | None = None,
        rank: int | None = None,
        lines: int = 100,
        offset: int | None = None,
    ) -> Answer:
        if story == DEPLOY:
            return _service_log(state, lines)
        chosen = runs.find_run(state, run, story)
        one = runs.step_of(chosen, step) or _logged(chosen)
        if rank is not None and rank >= one.ranks:
            has = f"ranks 0 to {one.ranks - 1}" if one.ranks > 1 else "one process only"
            raise UserError(f"There is no rank {rank}: {one.name} has {has}.", "Choose one of these.")
        path = chosen.log(one, rank or 0)
        if not path.exists():
            raise UserError(
                f"{one.name} of the run {chosen.run_id} has no log yet: it is {one.status}.",
                "See status a little later.",
            )
        told: Answer = {"run": chosen.number, "step": one.name, "rank": rank or 0, "status": one.status}
        return {**told, "log": str(path), **_read(state, path, lines, offset)}

    return Tool(
        "logs",
        "Read a log",
        "Read-only. The last lines of a step's, an experiment's or the service's log; or, with offset, what comes "
        "after that place: each answer says in next_offset where to go on.",
        {
            "story": tools.STORY,
            "run": tools.RUN,
            "step": tools.text("The step. Default: the one that failed, runs, or ran last."),
            "rank": tools.RANK,
            "lines": tools.number("How many lines.", 1, _MOST_LINES, default=100),
            "offset": tools.number("Where to begin, in bytes. Default: so that the last lines are shown.", 0, 2**53),
        },
        logs,
        reads=True,
    )


def _logged(run: RunRecord) -> Any:
    """The step whose log is shown if none is named."""
    from ..runs import record as records

    for status in (records.FAILED, records.RUNNING):
        for step in run.steps:
            if step.status == status:
                return step
    started = [step for step in run.steps if step.started]
    return max(started, key=lambda step: step.started) if started else run.steps[0]


def _read(state: State, path: Path, lines: int, offset: int | None) -> Answer:
    from ..logs.log_tail import find_last_lines
    from ..redaction import LineScrubber
    from ..terminal import plain

    with open(path, "rb") as file:
        at = find_last_lines(file, lines) if offset is None else offset
        size = file.seek(0, 2)
        file.seek(min(at, size))
        data = file.read(_MOST_BYTES)
    taken = data.split(b"\n")
    complete, rest = taken[:-1], taken[-1]
    if rest and len(data) < _MOST_BYTES and len(complete) < lines:
        complete.append(rest)  # a line without its end: the program may be in the middle of it
    elif not complete and rest:
        complete = [rest]
    complete = complete[:lines]
    after = min(at, size) + min(len(data), sum(len(line) + 1 for line in complete))
    scrub = LineScrubber()
    shown = [state.secrets.mask_text(plain(scrub(line.decode("utf-8", "replace")))) for line in complete]
    cut = [line if len(line) <= _MOST_LINE else f"{line[:_MOST_LINE]}… ({len(line)} characters)" for line in shown]
    return {"lines": cut, "next_offset": after, "at_end": after >= size}


def _service_log(state: State, lines: int) -> Answer:
    from ..logs.log_tail import find_last_lines
    from ..redaction import LineScrubber
    from ..sessions import last_log
    from ..terminal import plain

    there = runs.present(state)
    if there.running() is not None:
        data, ended = b"".join(there.logs(False, lines)), False
    else:
        last = last_log(state.project)
        if last is None:
            raise UserError("No log of a service of this project is kept.", "Start one: start with story=deploy")
        data, ended = last[0], True
    data = data[find_last_lines(io.BytesIO(data), lines) :][-_MOST_BYTES:]
    scrub = LineScrubber()
    shown = [
        state.secrets.mask_text(plain(scrub(line)))[:_MOST_LINE]
        for line in data.decode("utf-8", "replace").splitlines()
    ]
    return {"story": DEPLOY, "lines": shown, "ended": ended}


def _stacks(state: State) -> Tool:
    def stacks(
        story: str | None = None,
        run: str | None = None,
        step: str | None = None,
        rank: int | None = None,
        expressions: Sequence[str] = (),
    ) -> Answer:
        from ..debugger.stack_groups import group_alike
        from ..flows import stacks as flow

        if state.read_only and expressions:
            raise UserError("Expressions run code, and the server was started with --read-only.", "Leave them out.")
        for one in expressions:
            if secret := state.secrets.names_secret(one):
                raise UserError(f"{one} names {secret}, whose name looks secret.", "Ask for something else.")
        if story == DEPLOY:
            targets, notes = [runs.present(state).stack_target()], []
        else:
            chosen = runs.find_run(state, run, story)
            only = runs.step_of(chosen, step)
            targets = flow.find_targets(chosen, only, rank)
            notes = flow.notes_on_unreadable(chosen, only) if rank is None else []
        found = flow.read_stacks(targets, list(expressions))
        groups = [
            {
                "step": one.step,
                "name": one.name,
                "ranks": one.ranks,
                "count": len(one.members),
                "stands_at": one.summary,
            }
            for one in group_alike(found)
        ]
        processes: list[Any] = []
        size = 0
        for looked in found[:_MOST_PROCESSES]:
            processes.append(state.secrets.mask_deep(looked.as_json()))
            size += len(json.dumps(processes[-1]))
            if size > _MOST_ANSWER:
                break
        told: Answer = {"groups": groups, "processes": processes, "notes": notes}
        return {**told, "more_processes": len(found) - len(processes)} if len(found) > len(processes) else told

    return Tool(
        "stacks",
        "Where everything stands",
        "Read-only without expressions. Where every process, rank, thread and task of a run or of the service stands "
        "now; nothing is stopped, and no session is needed. `expressions` RUN CODE in the program.",
        {
            "story": tools.STORY,
            "run": tools.RUN,
            "step": tools.text("This step alone."),
            "rank": tools.RANK,
            "expressions": tools.texts("Evaluated in each process; they run in the program."),
        },
        stacks,
        reads=state.read_only,
        needs_code=("expressions",),
    )


def _snapshot(state: State) -> Tool:
    def snapshot(
        story: str | None = None,
        run: str | None = None,
        step: str | None = None,
        rank: int | None = None,
        number: int | None = None,
        frame: int | None = None,
        expressions: Sequence[str] = (),
    ) -> Answer:
        from ..flows.snapshots import Found, snapshots_of_service
        from ..snapshots import inspection
        from ..snapshots.expression import parse

        for one in expressions:
            parse(one)
        found: Found
        if story == DEPLOY:
            found = snapshots_of_service(state.settings)
        else:
            chosen = runs.find_run(state, run, story)
            flow = runs.flow_of(state, chosen.kind)
            found = flow.snapshots(chosen, step) if chosen.kind == runs.PIPELINE else flow.snapshots(chosen)  # type: ignore[call-arg]
        if None not in (rank, number):
            raise UserError("Both number and rank say which snapshot.", "Leave out one of the two.")
        taken = found.choose(rank, number)
        shown: Answer = inspection.inspect_snapshot(taken, found.sources(taken), frame, list(expressions))
        for title in ("locals", "values"):
            first = list(shown[title].items())[:_MOST_LOCALS]
            shown[title] = {name: _cut(state.secrets.mask_value(name, str(text))) for name, text in first}
        for name in expressions:
            if state.secrets.names_secret(name):
                shown["values"][name] = state.secrets.mask_value("secret", "")
        shown["snapshots"], shown["stack"] = len(found.kept.snapshots), shown["stack"][:_MOST_FRAMES]
        return shown

    return Tool(
        "snapshot",
        "What a failure has left",
        "Read-only: what was recorded, no program is needed. The exception, the stack and the variables that a failed "
        "step, experiment or service has left. Expressions are names, attributes, items and slices of it.",
        {
            "story": tools.STORY,
            "run": tools.RUN,
            "step": tools.text("The step, where several have failed."),
            "rank": tools.RANK,
            "number": tools.number("Which of several snapshots, from 1 on.", 1),
            "frame": tools.number("Whose variables, by its place in the stack. Default: the innermost own one."),
            "expressions": tools.texts("Such as batch[0].shape."),
        },
        snapshot,
        reads=True,
    )


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_VALUE else f"{text[:_MOST_VALUE]}… ({len(text)} characters)"


def read_source(state: State, path: Path, first: int, last: int, mark: int | None) -> Answer:
    """Read lines of a Python file, with values of secret names masked.

    Args:
        state: The server's state.
        path: The file.
        first: The first line to return, counted from 1.
        last: The last line to return.
        mark: The line at which the program is stopped; None for none.

    Raises:
        UserError: It cannot be read on this machine.
    """
    try:
        lines = read_bytes(path).decode("utf-8", "replace").splitlines()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read here: {error.strerror or error}.", "Name a file of the stack."
        ) from error
    chosen = range(max(1, first), min(last, len(lines), first + _MOST_LINES - 1) + 1)
    shown = {number: state.secrets.mask_source(lines[number - 1])[:_MOST_LINE] for number in chosen}
    text = "\n".join(f"{'>' if number == mark else ' '} {number:>5}  {line}" for number, line in shown.items())
    return {"file": str(path), "first": chosen.start, "last": chosen.stop - 1, "of": len(lines), "source": text}


def read_around(state: State, file: str, line: int, lines: int = 3) -> str:
    """The lines around a line of a file; empty if the file is not on this machine."""
    try:
        return str(read_source(state, Path(file), line - lines, line + lines, line)["source"])
    except (UserError, ValueError):
        return ""


def read_line(state: State, file: str, line: int) -> str:
    """One line of a file without its indentation; empty if the file is not on this machine."""
    # Cut off the mark and the number in front of the line.
    return read_around(state, file, line, 0)[7:].strip()
