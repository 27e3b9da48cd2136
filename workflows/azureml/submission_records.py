"""What both SDKs' submissions share: plans, step records, and the error for a missing compute target."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ..backends.base import DebugRequest
from ..errors import UserError
from ..models import ImageRef
from ..paths import shown
from ..pipelines.definition import FILE_TYPES, Input, Pipeline
from ..redaction import MASK, is_secret_input
from ..runs.debug_ports import Allotted, configuration_names
from ..runs.plan import Plan, PlannedInput, PlannedStep
from ..runs.record import IN_WORKSPACE, StepRecord
from ..settings import Settings
from .step_debug import planned_debug

_UNKNOWN_ENVIRONMENT = "in the workspace"


def make_plan(
    pipeline: Pipeline,
    allotted: Allotted,
    debug: DebugRequest | None,
    settings: Settings,
    environments: Mapping[str, str] | None = None,
) -> Plan:
    """The plan of a submitted pipeline, which other commands read from the run's folder.

    Args:
        pipeline: The pipeline.
        allotted: Debug ports on this machine by step and rank.
        debug: What is debugged.
        settings: The settings.
        environments: Names of the steps' environments, where they are known.
    """
    return Plan(
        tuple(
            PlannedStep(
                name=step.name,
                command=step.command,
                code=str(step.code) if step.code else None,
                image=ImageRef(IN_WORKSPACE, "", (environments or {}).get(step.name, _UNKNOWN_ENVIRONMENT)),
                ranks=step.ranks,
                processes=step.processes,
                inputs={name: _planned_input(name, entry) for name, entry in step.inputs.items() if entry.given},
                outputs={name: kind in FILE_TYPES for name, kind in step.outputs.items()},
                after=step.after,
                includes=tuple(map(str, step.includes)),
                debug=planned_debug(allotted.get(step.name), debug, settings),
            )
            for step in pipeline.steps
        ),
        pipeline.outputs,
        pipeline.continue_on_failure,
    )


def _planned_input(name: str, entry: Input) -> PlannedInput:
    """An input for the plan, with a secret masked: the run is not executed here, so its value is not needed."""
    text = entry.text
    if text is not None and is_secret_input(name, text):
        text = MASK
    path = str(entry.path) if entry.path is not None else entry.asset or entry.url
    return PlannedInput(text, path, entry.step, entry.output)


def make_step_records(
    pipeline: Pipeline,
    allotted: Allotted,
    debug: DebugRequest | None,
    names: Callable[[str, int], str] | None = None,
) -> list[StepRecord]:
    """The initial records of the steps.

    Args:
        pipeline: The pipeline.
        allotted: Debug ports on this machine by step and rank.
        debug: What is debugged.
        names: The name of the launch configuration for a step and a rank; by default a pipeline's.
    """
    names = names or configuration_names(pipeline, allotted, debug)
    return [
        StepRecord(
            name=step.name,
            run_id="",
            ranks=step.ranks,
            ports=dict(ports),
            configurations={rank: names(step.name, rank) for rank in ports},
            after=list(step.after),
        )
        for step in pipeline.steps
        for ports in [allotted.get(step.name, {})]
    ]


def compute_not_found(
    name: str, available: Iterable[str], step: str = "", file: Path | None = None, line: int = 0
) -> UserError:
    """The error for a compute target that a workspace does not have.

    Args:
        name: The missing compute target.
        available: The workspace's compute targets.
        step: The step that is to run on it, where that is known.
        file: The file that names it.
        line: Where in that file, counted from 1.
    """
    names = ", ".join(available)
    return UserError(
        f"There is no compute target {name}{f', which step {step} is to run on' if step else ''}.",
        f"Choose one of these with AML_COMPUTE_TARGET or --compute-target: {names}."
        if names
        else "Create one in the studio (Compute, Compute clusters), then name it in AML_COMPUTE_TARGET.",
        file=shown(file) if file is not None else None,
        line=line or None,
    )
