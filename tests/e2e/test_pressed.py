"""F5 on what is there already, and the end of what it started: the commands as VS Code's tasks give them."""

from __future__ import annotations

import contextlib
import json
import shlex
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from experiments import BUSY, TITLE, TRAIN
from hosts import Hosts
from pipelines import FAMILY, PipelineProject, make_pipeline_project
from projects import PLAIN, Project, Result, until
from remotes import remote_project

from workflows.debugger.dap import DapClient
from workflows.engines.ports import find_free_port
from workflows.vscode.f5 import READY, VARIABLE

DEPLOYMENT = "Azure Machine Learning Deployment: Docker Debug"
RANKS = "import time\nfor number in range(600):\n    time.sleep(0.1)\n"


@pytest.fixture
def project(tmp_path: Path) -> Iterator[PipelineProject]:
    """A project with all three stories, set up for VS Code."""
    made = make_pipeline_project(tmp_path / "a project", "process")
    (made.folder / "service").mkdir()
    (made.folder / "service" / "score.py").write_text(PLAIN)
    (made.folder / "train.py").write_text(TRAIN)
    (made.folder / ".azureml").mkdir()
    (made.folder / ".azureml" / "sums.runconfig").write_text("script: train.py\nframework: Python\n")
    made.environ |= {"AML_SCORE_SCRIPT": "service/score.py", "AML_DEBUG_PORT": "0"}
    yield made
    for path in made.runs.glob("*/run.json"):
        made.inv(f"{json.loads(path.read_text())['kind']}.cancel", "--run", path.parent.name)
    made.clean_up()


def command(project: Project, name: str, ending: bool = False) -> list[str]:
    """The command of a configuration's preLaunchTask, or of its postDebugTask."""
    tasks = json.loads((project.folder / ".vscode" / "tasks.json").read_text())["tasks"]
    label = project.launch()[name]["postDebugTask" if ending else "preLaunchTask"]
    (task,) = [one for one in tasks if one["label"] == label]
    assert task["options"]["env"] == {VARIABLE: name}
    return list(task["args"][2:])


def press(project: Project, name: str, ending: bool = False) -> Result:
    """That command as VS Code runs it."""
    return project.inv(*command(project, name, ending), **{VARIABLE: name})


@contextlib.contextmanager
def attached(project: Project, name: str) -> Iterator[DapClient]:
    """Attached as launch.json says."""
    place: dict[str, Any] = project.launch()[name]["connect"]
    with DapClient.connect(place["host"], place["port"], 20) as client:
        client.attach(path_mappings=[], breakpoints={}, timeout=30)
        yield client
        client.disconnect()


def status(project: PipelineProject, kind: str, number: int) -> str:
    (found,) = project.runs.glob(f"*-{number}-*/run.json")
    record: dict[str, Any] = json.loads(found.read_text())
    assert record["kind"] == kind
    return str(record["status"])


def test_f5_attaches_to_a_step_that_was_started_by_hand(project: PipelineProject) -> None:
    project.script("prepare").write_text(RANKS)
    project.ok("vscode.setup", "--stop-after")
    name = f"{FAMILY} (prepare)"
    run = project.ok("pipeline.debug", "--step", "prepare", "--json").json
    (endpoint,) = run["endpoints"]
    assert project.launch()[name]["connect"] == {"host": "127.0.0.1", "port": endpoint["port"]}
    pressed = press(project, name)
    assert pressed.code == 0 and pressed.out.strip().splitlines()[-1] == READY, pressed
    assert "is on its way already" in pressed.out and len(list(project.runs.glob("*/run.json"))) == 1
    with attached(project, name):
        until(lambda: project.step("prepare")["endpoints"][0]["state"] == "attached", "the attach")
        press(project, name).says("tasks.py:1: error: An editor is already attached", "Shift+F5")
    press(project, name, ending=True)
    assert status(project, "pipeline", 1) == "Canceled"


def test_f5_of_a_step_that_needs_no_other_runs_it_alone_under_its_own_name(project: PipelineProject) -> None:
    project.ok("vscode.setup", "--stop-after")
    name = f"{FAMILY} (prepare)"
    pressed = press(project, name)
    assert pressed.code == 0 and pressed.out.strip().splitlines()[-1] == READY, pressed
    assert [step["name"] for step in project.status()["steps"]] == ["prepare"]
    (endpoint,) = project.step("prepare")["endpoints"]
    assert endpoint["launch_configuration"] == name
    assert project.launch()[name]["connect"]["port"] == endpoint["port"]


def test_a_port_that_another_program_has_is_told_at_the_configuration(project: PipelineProject) -> None:
    project.ok("vscode.setup")
    name = f"{FAMILY} (add)"
    port = project.launch()[name]["connect"]["port"]
    lines = (project.folder / ".vscode" / "launch.json").read_text().splitlines()
    begins = next(number for number, line in enumerate(lines) if f'"{name}"' in line)
    with socket.create_server(("127.0.0.1", port)):
        press(project, name).says(
            f".vscode/launch.json:{begins}: error: Port {port} is held by", "Stop it, or write another port there."
        )
    file = project.folder / ".vscode" / "launch.json"
    file.write_text(file.read_text().replace(f'"port": {port}', f'"port": {(other := find_free_port(frozenset()))}'))
    assert press(project, name).code == 0 and project.step("add")["endpoints"][0]["port"] == other


def test_a_step_that_is_no_more_is_told_at_the_pipeline_file(project: PipelineProject) -> None:
    project.ok("vscode.setup")
    text = project.pipeline.read_text()
    project.pipeline.write_text(text.replace("  add:", "  sum:").replace("jobs.add", "jobs.sum"))
    press(project, f"{FAMILY} (add)").says(
        "pipeline.yml:1: error: There is no step add.",
        "prepare, sum, tell. For configurations of these: inv vscode.setup",
    )


def test_the_end_of_a_session_ends_the_run_that_it_was_in_and_no_later_one(project: PipelineProject) -> None:
    project.ok("vscode.setup", "--stop-after")
    first, second = (f"{FAMILY} ({step})" for step in ("prepare", "add"))
    for name in (first, second):
        assert press(project, name).code == 0
    press(project, first, ending=True)
    assert [status(project, "pipeline", number) for number in (1, 2)] == ["Canceled", "Running"]
    assert "No run of" in press(project, f"{FAMILY} (tell)", ending=True).out
    press(project, second, ending=True)
    assert status(project, "pipeline", 2) == "Canceled"


def test_a_step_that_ends_with_its_session_has_completed(project: PipelineProject, tmp_path: Path) -> None:
    over = tmp_path / "over"
    project.single("print('done')\n", f"python work.py; until [ -e {shlex.quote(str(over))} ]; do sleep 0.1; done")
    patient = "from workflows.tasks import _runs\n_runs.END_SECONDS = 100.0\n"
    (project.folder / "tasks.py").write_text((project.folder / "tasks.py").read_text() + patient)
    project.ok("vscode.setup", "--stop-after")
    assert press(project, FAMILY).code == 0
    place = project.launch()[FAMILY]["connect"]
    with DapClient.connect(place["host"], place["port"], 20) as client:
        client.attach(path_mappings=[], breakpoints={}, timeout=30)
        client.wait_event("terminated", 30)
    ending = project.start(*command(project, FAMILY, ending=True), **{VARIABLE: FAMILY})
    assert ending.stdout is not None
    assert ending.stdout.readline() == "Waiting up to 100 s for work to end by itself.\n"
    over.touch()
    assert "is over already: Completed" in project.finish(ending).out
    assert status(project, "pipeline", 1) == "Completed"


def test_a_step_that_is_followed_is_followed_to_its_own_end(project: PipelineProject) -> None:
    project.script("add").write_text(RANKS)
    project.ok("vscode.setup", "--follow")
    # The whole pipeline, of which one step is attended to.
    project.ok("pipeline.debug")
    name = f"{FAMILY} (prepare)"
    child = project.start(*command(project, name), **{VARIABLE: name})
    assert child.stdout is not None
    until(lambda: child.stdout is not None and child.stdout.readline().strip() == READY, "VS Code told to attach")
    with attached(project, name):
        pass
    rest = project.finish(child, 30)
    assert rest.code == 0 and "The step prepare of the run" in rest.out and "[add]" not in rest.out, rest
    assert status(project, "pipeline", 1) == "Running"


def test_a_session_of_one_rank_ends_and_the_other_rank_is_still_debugged(project: PipelineProject) -> None:
    project.single(RANKS, more="distribution:\n  type: mpi\n  process_count_per_instance: 2")
    project.ok("vscode.setup", "--stop-after")
    project.ok("pipeline.debug", "--rank", "all")
    first, second = (f"{FAMILY} (work, rank {rank})" for rank in (0, 1))
    with attached(project, second):
        with attached(project, first):
            pass
        ended = press(project, first, ending=True)
        assert "goes on: work, rank 1." in ended.out and status(project, "pipeline", 1) == "Running"
    until(lambda: {one["state"] for one in project.step("work")["endpoints"]} == {"detached"}, "both gone")
    press(project, second, ending=True)
    assert status(project, "pipeline", 1) == "Canceled"


def test_the_end_of_an_experiments_session_leaves_its_other_runs_alone(project: PipelineProject) -> None:
    project.ok("vscode.setup", "--stop-after")
    name = f"{TITLE}: sums"
    assert press(project, name).code == 0
    (project.folder / "busy.py").write_text(BUSY)
    project.ok("experiment.run", "sums", "--script", "busy.py")
    press(project, name, ending=True)
    assert status(project, "experiment", 1) == "Canceled"
    press(project, name, ending=True)
    assert status(project, "experiment", 2) == "Running"


def test_f5_attaches_to_what_was_started_by_hand_on_the_other_machine(hosts: Hosts, tmp_path: Path) -> None:
    with remote_project(tmp_path / "a project", hosts, hosts.instance) as project:
        project.environ["AML_DEBUG_PORT"] = str(find_free_port(frozenset()))
        (project.folder / "prepare" / "prepare.py").write_text(RANKS)
        project.ok("vscode.setup", "--remote", "--stop-after")
        for task, name, flags in (
            ("deploy.debug", DEPLOYMENT, ["--wait"]),
            ("pipeline.debug", f"{FAMILY} (prepare)", ["--step", "prepare"]),
        ):
            project.remote(task, *flags)
            pressed = press(project, name)
            assert pressed.code == 0 and pressed.out.strip().splitlines()[-1] == READY, pressed
            with attached(project, name):
                pass
            assert press(project, name, ending=True).code == 0
        assert project.remote("pipeline.status")["status"] == "Canceled"
        assert len(list(project.remote_folder.glob(".azureml-debug/runs/*/run.json"))) == 1
