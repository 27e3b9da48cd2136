"""Turns the steps of a pipeline into those of a run's plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..models import ImageRef
from ..pipelines.definition import FILE_TYPES, Input, Step
from .plan import PlannedBest, PlannedDebug, PlannedInput, PlannedStep


def plan_step(step: Step, image: ImageRef, debug: PlannedDebug | None, fetched: Mapping[str, Path]) -> PlannedStep:
    """Plan a step.

    Args:
        step: The step.
        image: What it runs in.
        debug: How it is debugged; None if it is not.
        fetched: Local files and folders of the inputs that were downloaded, by their address or asset name.
    """
    return PlannedStep(
        name=step.name,
        command=step.command,
        code=str(step.code) if step.code else None,
        image=image,
        inputs={name: _plan_input(entry, fetched) for name, entry in step.inputs.items() if entry.given},
        outputs={name: kind in FILE_TYPES for name, kind in step.outputs.items()},
        variables=step.variables,
        distribution=step.distribution,
        ranks=step.ranks,
        processes=step.processes,
        shm_size=step.shm_size,
        after=step.after,
        includes=tuple(map(str, step.includes)),
        debug=debug,
        metrics=step.kind == "trial",
        best=_plan_best(step),
        seconds=step.seconds,
    )


def _plan_best(step: Step) -> PlannedBest | None:
    if step.kind != "best" or step.sweep is None:
        return None
    return PlannedBest(step.after, step.sweep.metric, step.sweep.goal, step.sweep.at_once)


def _plan_input(entry: Input, fetched: Mapping[str, Path]) -> PlannedInput:
    if entry.url is not None:
        return PlannedInput(path=str(fetched[entry.url]))
    if entry.asset is not None:
        return PlannedInput(path=str(fetched[entry.asset]))
    path = str(entry.path) if entry.path is not None else None
    return PlannedInput(text=entry.text, path=path, step=entry.step, output=entry.output)


def fetch_inputs(steps: Sequence[Step], report: Callable[[str], None]) -> dict[str, Path]:
    """Download the inputs that have a web address; returns the local files by address.

    Raises:
        UserError: One cannot be fetched.
    """
    entries = [entry for step in steps for entry in step.inputs.values() if entry.url is not None]
    if not entries:
        return {}
    from ..pipelines.fetching import fetch_all

    return fetch_all(entries, report)
