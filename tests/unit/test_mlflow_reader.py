"""What is read of a store of mlflow's, as its versions write it and as it should never be."""

from __future__ import annotations

import math
import os
from itertools import pairwise
from pathlib import Path

from workflows.engines.mlflow_store import FOLDER, prepare_store
from workflows.engines.steps import StepSpec, Tracking
from workflows.experiments import mlflow_reader
from workflows.experiments.metrics import read_all
from workflows.models import ImageRef
from workflows.runs.record import RunRecord

RUN = "sums-3-0a1b2c"


def store(folder: Path) -> Path:
    """A step's folder with a store as the engines make it; where its run is."""
    spec = StepSpec(RUN, "sums", folder, folder, ImageRef("process", "", ""), None, tracking=Tracking("sums", RUN))
    variables = prepare_store(spec, {}, str(folder / FOLDER))
    assert variables["MLFLOW_RUN_ID"] == RUN
    return folder / FOLDER / "store" / "0" / RUN


def metric(run: Path, name: str, lines: str) -> None:
    path = run / "metrics" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(lines)


def record(folder: Path) -> RunRecord:
    return RunRecord(RUN, 3, "experiment", "sums", folder, folder, "process")


def test_of_a_million_points_the_last_is_exact_all_are_counted_and_few_are_read(tmp_path: Path) -> None:
    run = store(tmp_path)
    metric(run, "loss", "".join(f"1700000000000 {1 / (n + 1)} {n}\n" for n in range(1_000_000)))
    logged = read_all(record(tmp_path))
    assert logged.last() == {"loss": 1 / 1_000_000}
    assert logged.count("loss") == 1_000_000
    series = logged.series("loss")
    assert len(series) <= mlflow_reader.MOST + 1
    assert [series[0], series[-1]] == [(0, 1), (999_999, 1e-6)]
    # Even distances: nothing of the course is missing.
    steps = [step for step, _value in series]
    assert max(after - before for before, after in pairwise(steps)) < 2_000_000 / mlflow_reader.MOST
    assert len(logged.as_json()["metrics"]["loss"]) == len(series)
    assert logged.as_json()["metric_counts"] == {"loss": 1_000_000}
    assert read_all(record(tmp_path), 1024).last() == {"loss": 1e-6}


def test_many_metrics_share_the_points_that_are_read(tmp_path: Path) -> None:
    run = store(tmp_path)
    for number in range(400):
        metric(run, f"loss{number:03}", "".join(f"1700000000000 {n} {n}\n" for n in range(500)))
    logged = read_all(record(tmp_path))
    assert len(logged.metrics) == 400
    assert sum(map(len, logged.metrics.values())) <= mlflow_reader.POINTS + 400
    assert {logged.count(name) for name in logged.metrics} == {500}
    assert set(logged.last().values()) == {499}


def test_a_line_that_is_just_being_written_does_not_count(tmp_path: Path) -> None:
    metric(store(tmp_path), "loss", "1 0.5 0\n2 0.25 1\n3 0.1")
    assert read_all(record(tmp_path)).metrics == {"loss": [0.5, 0.25]}
    assert read_all(record(tmp_path), 1024).last() == {"loss": 0.25}


def test_lines_of_every_version_are_read_and_others_left_out(tmp_path: Path) -> None:
    lines = "1 0.5\n2 nan 1\n3 -inf 2\n4 1e3 3 data 8f3a\n\nnot a number at all\n5 0.125 4\n"
    metric(store(tmp_path), "val/loss", lines)
    found = read_all(record(tmp_path)).metrics["val/loss"]
    assert [found[0], *found[2:]] == [0.5, -math.inf, 1000, 0.125]
    assert math.isnan(found[1])


def test_points_are_drawn_by_step_also_where_ranks_have_logged_them_out_of_order(tmp_path: Path) -> None:
    run = store(tmp_path)
    metric(run, "loss", "1 3 20\n2 1 0\n3 2 10\n")
    metric(run, "unstepped", "1 3 0\n2 1 0\n")
    logged = read_all(record(tmp_path))
    assert logged.series("loss") == [(0, 1), (10, 2), (20, 3)]
    assert logged.series("unstepped") == [(0, 3), (1, 1)]


def test_mlflows_own_tags_are_left_out_and_long_texts_cut(tmp_path: Path) -> None:
    run = store(tmp_path)
    for name, text in {"mlflow.user": "me", "mlflow.note.content": "a note", "colour": "red" * 9999}.items():
        (run / "tags" / name).write_text(text)
    tags = read_all(record(tmp_path)).tags
    assert set(tags) == {"mlflow.note.content", "colour"}
    assert len(tags["colour"]) == mlflow_reader.TEXT_BYTES


def test_a_store_of_anything_else_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    run = store(tmp_path)
    metric(run, "binary", "")
    (run / "metrics" / "binary").write_bytes(os.urandom(300_000))
    (run / "metrics" / "loop").symlink_to(run)
    (run / "params" / "p").mkdir()
    (tmp_path / FOLDER / "store" / "0" / "stray").write_text("")
    (run / "meta.yaml").write_bytes(b"\xff\x00")
    logged = read_all(record(tmp_path))
    assert logged.params == {}
    assert all(isinstance(value, float) for values in logged.metrics.values() for value in values)


def test_without_a_store_nothing_was_logged_by_mlflow(tmp_path: Path) -> None:
    assert read_all(record(tmp_path)).as_json() == {"metrics": {}, "params": {}, "tags": {}, "properties": {}}
