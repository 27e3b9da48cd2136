"""A step that fails in a workspace leaves a snapshot where the service keeps it: it is had later, from anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from azureml_projects import python_with_sdk_v2
from azureml_server import AzureMLServer
from pipelines import PipelineProject
from workspaces import make_v2_experiments, make_v2_project

FAILS = """
def work():
    losses = [0.5, float("nan")]
    raise ValueError("the loss is not a number")
work()
"""


@pytest.fixture
def server() -> Iterator[AzureMLServer]:
    with AzureMLServer(secure=True, python=python_with_sdk_v2(), layout="user_logs") as made:
        yield made
    assert made.unknown == []


@pytest.fixture
def project(server: AzureMLServer, tmp_path: Path) -> Iterator[PipelineProject]:
    made = make_v2_project(tmp_path / "a project", server, tmp_path / "home")
    yield made
    made.clean_up()


def test_a_step_that_fails_leaves_one_in_the_folder_that_the_service_uploads(
    server: AzureMLServer, project: PipelineProject
) -> None:
    project.single(FAILS)
    job = {"type": "command", "command": "python work.py", "code": "./work", "environment": {"image": "python"}}
    job["compute"] = "azureml:cpu"
    project.pipeline.write_text(json.dumps({"type": "pipeline", "jobs": {"work": job}}))
    run = project.ok("pipeline.submit", "--no-wait", "--json").json
    assert project.until_final()["status"] == "Failed"
    (step,) = server.state.children(run["run_id"])
    (name,) = (name for name in server.state.logs(step) if name.startswith("logs/snapshot-"))
    assert name.startswith("logs/snapshot-work-rank0-")
    snapshot = json.loads(Path(project.ok("pipeline.snapshot", "--json").json["snapshot"]).read_text())
    assert snapshot["where"]["run"] == step.id and snapshot["where"]["step"] == "work"
    assert snapshot["exceptions"][0]["text"] == "the loss is not a number"


def test_what_an_experiment_leaves_says_that_it_is_one(server: AzureMLServer, tmp_path: Path) -> None:
    project = make_v2_experiments(tmp_path / "a project", server, tmp_path / "home")
    (project.folder / "train.py").write_text(FAILS)
    project.inv("experiment.debug", "sums", "--script", "train.py", "--no-wait", "--follow")
    where = project.ok("experiment.snapshot", "--json").json["where"]
    assert (where["story"], where["step"]) == ("experiment", "sums")
    project.clean_up()
