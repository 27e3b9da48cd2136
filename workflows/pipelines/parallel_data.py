"""Checks the data of parallel steps before they are started: whether it is empty, and its number of mini-batches.

Errors that the driver of such a step would report for local files are thus reported before anything is built.
"""

from __future__ import annotations

import shlex
import tempfile
from dataclasses import dataclass
from typing import Any

from ..debuggee.azureml_parallel_run import mini_batches
from ..debuggee.azureml_parallel_run import options as command_line
from ..debuggee.azureml_parallel_run.problems import Problem
from ..errors import UserError
from ..paths import shown
from .commands import PARALLEL_DRIVER
from .definition import Input, Step
from .expressions import Malformed, expressions, substitute

#: For more mini-batches, or bytes of tables, the count is left to the driver.
_MOST_COUNTED, _MOST_BYTES = 100_000, 256 << 20


@dataclass(frozen=True)
class _ParallelData:
    """The data of a parallel step.

    Attributes:
        data: The input with the data.
        options: The driver's options.
    """

    data: Input
    options: Any

    def open_data(self, scratch: str) -> mini_batches.Input:
        """Open the data as the driver does, without its partitions.

        Raises:
            Problem: It cannot be divided into such mini-batches.
        """
        size = mini_batches.Size(self.options.mini_batch_size)
        return mini_batches.Input(str(self.data.path), self.options.input_type, size, (), 1, scratch, _ignore_note)


def _ignore_note(note: str) -> None:
    """Drop a note that the driver will print when it runs."""


def check_data(step: Step) -> None:
    """Check that a parallel step has data, and the mini-batch that is to run alone, if its data is local.

    Args:
        step: The step; steps of other kinds are not checked.

    Raises:
        UserError: It has no data or no such mini-batch, or the data cannot be divided.
    """
    cut = _find_data(step)
    if cut is None:
        return
    only = cut.options.only
    try:
        with tempfile.TemporaryDirectory() as scratch:
            found = cut.open_data(scratch)
            # Partitions are only known once all of the data has been read.
            if cut.options.keys or only > _MOST_COUNTED or (found.is_table and _bytes(cut, only) > _MOST_BYTES):
                only = 0
            number = -1
            for number, _ in enumerate(found.batches()):
                if number >= only:
                    return
    except Problem as error:
        raise _refuse(cut.data, error.problem, error.remedy) from error
    raise UserError(
        f"There is no mini-batch {only} of step `{step.name}`: its input has {number + 1}, from 0 on.",
        "Name one of these: --mini-batch N",
    )


def takes_table(step: Step) -> bool:
    """Whether `run()` of a parallel step certainly gets pandas DataFrames."""
    cut = _find_data(step)
    try:
        return cut is not None and cut.open_data("").is_table
    except Problem:
        return False


def _bytes(cut: _ParallelData, count: int) -> int:
    return (mini_batches.Size(cut.options.mini_batch_size).number or mini_batches.DEFAULT_BYTES) * max(0, count)


def _find_data(step: Step) -> _ParallelData | None:
    """Find the data of a parallel step; None if it is another kind of step, or the data is not local yet."""
    _, driver, rest = step.command.partition(f'"${PARALLEL_DRIVER}"')
    if not driver:
        return None
    values = {f"outputs.{name}": "OUTPUT" for name in step.outputs}
    for name, one in step.inputs.items():
        values[f"inputs.{name}"] = shlex.quote(str(one.path)) if one.path is not None else one.text or "INPUT"
    try:
        named = expressions(rest.partition(" --input ")[2])[0].path
        options, _ = command_line.parse(shlex.split(substitute(rest, values.get)))
    except (Malformed, ValueError, IndexError, Problem):
        return None  # reported when the command is checked, or by the driver
    data = step.inputs.get(".".join(named[1:]))
    return (
        _ParallelData(data, options) if data is not None and data.path is not None and data.path.is_absolute() else None
    )


def _refuse(data: Input, problem: str, remedy: str) -> UserError:
    file = shown(data.file) if data.file is not None else None
    return UserError(problem, remedy, file=file, line=data.line or None)
