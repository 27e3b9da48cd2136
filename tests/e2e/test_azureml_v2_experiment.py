"""Experiments in a workspace, to the breakpoint: the real azure-ai-ml over HTTPS, a real sshd behind a relay."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azureml_server import AzureMLServer
from azureml_server.state import DATASTORE
from experiments import BUSY, TITLE, TRAIN_LINE, ExperimentProject
from pipelines import go_on, session, stop_of, value_of
from projects import until
from workspaces import make_v2_experiments, workspace_of_v2

TO_SCRIPT = ("--", "--numbers", "$AZUREML_DATAREFERENCE_numbers", "--note", "it's $HOME")
#: As in the README; without, the settings say it.
THERE = ("--backend", "azureml", "--compute-target", "cpu")
NUMBERS = ("--script", "train.py", "--data", "numbers=some data")


@pytest.fixture
def server() -> Iterator[AzureMLServer]:
    with workspace_of_v2() as made:
        yield made


@pytest.fixture
def project(server: AzureMLServer, tmp_path: Path) -> Iterator[ExperimentProject]:
    made = make_v2_experiments(tmp_path / "a project", server, tmp_path / "home")
    yield made
    made.clean_up()


def code_sent(server: AzureMLServer) -> list[str]:
    """The files of code that have been sent so far."""
    return [one.path for one in server.requests if one.method == "PUT" and one.path.startswith("/snapshots/")]


def look(project: ExperimentProject, endpoint: dict[str, Any], script: Path, line: int, expression: str) -> str:
    """What an expression is worth at a line; the script goes on."""
    with session(endpoint, {script: [line]}) as client:
        frame = stop_of(client)
        found = value_of(client, frame, expression)
        go_on(client, frame)
    return found


def test_a_script_stops_at_its_breakpoint_and_is_looked_at_by_the_same_commands(
    server: AzureMLServer, project: ExperimentProject
) -> None:
    del project.environ["AML_BACKEND"], project.environ["AML_COMPUTE_TARGET"]
    result = project.ok("experiment.debug", "sums", *THERE, "--json", *NUMBERS, *TO_SCRIPT).json
    (endpoint,) = result["endpoints"]
    assert (result["backend"], endpoint["step"], endpoint["rank"]) == ("azureml", "sums", None)
    assert project.launch()[f"{TITLE}: sums"]["connect"]["port"] == endpoint["port"]
    run = server.state.runs[result["run_id"]]
    assert run.experiment.name == "sums"
    seen = project.ok("experiment.show", "--json").json
    assert (seen["status"], seen["engine"]) == ("Running", "azureml")
    assert look(project, endpoint, project.script, TRAIN_LINE, "numbers") == "[10, 20, 30]"
    # What the service has of metrics, as azureml-core and azureml-mlflow send them.
    run.metrics += [
        {"name": name, "columns": {name: "Double"}, "value": [{"step": 0, "data": {name: value}}]}
        for name, value in (("loss", 0.5), ("loss", 0.25))
    ]
    run.tags["of"] = "mine"
    ended = project.until_final()
    assert ended["status"] == "Completed"
    for command in ("experiment.show", "experiment.list"):
        told = project.ok(command).out
        assert "loss" in told and "0.25" in told and "mine" in told and "azureml_debug" not in told
    assert 'total 60 note "it\'s $HOME"' in project.ok("experiment.logs", AML_SDK="auto").out
    written = project.ok("experiment.outputs", "--json").json["files"]
    assert [one["name"] for one in written] == ["outputs/total.txt", "logs/total.txt"]
    assert Path(written[0]["path"]).read_text() == "60"
    before = len(server.requests)
    assert project.ok("experiment.outputs").out.count("total.txt") == 2 and len(server.requests) == before
    # Nothing of this program's own, nor of the editor's, was sent with the project; and the same is not sent again.
    sent = code_sent(server)
    assert not [path for path in sent if ".azureml-debug" in path or ".vscode" in path]
    project.ok("experiment.debug", *THERE, "sums")
    assert code_sent(server) == sent
    project.ok("experiment.cancel")


def test_a_job_file_is_an_experiments_run(server: AzureMLServer, project: ExperimentProject) -> None:
    script = project.write("work/work.py", "import sys\nfound = sys.argv[1:]\nprint(found)\n")
    job = {
        "type": "command",
        "experiment_name": "another",
        "command": "python work.py ${{inputs.factor}} 'a  b' > ${{outputs.told}}/said.txt",
        "code": "./work",
        "environment": {"image": "python"},
        "compute": "azureml:cpu",
        "inputs": {"factor": 3},
        "outputs": {"told": {"type": "uri_folder"}},
    }
    file = project.write("job.yml", json.dumps(job))
    result = project.debug("sums", "--job", "job.yml", "--input", "factor=4")
    assert look(project, result["endpoints"][0], script, 3, "found") == "['4', 'a  b']"
    assert project.until_final()["status"] == "Completed" and json.loads(file.read_text()) == job
    assert server.state.runs[result["run_id"]].experiment.name == "sums"
    told = project.ok("experiment.outputs", "--json").json
    assert told["in_workspace"]["told"].startswith("azureml://datastores/") and told["files"] == []


RANKS = """\
import os
rank = os.environ["RANK"] + os.environ["COLOUR"]
with open(os.environ["AZUREML_DATAREFERENCE_numbers"] + "/numbers.txt") as file:
    text = file.read()
print(rank)
"""
RUNCONFIG = """\
script: work/ranks.py
arguments: [--note, "a  b"]
target: cpu
framework: PyTorch
communicator: Nccl
nodeCount: 1
pytorch:
  processCount: 2
environmentVariables:
  COLOUR: blue
environment:
  name: any
  version: "1"
"""


def test_a_run_configuration_is_run_with_its_ranks_variables_and_environment(
    server: AzureMLServer, project: ExperimentProject
) -> None:
    server.assets.register("", "environments", "any", "1", {"image": "an-image"})
    place = "azureml://datastores/workspaceblobstore/paths/sums/"
    server.assets.register("", "data", "numbers", "7", {"dataType": "uri_folder", "dataUri": place})
    text = server.state.file(DATASTORE, "sums/numbers.txt")
    text.parent.mkdir(parents=True)
    text.write_text("4 5")
    script = project.write("work/ranks.py", RANKS)
    project.write(".azureml/sums.runconfig", RUNCONFIG)
    del project.environ["AML_COMPUTE_TARGET"]
    told = project.ok("experiment.debug", "--json", "sums", "--rank", "1", "--data", "numbers=azureml:numbers")
    assert "not acted on" not in told.err
    result = told.json
    (endpoint,) = result["endpoints"]
    assert endpoint["launch_configuration"] == f"{TITLE}: sums (rank 1)"
    assert look(project, endpoint, script, 5, "rank + text") == "'1blue4 5'"
    assert project.until_final()["status"] == "Completed"


def test_a_run_whose_follower_was_killed_is_inspected_and_cancelled(
    server: AzureMLServer, project: ExperimentProject
) -> None:
    result = project.debug("sums", *NUMBERS, *TO_SCRIPT)
    runner = json.loads(next(project.runs.glob("sums-*/runner.json")).read_text())
    os.kill(runner["pid"], signal.SIGKILL)
    later = {"AML_BACKEND": "local", "AML_SDK": "auto"}
    found = project.ok("experiment.inspect", "--json", f"train.py:{TRAIN_LINE}", "--eval", "numbers[1]", **later).json
    assert found["values"] == {"numbers[1]": "20"}
    project.write("busy.py", BUSY)
    assert project.until_final()["status"] == "Completed"
    busy = project.ok("experiment.run", "--json", "sums", "--script", "busy.py", "--").json
    until(lambda: server.state.runs[busy["run_id"]].status == "Running", "it to run")
    project.ok("experiment.cancel", **later)
    assert server.state.runs[busy["run_id"]].status == "Canceled"
    assert server.state.runs[result["run_id"]].status == "Completed"


def test_what_cannot_be_submitted_is_told_and_leaves_nothing(server: AzureMLServer, project: ExperimentProject) -> None:
    before = {path.name for path in project.folder.iterdir()}
    for typed, more, says in (
        (["sums", *NUMBERS], {"AML_COMPUTE_TARGET": "zzz"}, ["There is no compute target zzz", "cpu"]),
        (["sums", *NUMBERS], {"AML_COMPUTE_TARGET": ""}, ["has no compute target in the workspace", "cpu"]),
        (["a name", *NUMBERS], {}, ["'a name' cannot be an experiment's name", "letters"]),
        (["sums", "--script", "train.py", "--data", "n=azureml:none"], {}, ["There is no data asset none"]),
        (["sums", *NUMBERS], {"AZUREML_DEBUG_TEST_TOKEN_SECONDS": "-60"}, ["sign-in"]),
    ):
        result = project.inv("experiment.debug", *typed, **more)
        result.says(*says)
        assert not server.state.runs and not list(project.runs.glob("sums-*"))
        assert {path.name for path in project.folder.iterdir()} - before <= {".azureml-debug"}
    assert "no experiment yet" in project.inv("experiment.list").out
