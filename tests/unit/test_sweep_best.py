"""Which trial of a sweep is the best, and what becomes of its outputs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from workflows.engines.mlflow_store import prepare_store
from workflows.engines.steps import StepSpec, Tracking
from workflows.models import ImageRef
from workflows.runs import sweeps
from workflows.runs.plan import PlannedBest
from workflows.runs.record import COMPLETED, FAILED, RunRecord, StepRecord


def run_of(folder: Path, trials: dict[str, tuple[str, list[object]]]) -> RunRecord:
    """A run with trials: each one's status, and the values that it has logged of `loss`."""
    steps = [StepRecord(name, name, status) for name, (status, _) in trials.items()]
    run = RunRecord("r", 1, "pipeline", "p", folder, folder, "process", steps=[*steps, StepRecord("tune", "tune")])
    for step in steps:
        data = run.step_folder(step.name) / "data" / "model"
        data.mkdir(parents=True)
        (data / "name").write_text(step.name)
        metrics = run.events(step).with_name("metrics.jsonl")
        metrics.parent.mkdir()
        lines = [
            {"event": "metric", "kind": "scalar", "name": "loss", "value": value} for value in trials[step.name][1]
        ]
        metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def chosen(run: RunRecord, goal: str) -> tuple[str, str]:
    """What is said, and whose output is the sweep's."""
    best = PlannedBest(tuple(step.name for step in run.steps[:-1]), "loss", goal)
    told = sweeps.take_best_trial(run, run.step("tune"), best)
    return told, (run.step_folder("tune") / "data" / "model" / "name").read_text()


@pytest.mark.parametrize(("goal", "name", "value"), [("minimize", "b", "1"), ("maximize", "a", "3")])
def test_the_last_value_of_the_primary_metric_decides(tmp_path: Path, goal: str, name: str, value: str) -> None:
    run = run_of(tmp_path, {"a": (COMPLETED, [9, 3]), "b": (COMPLETED, [8.0, 1.0]), "c": (COMPLETED, [2])})
    assert chosen(run, goal) == (f"{name} is the best of 3: loss {value}", name)


def test_a_trial_that_failed_or_logged_no_number_does_not_count(tmp_path: Path) -> None:
    run = run_of(
        tmp_path,
        {"a": (FAILED, [0]), "b": (COMPLETED, ["text"]), "c": (COMPLETED, [float("nan")]), "d": (COMPLETED, [5])},
    )
    assert chosen(run, "minimize") == ("d is the best of 3: loss 5", "d")


def test_without_a_number_the_first_that_has_done_its_work_is_taken(tmp_path: Path) -> None:
    run = run_of(tmp_path, {"a": (FAILED, [1]), "b": (COMPLETED, []), "c": (COMPLETED, [])})
    assert chosen(run, "maximize") == ("b is taken: none of 2 has logged `loss`", "b")


def test_it_can_be_done_again_after_the_runner_was_killed(tmp_path: Path) -> None:
    run = run_of(tmp_path, {"a": (COMPLETED, [1])})
    assert chosen(run, "minimize") == chosen(run, "minimize")
    assert not (tmp_path / "steps" / "tune" / "data").readlink().is_absolute()


def test_what_mlflow_has_logged_counts_as_well(tmp_path: Path) -> None:
    run = run_of(tmp_path, {"a": (COMPLETED, []), "b": (COMPLETED, [])})
    for step, values in zip(run.steps, ([0.5, 0.25], [0.125, 0.375]), strict=False):
        spec = StepSpec(
            "r", step.name, tmp_path, run.step_folder(step.name), ImageRef("process", "digest", "name"), None
        )
        prepare_store(replace(spec, tracking=Tracking("p", step.run_id)), {}, "/seen")
        (store,) = run.step_folder(step.name).glob("mlflow/store/*/*/metrics")
        (store / "loss").write_text("".join(f"{1700 + n} {value} {n}\n" for n, value in enumerate(values)))
    assert chosen(run, "minimize") == ("a is the best of 2: loss 0.25", "a")
