"""A step's command as people see it before it runs: with its inputs and outputs put in."""

from __future__ import annotations

from pathlib import Path

from ..paths import shown
from .definition import Input, Step
from .expressions import Malformed, substitute, with_run

#: Stands for a run's own folder, and for its name.
RUN = "RUN"
#: Stands for an input that nobody has given.
MISSING = "MISSING"


def shown_command(step: Step, *, single: bool = False) -> str:
    """The command with paths as they are typed here; outputs lie in a folder `RUN`.

    One that cannot be put together is shown as it is written: what is wrong with it is told as an error of its own.

    Args:
        step: The step.
        single: Whether it is an experiment, whose run has no folders of steps.
    """
    values = {f"inputs.{name}": shown_input(one) for name, one in step.inputs.items() if one.given}
    values |= {f"outputs.{name}": f"{RUN}/data/{name}" if single else _output(step.name, name) for name in step.outputs}
    try:
        return substitute(step.command, values.get)
    except Malformed:
        return step.command


def shown_input(one: Input) -> str:
    """An input that is given, as it stands in the command."""
    if one.text is not None:
        return with_run(one.text, RUN, "NOW")
    if one.step is not None:
        return _output(one.step, one.output or "")
    return one.url or one.asset or (str(shown(one.path)) if one.path is not None and one.path != Path() else MISSING)


def _output(step: str, name: str) -> str:
    return f"{RUN}/steps/{step}/data/{name}"
