"""Selects parts of a pipeline: how many trials of its sweeps run, and which mini-batch of a parallel step."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..errors import BadValue, UserError
from .definition import Pipeline
from .parallel import is_parallel, with_one_mini_batch
from .parallel_data import check_data
from .trials import with_trials

#: The last part of a trial's name.
_TRIAL = re.compile(r"\.trial\d+$")
#: Trials of one sweep; each is a step, with a folder and perhaps a container.
MOST_TRIALS = 1000


@dataclass(frozen=True)
class Parts:
    """The parts of a pipeline that are run.

    Attributes:
        trials: How many trials of each sweep; None for one, which then is the step itself.
        mini_batch: The number of the only mini-batch to run, from 0; None for all.
        is_from_run: Whether it was typed for an earlier run, whose sweep or parallel step may not run again.
    """

    trials: int | None = None
    mini_batch: int | None = None
    is_from_run: bool = False

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags for these parts, as typed."""
        trials = () if self.trials is None else ("--trials", str(self.trials))
        return (*trials, *(() if self.mini_batch is None else ("--mini-batch", str(self.mini_batch))))

    def without_trials(self, names: Sequence[str]) -> tuple[str, ...]:
        """The names with trials replaced by their sweeps, which are the steps of the file."""
        if self.trials is None:
            return tuple(names)
        return tuple(dict.fromkeys(_TRIAL.sub("", name) for name in names))

    def select_from(self, pipeline: Pipeline, named: Sequence[str] = ()) -> Pipeline:
        """The pipeline with only these parts.

        Args:
            pipeline: The complete pipeline, or its requested steps.
            named: The requested names, including trials of sweeps.

        Raises:
            UserError: It has no sweep, no parallel step, no such trial or mini-batch, or a search space cannot be drawn
                from.
        """
        has_sweep = any(step.sweep is not None for step in pipeline.steps)
        if self.trials is not None and (has_sweep or not self.is_from_run):
            if not has_sweep:
                raise UserError("--trials needs a sweep, and no step is one.", "Remove --trials.")
            pipeline = with_trials(pipeline, self.trials, [name for name in named if _TRIAL.search(name)])
        if self.mini_batch is not None and (any(map(is_parallel, pipeline.steps)) or not self.is_from_run):
            steps = with_one_mini_batch(pipeline.steps, self.mini_batch, pipeline.asked)
            for step in steps:
                check_data(step)
            pipeline = replace(pipeline, steps=steps)
        return pipeline


def read_parts(trials: str | None, mini_batch: str | None) -> Parts:
    """Read the typed values of ``--trials`` and ``--mini-batch``.

    Raises:
        BadValue: One is not a number, or out of range.
    """
    return Parts(_number(trials, "--trials", 1, MOST_TRIALS), _number(mini_batch, "--mini-batch", 0, None))


def _number(text: str | None, flag: str, least: int, most: int | None) -> int | None:
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not least <= int(text) <= (most or int(text)):
        up_to = f" to {most}" if most else ""
        raise BadValue(f"{flag} must be a whole number from {least}{up_to}, not {text!r}.", "Correct it.")
    return int(text)
