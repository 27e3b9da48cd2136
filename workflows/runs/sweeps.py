"""Chooses the best trial of a sweep, whose outputs become those of the sweep."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

from ..private import make_folder
from .plan import PlannedBest
from .record import RunRecord, StepRecord

#: Bytes at the end of a trial's metrics file that are searched for its last value.
_TAIL_BYTES = 1 << 20
#: The folders that a sweep has of its best trial.
_FOLDERS = ("data", "outputs", "logs")


def take_best_trial(run: RunRecord, step: StepRecord, best: PlannedBest) -> str:
    """Make the best trial's outputs those of the sweep.

    Args:
        run: The run, in which at least one of the trials has completed.
        step: The sweep's own step.
        best: How the trials are compared.

    Returns:
        A line for the sweep's log.

    Raises:
        OSError: The links cannot be made.
    """
    done = [name for name in best.trials if run.step(name).ended_well]
    scores = {name: score for name in done if (score := _read_score(run, run.step(name), best.metric)) is not None}
    if scores:
        sign = -1 if best.goal == "minimize" else 1
        chosen = max(scores, key=lambda name: sign * scores[name])
        text = f"{chosen} is the best of {len(done)}: {best.metric} {scores[chosen]:g}"
    else:
        chosen = done[0]
        text = f"{chosen} is taken: none of {len(done)} has logged `{best.metric}`"
    folder = run.step_folder(step.name)
    make_folder(folder)
    for name in _FOLDERS:
        target = run.step_folder(chosen) / name
        if target.exists():
            with contextlib.suppress(FileExistsError):
                # Relative: the project may be moved.
                (folder / name).symlink_to(Path("..", chosen, name))
    return text


def _read_score(run: RunRecord, step: StepRecord, metric: str) -> float | None:
    """The last value of a metric that a trial has logged with azureml-core or mlflow; None if it is not a number."""
    from ..experiments import mlflow_reader
    from ..experiments.metrics import read_logged

    logged = read_logged(run.events(step).with_name("metrics.jsonl"), _TAIL_BYTES).last()
    tracked = mlflow_reader.read_run(run.step_folder(step.name), step.run_id, last=True).last()
    value = logged.get(metric, tracked.get(metric))
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        return None
    return float(value)
