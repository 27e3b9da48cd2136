"""The outputs of the steps of a run on this machine, for another run that uses them as inputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError
from ..paths import shown
from . import plan as plans
from .record import RunRecord


def outputs_of(run: RunRecord, steps: Sequence[str]) -> dict[str, str]:
    """The paths of steps' outputs, by ``STEP.OUTPUT``.

    Raises:
        UserError: An output or the run's plan is gone.
    """
    planned = {step.name: step for step in plan_of(run).steps}
    return {
        f"{step}.{name}": str(_place(run, step, name, is_file))
        for step in steps
        for name, is_file in planned[step].outputs.items()
    }


def plan_of(run: RunRecord) -> plans.Plan:
    """The plan of a run that is over.

    Raises:
        UserError: It is gone.
    """
    try:
        return plans.load(run.folder)
    except ValueError as error:
        raise UserError(f"The run {run.run_id} has lost its plan.", "Take another run: inv pipeline.list") from error


def _place(run: RunRecord, step: str, name: str, is_file: bool) -> Path:
    folder = run.step_folder(step) / "data" / name
    place = folder / name if is_file else folder
    if not place.exists():
        raise UserError(
            f"The output {name} of {step} of the run {run.run_id} is gone: {shown(place)}.",
            f"Have {step} run again (--step {step}), or give it: --input {step}.{name}=PATH",
        )
    return place
