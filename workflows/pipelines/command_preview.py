"""A preview of a step's command before it runs, with its inputs and outputs filled in."""

from __future__ import annotations

from pathlib import Path

from ..paths import shown
from .definition import Input, Step
from .expressions import Malformed, fill_in_run, substitute

#: Stands for a run's own folder, and for its name.
RUN = "RUN"
#: Stands for an input that has no value.
MISSING = "MISSING"


def shown_command(step: Step, *, single: bool = False) -> str:
    """The command with paths relative to the current folder; outputs are in a folder `RUN`.

    A command with errors is returned as it is written; the errors are reported elsewhere.

    Args:
        step: The step.
        single: Whether it is an experiment, whose run has no folders for steps.
    """
    values = {f"inputs.{name}": shown_input(one) for name, one in step.inputs.items() if one.given}
    values |= {f"outputs.{name}": f"{RUN}/data/{name}" if single else _output(step.name, name) for name in step.outputs}
    try:
        return substitute(step.command, values.get)
    except Malformed:
        return step.command


def shown_input(one: Input) -> str:
    """An input that has a value, as it appears in the command."""
    if one.text is not None:
        return fill_in_run(one.text, RUN, "NOW")
    if one.step is not None:
        return _output(one.step, one.output or "")
    return one.url or one.asset or (str(shown(one.path)) if one.path is not None and one.path != Path() else MISSING)


def _output(step: str, name: str) -> str:
    return f"{RUN}/steps/{step}/data/{name}"
