"""The record of a run: `run.json` in its folder, written by the process that runs it and read by every command."""

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

# The names of Azure ML's states, and two that exist only here.
NOT_STARTED, PREPARING, RUNNING = "NotStarted", "Preparing", "Running"
COMPLETED, FAILED, CANCELED = "Completed", "Failed", "Canceled"
#: The run's runner was killed, or the machine went down.
INTERRUPTED = "Interrupted"
#: A step that did not run because another one failed.
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
        status: One of the states above.
        ranks: Number of processes.
        exit_code: Its exit code; minus the signal's number if a signal ended it.
        started: Seconds since the epoch; 0 before.
        ended: Seconds since the epoch; 0 before.
        reason: Why it is not Completed, in one line.
        ports: Debug port by rank; empty for a step that is not debugged.
        configurations: Name of the launch configuration by rank.
        mappings: Path mappings for the debugger, local and remote.
        after: Steps that it needs.
        phases: The service's names for the phases of the step, each with the second since the epoch at which it
            began; empty for a step that runs on this machine.
        hosts: Host by rank, where that is not this machine.
        waits_for: Why it is queued, if its compute target reports that.
        stamp: When it started, for durations; see :mod:`workflows.clock`.
        took: Seconds from its start to its end; None before it has ended.
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
        """Whether it accepts, or accepted, a debugger."""
        return bool(self.ports)

    @property
    def ended_well(self) -> bool:
        """Whether it has completed."""
        return self.status == COMPLETED

    @property
    def final(self) -> bool:
        """Whether its status is final."""
        return self.status in FINAL

    @property
    def seconds(self) -> float:
        """How long it has taken, or has been running, in seconds."""
        if not self.started:
            return 0.0
        if self.ended:
            return max(0.0, self.ended - self.started) if self.took is None else self.took
        return clock.seconds_since(self.stamp, self.started)

    def begin(self) -> None:
        """Record that it starts now."""
        self.started, self.stamp = time.time(), clock.current_moment()

    def end(self) -> None:
        """Record that it ends now."""
        self.took, self.ended = self.seconds, max(time.time(), self.started)

    def host(self, rank: int) -> str:
        """The host at which a debugger attaches to a rank."""
        return self.hosts.get(rank, "127.0.0.1")

    def path_mappings(self) -> tuple[PathMapping, ...]:
        """The debugger's path mappings for its code."""
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
        options: The typed options that chose what was submitted, such as inputs and steps.
        command: An experiment's script with its arguments, as typed.
        created: Seconds since the epoch.
        status: One of the states above.
        ended: Seconds since the epoch; 0 before.
        reason: Why it is not Completed, in one line.
        debugged: Whether it was submitted to be debugged.
        on_error: Whether a debugger is accepted only when a step raises.
        steps: In the order of the definition.
        foreign: Whether it was copied here with its project, while the original still exists.
        trouble: Why its state cannot be updated at the moment; empty if it can.
        stamp: When it was created, for durations; see :mod:`workflows.clock`.
        took: Seconds from its creation to its end; None before it has ended.
        file_identity: Inode and time of the file that it was last read from or written to; not written itself.
        step_texts: The values and the JSON text of each step as last written; not written itself.
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
    file_identity: tuple[int, int] = field(default=(0, 0), repr=False, compare=False)
    step_texts: list[tuple[dict[str, Any], str]] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def final(self) -> bool:
        """Whether its status is final."""
        return self.status in FINAL

    def step(self, name: str) -> StepRecord:
        """The step with a name.

        Raises:
            KeyError: There is none.
        """
        for step in self.steps:
            if step.name == name:
                return step
        raise KeyError(name)

    @property
    def in_workspace(self) -> bool:
        """Whether it runs in an Azure ML workspace; its folder here only has what was fetched."""
        return self.engine == IN_WORKSPACE

    @property
    def single(self) -> bool:
        """Whether it is a single script's run, whose files lie directly in the run's folder."""
        return self.kind == "experiment"

    def step_folder(self, name: str) -> Path:
        """A step's own folder: ``azureml-logs``, ``outputs``, ``logs`` are in it."""
        return self.folder if self.single else self.folder / "steps" / name

    def log(self, step: StepRecord, rank: int | None = None) -> Path:
        """The path of a step's driver log, in Azure's layout."""
        name = "70_driver_log.txt" if step.ranks == 1 or rank is None else f"70_driver_log_{rank}.txt"
        return self.step_folder(step.name) / "azureml-logs" / name

    def logs(self, step: StepRecord) -> Iterator[tuple[int | None, Path]]:
        """Every driver log of a step with its rank; the rank is None for a step of one process."""
        for rank in range(step.ranks):
            yield (rank if step.ranks > 1 else None), self.log(step, rank)

    def build_log(self, step: StepRecord) -> Path:
        """The log of the build of a step's image, which exists only for runs in a workspace."""
        return self.step_folder(step.name) / "azureml-logs" / "20_image_build_log.txt"

    def events(self, step: StepRecord) -> Path:
        """The file to which a step's debuggee writes its events."""
        return self.step_folder(step.name) / "announce" / "events.jsonl"

    @property
    def metrics(self) -> Path:
        """The file with the metrics that an experiment's script has logged."""
        return self.folder / "announce" / "metrics.jsonl"

    @property
    def seconds(self) -> float:
        """Seconds from its creation to its end, or until now."""
        if self.ended:
            return max(0.0, self.ended - self.created) if self.took is None else self.took
        return clock.seconds_since(self.stamp, self.created)

    def end(self) -> None:
        """Record that it ends now."""
        self.took, self.ended = self.seconds, max(time.time(), self.created)

    def as_json(self) -> dict[str, Any]:
        """The object that ``--json`` shows."""
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
                    "phases": [{"phase": phase, "since": since} for phase, since in step.phases],
                    "log": str(self.log(step, 0)),
                    "outputs": str(self.step_folder(step.name) / "outputs"),
                }
                for step in self.steps
            ],
        }


def save(record: RunRecord) -> None:
    """Write a run's record atomically.

    It is written at each change of a step, so only the steps that have changed are serialized again.
    """
    left_out = ("folder", "project", "steps", "file_identity", "step_texts")
    own = [one.name for one in fields(record) if one.name not in left_out]
    values = {name: getattr(record, name) for name in own}
    values["folder"], values["project"] = str(record.folder), str(record.project)
    # These texts are only shown. The plan has the commands that are run.
    values |= {name: scrub(values[name]) for name in ("command", "options", "reason", "trouble")}
    del record.step_texts[len(record.steps) :]
    for place, step in enumerate(record.steps):
        if place == len(record.step_texts):
            record.step_texts.append(_serialize(step))
        elif record.step_texts[place][0] != vars(step) or step.reason or step.waits_for:
            # A secret in its reason may have become known since it was written.
            record.step_texts[place] = _serialize(step)
    head = json.dumps(values, indent=1).removesuffix("\n}")
    listed = ",\n  ".join(text for _values, text in record.step_texts)
    text = f'{head},\n "steps": [\n  {listed}\n ]\n}}'
    write_bytes(record.folder / "run.json", text.encode(), private=True)
    record.file_identity = _identity(record.folder)


def _serialize(step: StepRecord) -> tuple[dict[str, Any], str]:
    """A step's values and their JSON text."""
    now = {name: copy(value) for name, value in vars(step).items()}
    return now, json.dumps({**now, **{name: scrub(now[name]) for name in ("reason", "waits_for")}})


def load(folder: Path) -> RunRecord | None:
    """Read a run's record; None if it does not exist or cannot be read."""
    file_identity = _identity(folder)
    values = read_json(folder / "run.json")
    if values is None:
        return None
    try:
        steps = [_step(entry) for entry in values.pop("steps")]
        # The project may have been copied or moved since. The place of the record counts.
        before, now = Path(values["project"]), folder.parents[2]
        if before != now:
            values["foreign"] = (before / folder.relative_to(now) / "run.json").exists()
            for step in steps:
                step.mappings = [(_rebase(local, before, now), remote) for local, remote in step.mappings]
        values |= {"folder": folder, "project": now, "file_identity": file_identity}
        run = RunRecord(**values, steps=steps)
    except (KeyError, TypeError, ValueError):
        return None
    if not run.final and folder not in _kept:
        # From now on this process can mask the run's secrets, also after they were removed from the plan.
        _kept.add(folder)
        plans.keep_secrets(folder)
    return run


#: Folders of runs whose secrets this process knows.
_kept: set[Path] = set()


def reread_if_changed(run: RunRecord, step: StepRecord) -> tuple[RunRecord, StepRecord]:
    """A run and its step, read again if the record has been written since it was read.

    A step's events are written after the record with its ports. A caller that has read an event therefore needs a
    record that was read after it.
    """
    if run.file_identity in ((0, 0), _identity(run.folder)):
        return run, step
    fresh = load(run.folder)
    return (run, step) if fresh is None else (fresh, fresh.step(step.name))


def _identity(folder: Path) -> tuple[int, int]:
    """The inode and time of a record's file, which change with each write; zeros if there is no file."""
    try:
        found = os.stat(folder / "run.json")
    except OSError:
        return 0, 0
    return found.st_ino, found.st_mtime_ns


def _rebase(path: str, before: Path, now: Path) -> str:
    try:
        return str(now / Path(path).relative_to(before))
    except ValueError:
        return path


def _step(values: Mapping[str, Any]) -> StepRecord:
    found = dict(values)
    for name in ("ports", "configurations", "hosts"):
        found[name] = {int(rank): value for rank, value in found.get(name, {}).items()}
    found["phases"] = [(phase, since) for phase, since in found.get("phases", [])]
    found["mappings"] = [(local, remote) for local, remote in found["mappings"]]
    return StepRecord(**found)
