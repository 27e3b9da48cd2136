"""What a script logs by mlflow is in its run, with the versions of mlflow before and after 3."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import missing
from experiments import ExperimentProject, make_experiment_project
from pipelines import PipelineProject

OLD, NEW = "mlflow-skinny==2.22.5", "mlflow-skinny==3.17.2"
SCRIPT = """
import os
import mlflow

mlflow.log_param("alpha", 0.5)
for number in range(5):
    mlflow.log_metric("loss", 1 / (number + 1), step=number * 10)
mlflow.log_metric("val/accuracy", 0.75)
mlflow.set_tag("colour", "red")
mlflow.log_text("hello", "notes/a.txt")
for fold in range(2):
    with mlflow.start_run(run_name=f"fold-{fold}", nested=True):
        mlflow.log_param("fold", fold)
        mlflow.log_metric("score", fold / 2)
        mlflow.log_text("deep", "b.txt")
print("run", mlflow.active_run().info.run_id, os.environ["MLFLOW_RUN_ID"] if "MLFLOW_RUN_ID" in os.environ else "")
mlflow.set_experiment(os.environ["MLFLOW_EXPERIMENT_NAME"])
"""


@pytest.fixture
def experiment(tmp_path: Path, engine: str) -> Iterator[ExperimentProject]:
    # mlflow 3 takes no store below a folder of this name.
    made = make_experiment_project(tmp_path / "artifacts" / "a project", engine)
    yield made
    made.clean_up()


@pytest.fixture(scope="session", autouse=True)
def mlflow_is_to_be_had() -> None:
    if subprocess.run(
        [sys.executable, "-m", "pip", "index", "versions", "mlflow-skinny"], capture_output=True
    ).returncode:
        missing("the package index has no mlflow-skinny")


def give_mlflow(project: ExperimentProject | PipelineProject, version: str) -> None:
    """Have a project's steps run where mlflow is."""
    # The older one wants older packages than those that are pinned for the tests.
    project.environ["PIP_CONSTRAINT"] = ""
    (project.folder / "env" / "training").mkdir(parents=True)
    (project.folder / "env" / "training" / "requirements.txt").write_text(f"{version}\n")


@pytest.mark.parametrize("version", [OLD, NEW])
def test_metrics_parameters_tags_and_artifacts_are_in_the_run(experiment: ExperimentProject, version: str) -> None:
    if version == OLD and experiment.environ["AML_ENGINE"] == "docker":
        pytest.skip("the same files, whatever reads them; one version is enough in an image")
    give_mlflow(experiment, version)
    experiment.write("train.py", SCRIPT)
    record = experiment.run("sums", "--script", "train.py")
    assert record["status"] == "Completed", experiment.log()
    assert f"run {record['run_id']}" in experiment.log()

    shown = experiment.ok("experiment.show", "--json")
    assert shown.json["metrics"] == {"loss": [1, 0.5, 1 / 3, 0.25, 0.2], "val/accuracy": [0.75]}
    assert shown.json["params"] == {"alpha": "0.5"}
    assert shown.json["tags"] == {"colour": "red"}
    nested = {one["name"]: one for one in shown.json["nested_runs"]}
    assert {name: (one["metrics"], one["params"], one["parent"]) for name, one in nested.items()} == {
        "fold-0": ({"score": 0}, {"fold": "0"}, record["run_id"]),
        "fold-1": ({"score": 0.5}, {"fold": "1"}, record["run_id"]),
    }
    text = experiment.ok("experiment.show", "--plot", "loss").out
    assert "loss = 0.2  (last of 5)" in text
    assert "alpha = 0.5" in text
    # The steps are those that the script names.
    axis = text.rstrip().splitlines()[-1].split()
    assert axis == ["0", "40"]
    assert "loss 0.2" in experiment.ok("experiment.list").out
    listed = experiment.ok("experiment.list", "--json").json["runs"][0]
    assert listed["metrics"] == {"loss": 0.2, "val/accuracy": 0.75}

    outputs = experiment.ok("experiment.outputs").out
    assert "artifacts/notes/a.txt" in outputs
    for one in nested.values():
        assert f"artifacts/{one['run_id']}/b.txt" in outputs


def test_a_persons_own_tracking_uri_is_left_alone(experiment: ExperimentProject) -> None:
    experiment.write(
        "train.py",
        "import os\nprint({name: text for name, text in os.environ.items() if name.startswith('MLFLOW_')})\n",
    )
    experiment.ok("experiment.create", "sums")
    text = "script: train.py\nenvironment:\n  environmentVariables:\n    MLFLOW_TRACKING_URI: http://127.0.0.1:9\n"
    experiment.write(".azureml/sums.runconfig", text)
    record = experiment.run("sums")
    assert "{'MLFLOW_TRACKING_URI': 'http://127.0.0.1:9'}" in experiment.log(), experiment.log()
    assert not (Path(record["folder"]) / "mlflow").exists()
    experiment.configuration().unlink()
    experiment.run("sums", "--script", "train.py")
    assert "'MLFLOW_EXPERIMENT_NAME': 'sums'" in experiment.log()


def test_each_step_has_a_run_of_its_own_and_all_ranks_of_a_step_log_into_one(pipelines: PipelineProject) -> None:
    give_mlflow(pipelines, NEW)
    (pipelines.folder / "code").mkdir()
    (pipelines.folder / "code" / "train.py").write_text(
        "import os, sys, mlflow\n"
        "rank = os.environ.get('RANK', '0')\n"
        "mlflow.log_metric(f'rank{rank}', float(sys.argv[1]))\n"
        "mlflow.log_param(f'at{rank}', sys.argv[1])\n"
    )
    (pipelines.folder / "pipeline.yml").write_text(
        "type: pipeline\ndisplay_name: tracked\njobs:\n"
        "  one:\n    command: python train.py 1\n    code: ./code\n    environment: azureml:any@latest\n"
        "  several:\n    command: python train.py 2\n    code: ./code\n    environment: azureml:any@latest\n"
        "    distribution: {type: pytorch, process_count_per_instance: 2}\n"
    )
    pipelines.ok("pipeline.submit", "--no-debug", "--follow")
    found = pipelines.ok("pipeline.status", "--json")
    assert {step["name"]: (step["metrics"], step["params"]) for step in found.json["steps"]} == {
        "one": ({"rank0": 1}, {"at0": "1"}),
        "several": ({"rank0": 2, "rank1": 2}, {"at0": "2", "at1": "2"}),
    }
    assert "rank0 1, at0=1" in pipelines.ok("pipeline.status").out
    assert json.dumps(found.json)
