"""`azureml-debug` in a folder without a tasks.py: a story to its breakpoint, what F5 runs there, and `--remote`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import Hosts
from projects import PLAIN, PLAIN_LINE, ROOT, Project, post
from remotes import RemoteProject, remote_project
from services import Posting, attach, stop_of, value_of


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A folder with score.py and `.env` alone."""
    folder = tmp_path / "their folder"
    (folder / "service").mkdir(parents=True)
    (folder / "service" / "score.py").write_text(PLAIN)
    (folder / ".env").write_text("AML_SCORE_SCRIPT=service/score.py\n")
    environ = {"AML_ENGINE": "process", "AML_SCORING_PORT": "0", "AML_DEBUG_PORT": "0", "PYTHONPATH": str(ROOT)}
    made = Project(folder, environ, module="workflows")
    yield made
    made.clean_up()


def test_a_service_stops_at_a_breakpoint_and_is_found_from_a_folder_below(project: Project) -> None:
    shown = project.ok("deploy.debug").out
    assert "Stop            azureml-debug container.stop" in shown and "inv " not in shown
    result = project.debug()
    with attach(project, result, PLAIN_LINE) as client:
        posting = Posting(result["scoring_url"])
        frame = stop_of(client)
        assert value_of(client, frame, "total") == "6"
        client.request("continue", {"threadId": frame["thread"]}, 20)
        assert posting.finish() == {"answer": 60}
    below = Project(project.folder / "service", project.environ, module="workflows")
    assert below.ok("container.stop", "--json").json["stopped"] is True
    assert not (project.folder / "service" / ".azureml-debug").exists()


def test_what_f5_runs_needs_no_tasks_py_either(project: Project) -> None:
    project.ok("vscode.setup")
    tasks = json.loads((project.folder / ".vscode" / "tasks.json").read_text())["tasks"]
    before = [task for task in tasks if task["label"].startswith("azureml-debug deploy.debug")]
    assert [task["args"][:3] for task in before] == [["-m", "workflows", "deploy.debug"]]
    names = {entry["name"] for entry in project.launch().values()}
    # Written again, nothing is there twice.
    project.ok("vscode.setup")
    again = json.loads((project.folder / ".vscode" / "tasks.json").read_text())["tasks"]
    assert again == tasks and {entry["name"] for entry in project.launch().values()} == names


@pytest.fixture
def remote(tmp_path: Path, hosts: Hosts) -> Iterator[RemoteProject]:
    """The same on a laptop, with an instance to work on."""
    with remote_project(tmp_path / "a project", hosts, hosts.instance) as made:
        made.module = "workflows"
        (made.folder / "tasks.py").unlink()
        yield made


def test_on_another_machine_it_needs_none_either(remote: RemoteProject) -> None:
    result = remote.remote("deploy.debug")
    assert post(result["scoring_url"]) == {"answer": 60}
    assert not (remote.remote_folder / "tasks.py").exists()
    refused = remote.inv("experiment.cancel", "none", "--remote")
    refused.says("There is no run none here.", "azureml-debug experiment.list --remote")
    assert remote.remote("container.stop")["stopped"] is True
