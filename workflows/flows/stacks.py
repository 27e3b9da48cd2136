"""Reads the current stacks of the processes of a run or a service."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from ..debugger import py_spy, stacks
from ..debugger.stack_groups import ProcessStacks, innermost_own, main_frames
from ..errors import UserError
from ..models import DebugEndpoint
from ..runs import attachable
from ..runs.attachable import Attachable
from ..runs.record import RUNNING, RunRecord, StepRecord
from .run_failures import rerun_command

#: How many processes are read at the same time.
AT_ONCE = 128
#: Modules of multiprocessing that run as processes of their own.
_PYTHONS_OWN = ("resource_tracker.py", "forkserver.py")


@dataclass(frozen=True)
class Target:
    """One process whose stacks can be read.

    Attributes:
        step: Its step; an experiment's or service's name.
        rank: Its rank; None if the step is one process.
        endpoint: Its debug port.
        pid: Its process id if py-spy on this machine can read it; otherwise 0.
    """

    step: str
    rank: int | None
    endpoint: DebugEndpoint
    pid: int = 0


def find_targets(run: RunRecord, step: StepRecord | None, rank: int | None) -> list[Target]:
    """Find the processes of a run whose stacks can be read.

    Args:
        run: The run.
        step: Only this step.
        rank: Only this rank.

    Raises:
        UserError: There is none.
    """
    steps = [step] if step is not None else run.steps
    running = [one for one in steps if one.status == RUNNING]
    if not running:
        which = f"{step.name} is not running: {step.status}" if step is not None else f"it is over: {run.status}"
        if not run.final and step is None:
            which = "no step of it is running"
        raise UserError(
            f"There are no stacks of the run {run.run_id}: {which}.", f"Submit it again: {rerun_command(run)}"
        )
    found = [one for some in running for one in attachable.attachables_of_step(run, some) if one.is_open]
    chosen = [one for one in found if rank is None or (one.rank or 0) == rank]
    if found and not chosen:
        ranks = ", ".join(str(one.rank or 0) for one in found)
        raise UserError(
            f"Rank {rank} has no debug port; these have one: {ranks}.", f"For all: {rerun_command(run)} --rank all"
        )
    if not chosen:
        names = ", ".join(one.name for one in running)
        batch = run.options.startswith("--deployment ")
        raise UserError(
            f"{names} {'runs' if len(running) == 1 else 'run'} without a debug port, and stacks are read through it.",
            f"Start it again with one: {rerun_command(run)}{'' if batch else ' --no-wait'}",
        )
    return [Target(one.step.name, one.rank, one.endpoint, _pid(one)) for one in chosen]


def _pid(one: Attachable) -> int:
    # The id of a process in a container or on a node means another process here.
    return one.pid if one.run.engine == "process" else 0


def notes_on_unreadable(run: RunRecord, step: StepRecord | None) -> list[str]:
    """Notes on running processes whose stacks cannot be read."""
    told = []
    for one in [step] if step is not None else run.steps:
        ports = len(one.ports)
        if one.status == RUNNING and not ports:
            told.append(f"{one.name} runs without a debug port")
        elif one.status == RUNNING and one.ranks > ports:
            told.append(f"{one.ranks - ports} of {one.ranks} ranks of {one.name} have no debug port; with: --rank all")
    return told


def read_stacks(chosen: Sequence[Target], expressions: Sequence[str]) -> list[ProcessStacks]:
    """Read the stacks of processes, at the same time.

    Args:
        chosen: The processes.
        expressions: Expressions to evaluate in each.

    Raises:
        BadValue: An expression cannot be evaluated.
    """
    stacks.check_expressions(expressions)
    with ThreadPoolExecutor(min(AT_ONCE, max(1, len(chosen)))) as pool:
        asked: Callable[[Target], list[ProcessStacks]] = lambda one: _read_process(one, expressions)  # noqa: E731
        return [looked for some in pool.map(asked, chosen) for looked in some]


def _read_process(target: Target, expressions: Sequence[str]) -> list[ProcessStacks]:
    try:
        answer = stacks.request_stacks(target.endpoint, expressions)
    except stacks.Silent as silent:
        return [_read_with_py_spy(target, str(silent))]
    except stacks.NoAnswer as error:
        return [ProcessStacks(target.step, target.rank, None, trouble=str(error))]
    found = [
        ProcessStacks(target.step, target.rank, process, child=number > 0)
        for number, process in enumerate(answer["processes"])
        if number == 0 or not _is_pythons_own(process)
    ]
    for pid in answer.get("silent", ()):
        trouble = f"child process {pid} did not answer: C code holds its interpreter"
        found.append(ProcessStacks(target.step, target.rank, None, child=True, trouble=trouble))
    return found


def _is_pythons_own(process: dict[str, Any]) -> bool:
    """Whether a child process only runs a part of multiprocessing itself."""
    frames = main_frames(process)
    return innermost_own(frames) is None and any(
        "multiprocessing" in PurePath(frame["file"]).parts[-2:] and PurePath(frame["file"]).name in _PYTHONS_OWN
        for frame in frames
    )


def _read_with_py_spy(target: Target, why: str) -> ProcessStacks:
    """Read a process whose interpreter does not answer with py-spy."""
    if not target.pid:
        return ProcessStacks(target.step, target.rank, None, trouble=f"{why}, and py-spy cannot look at it from here")
    code = [str(mapping.local_root) for mapping in target.endpoint.path_mappings]
    try:
        process: dict[str, Any] = py_spy.read_stacks(target.pid, code)
    except py_spy.PySpyError as error:
        return ProcessStacks(target.step, target.rank, None, trouble=f"{why}, and {error}")
    return ProcessStacks(target.step, target.rank, process, trouble=f"{why}; this is what py-spy sees")
