"""Failures leave snapshots with their logs: of steps that nobody debugs, on both engines, and of a service."""

from __future__ import annotations

import json
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine_steps import Steps
from pipelines import PipelineProject
from projects import ANY_ENGINE, Project, _request, until

from workflows.models import Snapshots

FAILS = """
import os
rank = int(os.environ.get("RANK", "0"))
def work(name):
    numbers = list(range(1000))
    mine = f"of rank {rank}"
    raise ValueError(f"it went wrong in {name}")
work("here")
"""
SERVICE = '''"""A service that fails."""
import json


def init():
    pass


def run(raw_data):
    total = sum(json.loads(raw_data)["data"])
    return {"answer": 10 / (total - 6), "total": total}
'''


def read(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("snapshot-*.json"))]


def locals_of(snapshot: dict[str, Any], function: str) -> dict[str, Any]:
    frame = next(one for one in snapshot["frames"] if one["function"] == function)
    return {name: snapshot["values"][index] for name, index in frame["locals"] if index is not None}


def test_each_rank_of_a_step_that_nobody_debugs_leaves_one_with_its_log(steps: Steps) -> None:
    steps.write("fails.py", FAILS)
    # Every rank waits for the others, so that none is ended before it has failed.
    spec = replace(steps.spec, ranks=2, distribution="pytorch", snapshots=Snapshots("pipeline", "^mine$"))
    found = Steps(steps.engine, spec)
    assert (
        found.run(
            "python fails.py; code=$?; touch outputs/$RANK; while ! [ -e outputs/0 -a -e outputs/1 ]; do"
            " sleep 0.02; done; exit $code"
        )
        == 1
    )
    assert "ValueError: it went wrong in here" in found.log(0)
    logs = spec.log(0).parent
    assert (
        sorted(path.name for path in logs.iterdir() if not path.name.startswith(("70_", "snapshot-train-rank"))) == []
    )
    snapshots = read(logs)
    assert [one["where"]["rank"] for one in snapshots] == [0, 1]
    for path, one in zip(sorted(logs.glob("snapshot-*")), snapshots, strict=True):
        assert path.stat().st_mode & 0o777 == 0o600
        assert (one["where"]["run"], one["where"]["step"]) == (spec.run_id, "train")
        assert one["exceptions"][0]["text"] == "it went wrong in here"
        variables = locals_of(one, "work")
        assert variables["numbers"]["length"] == 1000 and variables["mine"]["kind"] == "secret"


@ANY_ENGINE
def test_a_run_leaves_none_where_they_are_off(pipelines: PipelineProject) -> None:
    pipelines.single(FAILS)
    for setting, count in (("off", 0), ("on", 1)):
        assert pipelines.inv("pipeline.submit", "--no-debug", "--follow", AML_SNAPSHOT=setting).code == 1
        run = pipelines.runs / pipelines.until_final()["run_id"]
        assert len(list(run.rglob("snapshot-*.json"))) == count
    bad = pipelines.inv("pipeline.submit", AML_SNAPSHOT_REDACT="(")
    bad.says("AML_SNAPSHOT_REDACT must be a regular expression")


@ANY_ENGINE
def test_what_the_entry_script_of_a_parallel_step_raises_is_left(pipelines: PipelineProject) -> None:
    from test_parallel_steps import BATCH, PARALLEL

    pipelines.pipeline.write_text(textwrap.dedent(PARALLEL))
    for name in ("score", "numbers"):
        (pipelines.folder / name).mkdir()
    (pipelines.folder / "score" / "batch.py").write_text(BATCH)
    (pipelines.folder / "numbers" / "f1").write_text("one")
    assert pipelines.inv("pipeline.submit", "--no-debug", "--follow").code == 1
    run = pipelines.runs / pipelines.until_final()["run_id"]
    snapshots = read(run / "steps" / "score" / "azureml-logs")
    assert snapshots and {one["exceptions"][0]["type"] for one in snapshots} == {"ValueError"}
    assert locals_of(snapshots[0], "run")["results"]["length"] == 0


@ANY_ENGINE
def test_a_service_leaves_the_last_twenty_and_answers_as_ever(project: Project) -> None:
    project.write_score(SERVICE)
    url = project.debug(AML_SNAPSHOT="off")["scoring_url"]

    def ask(number: int) -> tuple[int, bytes]:
        return _request("POST", url, json.dumps({"data": [number]}).encode(), 30)

    without = ask(6)
    assert without[0] == 500 and read(project.state / "announce") == []
    url = project.debug()["scoring_url"]
    assert ask(6) == without and ask(8)[0] == 200
    (snapshot,) = read(project.state / "announce")
    assert snapshot["where"]["story"] == "deployment"
    request = snapshot["where"]["request"]
    assert (request.pop("method"), request.pop("path")) == ("POST", "/score") and not request
    assert snapshot["exceptions"][0]["type"] == "ZeroDivisionError"
    assert locals_of(snapshot, "run")["total"]["value"] == 6
    for _ in range(22):
        assert ask(6)[0] == 500
    until(lambda: len(read(project.state / "announce")) == 20, "twenty snapshots")
    # One that cannot be loaded leaves one as well.
    project.write_score(SERVICE.replace("    pass", "    raise OSError(2, 'no model')"))
    assert project.inv("deploy.reload").code == 1
    assert "[Errno 2] no model" in {one["exceptions"][0]["text"] for one in read(project.state / "announce")}
