"""What is known of a run, kept in its folder: `run.json` by whoever runs it, read by every command."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from .. import clock
from ..models import PathMapping
from ..project import read_json, write_bytes
from ..redaction import scrub
from . import plan as plans

# Azure ML's own words, and two for what only happens here.
NOT_STARTED, PREPARING, RUNNING = "NotStarted", "Preparing", "Running"
COMPLETED, FAILED, CANCELED = "Completed", "Failed", "Canceled"
#: Its runner was killed, or the machine went down.
INTERRUPTED = "Interrupted"
#: A step that another one's failure has kept from running.
SKIPPED = "Skipped"
#: The engine of a run in a workspace.
IN_WORKSPACE = "azureml"
FINAL = frozenset({COMPLETED, FAILED, CANCELED, INTERRUPTED, SKIPPED})


@dataclass
class StepRecord:
    """One step of a run.

    Attributes:
        name: The step's name.
        run_id: The child run's id.
        status: One of the words above.
        ranks: Number of processes.
        exit_code: What it ended with; minus the signal's number where one ended it.
        started: Seconds since the epoch; 0 before.
        ended: Seconds since the epoch; 0 before.
        reason: Why it is not Completed, in one line.
        ports: Debug port by rank; empty for a step that is not debugged.
        configurations: Name of the launch configuration by rank.
        mappings: Path mappings for the debugger, local and remote.
        after: Steps that it needs.
        phases: The service's words for what went on, each with the second since the epoch from which on; empty
            where it runs on this machine.
        hosts: Host by rank, where that is not this machine.
        waits_for: Why it is queued, as far as its compute tells.
        stamp: When it started, for durations; see :mod:`workflows.clock`.
        took: Seconds from its start to its end; None before.
    """

    name: str
    run_id: str
    status: str = NOT_STARTED
    ranks: int = 1
    exit_code: int | None = None
    started: float = 0.0
    ended: float = 0.0
    reason: str = ""
    ports: dict[int, int] = field(default_factory=dict)
    configurations: dict[int, str] = field(default_factory=dict)
    mappings: list[tuple[str, str]] = field(default_factory=list)
    after: list[str] = field(default_factory=list)
    phases: list[tuple[str, float]] = field(default_factory=list)
    hosts: dict[int, str] = field(default_factory=dict)
    waits_for: str = ""
    stamp: str = ""
    took: float | None = None

    @property
    def debugged(self) -> bool:
        """Whether a debugger is, or was, welcome in it."""
        return bool(self.ports)

    @property
    def ended_well(self) -> bool:
        """Whether it has done its work."""
        return self.status == COMPLETED

    @property
    def final(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status in FINAL

    @property
    def seconds(self) -> float:
        """Seconds that it has taken, so far where it still runs."""
        if not self.started:
            return 0.0
        if self.ended:
            return max(0.0, self.ended - self.started) if self.took is None else self.took
        return clock.seconds_since(self.stamp, self.started)

    def begin(self) -> None:
        """Note that it has started now."""
        self.started, self.stamp = time.time(), clock.current_moment()

    def end(self) -> None:
        """Note that it has ended now."""
        self.took, self.ended = self.seconds, max(time.time(), self.started)

    def host(self, rank: int) -> str:
        """Where a debugger finds a rank."""
        return self.hosts.get(rank, "127.0.0.1")

    def path_mappings(self) -> tuple[PathMapping, ...]:
        """Where its code lies for the debugger."""
        return tuple(PathMapping(Path(local), remote) for local, remote in self.mappings)


@dataclass
class RunRecord:
    """One run.

    Attributes:
        run_id: Unique on this machine.
        number: Counted from 1 in each project.
        kind: ``pipeline`` or ``experiment``.
        name: The pipeline's or experiment's name.
        folder: The run's folder.
        project: The project's folder.
        engine: ``docker`` or ``process``; ``azureml`` for a run in a workspace.
        file: What was submitted, an absolute path.
        options: What was typed to submit this and no other pipeline.
        command: An experiment's script with its arguments, as typed.
        created: Seconds since the epoch.
        status: One of the words above.
        ended: Seconds since the epoch; 0 before.
        reason: Why it is not Completed, in one line.
        debugged: Whether a debugger was asked for.
        on_error: Whether it is let in only when a step raises.
        steps: In the order in which they were written.
        foreign: Whether it was copied here with its project: the original goes its own way.
        trouble: Why nothing new is known of it at the moment; empty where all is well.
        stamp: When it was created, for durations; see :mod:`workflows.clock`.
        took: Seconds from then to its end; None before.
        seen: Which file it was read from or written to last; not part of what is written.
        texts: What each step was when it was written last, and its text; not part of what is written.
    """

    run_id: str
    number: int
    kind: str
    name: str
    folder: Path
    project: Path
    engine: str
    file: str = ""
    options: str = ""
    command: str = ""
    created: float = 0.0
    status: str = NOT_STARTED
    ended: float = 0.0
    reason: str = ""
    debugged: bool = False
    on_error: bool = False
    steps: list[StepRecord] = field(default_factory=list)
    foreign: bool = False
    trouble: str = ""
    stamp: str = ""
    took: float | None = None
    seen: tuple[int, int] = field(default=(0, 0), repr=False, compare=False)
    texts: list[tuple[dict[str, Any], str]] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def final(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status in FINAL

    def step(self, name: str) -> StepRecord:
        """The step of that name.

        Raises:
            KeyError: There is none.
        """
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(name)

    @property
    def in_workspace(self) -> bool:
        """Whether it runs in an Azure ML workspace; here is only what is known of it."""
        return self.engine == IN_WORKSPACE

    @property
    def single(self) -> bool:
        """Whether it is one script's run, whose things lie in the run's own folder."""
        return self.kind == "experiment"

    def step_folder(self, name: str) -> Path:
        """A step's own folder: ``azureml-logs``, ``outputs``, ``logs`` are in it."""
        return self.folder if self.single else self.folder / "steps" / name

    def log(self, step: StepRecord, rank: int | None = None) -> Path:
        """A step's driver log, as Azure lays them out."""
        name = "70_driver_log.txt" if step.ranks == 1 or rank is None else f"70_driver_log_{rank}.txt"
        return self.step_folder(step.name) / "azureml-logs" / name

    def logs(self, step: StepRecord) -> Iterator[tuple[int | None, Path]]:
        """Every driver log of a step with its rank; None where it is one process."""
        for rank in range(step.ranks):
            yield (rank if step.ranks > 1 else None), self.log(step, rank)

    def build_log(self, step: StepRecord) -> Path:
        """The log of a step's image being built, which is in a workspace only."""
        return self.step_folder(step.name) / "azureml-logs" / "20_image_build_log.txt"

    def events(self, step: StepRecord) -> Path:
        """The file in which a step's debuggee announces what happens."""
        return self.step_folder(step.name) / "announce" / "events.jsonl"

    @property
    def metrics(self) -> Path:
        """Where what an experiment's script has logged is kept."""
        return self.folder / "announce" / "metrics.jsonl"

    @property
    def seconds(self) -> float:
        """Seconds from its start to its end, or until now."""
        if self.ended:
            return max(0.0, self.ended - self.created) if self.took is None else self.took
        return clock.seconds_since(self.stamp, self.created)

    def end(self) -> None:
        """Note that it has ended now."""
        self.took, self.ended = self.seconds, max(time.time(), self.created)

    def as_json(self) -> dict[str, Any]:
        """What ``--json`` shows of it."""
        return {
            "run_id": self.run_id,
            "number": self.number,
            "name": self.name,
            "status": self.status,
            "reason": self.reason,
            "engine": self.engine,
            "command": self.command,
            "created": self.created,
            "ended": self.ended or None,
            "seconds": round(self.seconds, 3),
            "debugged": self.debugged,
            "folder": str(self.folder),
            "steps": [
                {
                    "name": step.name,
                    "run_id": step.run_id,
                    "status": step.status,
                    "reason": step.reason,
                    "exit_code": step.exit_code,
                    "seconds": round(step.seconds, 3),
                    "debugged": step.debugged,
                    "phases": [{"phase": word, "since": since} for word, since in step.phases],
                    "log": str(self.log(step, 0)),
                    "outputs": str(self.step_folder(step.name) / "outputs"),
                }
                for step in self.steps
            ],
        }


def save(record: RunRecord) -> None:
    """Write a run's record; readers see the old one or the new one.

    It is written at each change of a step, so the text of a step is only made where that step has changed.
    """
    own = [one.name for one in fields(record) if one.name not in ("folder", "project", "steps", "seen", "texts")]
    values = {name: getattr(record, name) for name in own}
    values["folder"], values["project"] = str(record.folder), str(record.project)
    # Texts that are shown and nothing more. What is to be done is in the plan.
    values |= {name: scrub(values[name]) for name in ("command", "options", "reason", "trouble")}
    del record.texts[len(record.steps) :]
    for place, step in enumerate(record.steps):
        if place == len(record.texts):
            record.texts.append(_written(step))
        elif record.texts[place][0] != vars(step) or step.reason or step.waits_for:
            # A secret in its reason may have become known since.
            record.texts[place] = _written(step)
    head = json.dumps(values, indent=1).removesuffix("\n}")
    listed = ",\n  ".join(text for _was, text in record.texts)
    text = f'{head},\n "steps": [\n  {listed}\n ]\n}}'
    write_bytes(record.folder / "run.json", text.encode(), private=True)
    record.seen = _identity(record.folder)


def _written(step: StepRecord) -> tuple[dict[str, Any], str]:
    """What a step is now, and its text."""
    now = {name: copy(value) for name, value in vars(step).items()}
    return now, json.dumps({**now, **{name: scrub(now[name]) for name in ("reason", "waits_for")}})


def load(folder: Path) -> RunRecord | None:
    """Read a run's record; None where there is none, or one that cannot be read."""
    seen = _identity(folder)
    values = read_json(folder / "run.json")
    if values is None:
        return None
    try:
        steps = [_step(entry) for entry in values.pop("steps")]
        # The project may have been copied or moved since: what counts is where the record lies.
        before, now = Path(values["project"]), folder.parents[2]
        if before != now:
            values["foreign"] = (before / folder.relative_to(now) / "run.json").exists()
            for step in steps:
                step.mappings = [(_rebased(local, before, now), remote) for local, remote in step.mappings]
        values |= {"folder": folder, "project": now, "seen": seen}
        run = RunRecord(**values, steps=steps)
    except (KeyError, TypeError, ValueError):
        return None
    if not run.final and folder not in _kept:
        # Whoever shows something of it knows its secrets from then on, also when they are gone from the plan.
        _kept.add(folder)
        plans.keep_secrets(folder)
    return run


#: Folders of runs whose secrets this process knows.
_kept: set[Path] = set()


def renewed(run: RunRecord, step: StepRecord) -> tuple[RunRecord, StepRecord]:
    """A run and its step as they are by now, where the record has been written since it was read.

    What a step announces is written after the record that says where it can be reached. Whoever has read the
    announcement therefore has to have a record that was read later.
    """
    if run.seen in ((0, 0), _identity(run.folder)):
        return run, step
    fresh = load(run.folder)
    return (run, step) if fresh is None else (fresh, fresh.step(step.name))


def _identity(folder: Path) -> tuple[int, int]:
    """Tells one writing of a record from the next; zeros where there is none."""
    try:
        found = os.stat(folder / "run.json")
    except OSError:
        return 0, 0
    return found.st_ino, found.st_mtime_ns


def _rebased(path: str, before: Path, now: Path) -> str:
    try:
        return str(now / Path(path).relative_to(before))
    except ValueError:
        return path


def _step(values: Mapping[str, Any]) -> StepRecord:
    found = dict(values)
    for name in ("ports", "configurations", "hosts"):
        found[name] = {int(rank): value for rank, value in found.get(name, {}).items()}
    found["phases"] = [(word, since) for word, since in found.get("phases", [])]
    found["mappings"] = [(local, remote) for local, remote in found["mappings"]]
    return StepRecord(**found)
