"""VS Code inside the container, and what any other DAP client is given."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import make_project
from experiments import TRAIN_LINE, ExperimentProject, make_experiment_project
from host import Host
from hosts import Hosts
from pipelines import PREPARE_LINE, PipelineProject, go_on, make_pipeline_project, session, stop_of, value_of
from projects import PLAIN_LINE, Project, Result
from remotes import remote_project
from services import Posting


def printed(result: Result) -> list[dict[str, Any]]:
    """The places that were printed, read as a person reads them; the attach request has to say the same."""
    found = []
    for text in result.out.split("\n\n"):
        if "attach request" not in text:
            continue
        lines = text.strip().splitlines()
        (host,) = re.findall(r"^host +(\S+)$", text, re.MULTILINE)
        (port,) = re.findall(r"^port +(\d+)$", text, re.MULTILINE)
        roots = re.findall(r"^path mapping +(.+) -> (.+)$", text, re.MULTILINE)
        mappings = [{"localRoot": here, "remoteRoot": there} for here, there in roots]
        request = json.loads(lines[-1].removeprefix("attach request "))
        assert request["request"] == "attach" and request["connect"] == {"host": host, "port": int(port)}
        assert request["pathMappings"] == mappings and mappings
        found.append({"name": lines[0], "host": host, "port": int(port), "path_mappings": mappings})
    assert found, result.out
    return found


def editor(folder: Path) -> tuple[dict[str, str], Path]:
    """A stand-in for VS Code's command, which cannot be installed here; the environment, and what it was given."""
    folder.mkdir()
    given = folder / "given"
    program = folder / "code"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >"{given}"\n')
    program.chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}, given


def container_of(address: str) -> tuple[dict[str, Any], str, str]:
    """Container, machine and folder that an address names."""
    match = re.fullmatch(r"vscode-remote://attached-container\+([0-9a-f]+)(?:@ssh-remote\+([^/]+))?(/.*)", address)
    assert match, address
    return json.loads(bytes.fromhex(match[1])), match[2] or "", match[3]


@pytest.fixture
def in_container(tmp_path: Path, docker_engine: None) -> Iterator[Project]:
    made = make_project(tmp_path / "a project", "docker")
    made.environ["AML_CONTAINER_NAME"] = "code-test"
    yield made
    made.clean_up()


@pytest.fixture
def as_processes(tmp_path: Path) -> Iterator[Project]:
    made = make_project(tmp_path / "a project", "process")
    yield made
    made.clean_up()


def test_code_opens_the_running_container_or_says_where_it_is(in_container: Project, tmp_path: Path) -> None:
    in_container.inv("container.code").says("No service of this project is running.", "inv deploy.debug")
    in_container.debug()
    without = in_container.ok("container.code")
    address = without.out.split()[-1]
    named, machine, folder = container_of(address)
    assert (named, machine) == ({"containerName": "/code-test"}, "")
    # The container of that name has score.py in that folder.
    there = in_container.ok("container.shell", "--", "cat", f"{folder}/score.py")
    assert there.out == in_container.score.read_text()
    path, given = editor(tmp_path / "bin")
    result = in_container.ok("container.code", "--json", **path).json
    assert given.read_text().splitlines() == ["--folder-uri", address]
    assert (result["address"], result["opened"]) == (address, "code")


def test_code_without_a_container_says_which_folder_to_open(as_processes: Project) -> None:
    as_processes.debug()
    as_processes.inv("container.code").says("there is no container", str(as_processes.score.parent))


def test_code_on_the_other_machine_goes_through_ssh(
    tmp_path: Path, hosts: Hosts, loopback_instance: Host, docker_engine: None
) -> None:
    with remote_project(tmp_path / "a project", hosts, loopback_instance) as project:
        project.environ |= {"AML_ENGINE": "docker", "AML_SCORING_PORT": "0", "AML_DEBUG_PORT": "0"}
        path, given = editor(tmp_path / "bin")
        try:
            project.remote("deploy.debug", "--container-name", "code-remote")
            result = project.remote("container.code", **path)
        finally:
            project.remote("container.stop")
        assert given.read_text().splitlines() == ["--folder-uri", result["address"]]
        named, machine, folder = container_of(result["address"])
        assert named["containerName"] == "/code-remote" and folder == "/var/azureml-app"
        assert json.loads(bytes.fromhex(machine)) == {
            "hostName": project.environ["AML_REMOTE_HOST"],
            "user": project.environ["AML_REMOTE_USER"],
            "port": int(project.environ["AML_REMOTE_PORT"]),
        }


def without_launch_json(folder: Path) -> Path:
    """Take launch.json away, also what the run's background process writes once after its command has returned."""
    launch = folder / ".vscode" / "launch.json"
    launch.unlink()
    time.sleep(1)
    launch.unlink(missing_ok=True)
    return launch


def stop_at(place: dict[str, Any], script: Path, line: int, name: str, value: str) -> None:
    with session(place, {script: [line]}) as client:
        frame = stop_of(client)
        assert (frame["source"]["path"], frame["line"]) == (str(script), line)
        assert value_of(client, frame, name) == value
        go_on(client, frame)


def test_what_is_printed_of_a_service_lets_a_client_attach(project: Project) -> None:
    result = project.debug()
    launch = project.folder / ".vscode" / "launch.json"
    launch.unlink()
    (place,) = printed(project.ok("deploy.attach-config", "--print"))
    assert not launch.exists() and place["name"] == result["launch_configuration"]
    with session(place, {project.score: [PLAIN_LINE]}) as client:
        posting = Posting(result["scoring_url"])
        frame = stop_of(client)
        assert value_of(client, frame, "total") == "6"
        go_on(client, frame)
        assert posting.finish() == {"answer": 60}
    as_json = project.ok("deploy.attach-config", "--print", "--json").json
    assert as_json["debug"] == {"host": place["host"], "port": place["port"]}
    assert as_json["path_mappings"] == place["path_mappings"] and not launch.exists()


@pytest.fixture
def steps(tmp_path: Path) -> Iterator[PipelineProject]:
    made = make_pipeline_project(tmp_path / "a project", "process")
    yield made
    made.clean_up()


@pytest.fixture
def experiment(tmp_path: Path) -> Iterator[ExperimentProject]:
    made = make_experiment_project(tmp_path / "a project", "process")
    yield made
    made.clean_up()


def test_what_is_printed_of_a_pipeline_step_lets_a_client_attach(steps: PipelineProject) -> None:
    steps.ok("pipeline.debug", "--step", "prepare")
    launch = without_launch_json(steps.folder)
    (place,) = printed(steps.ok("pipeline.attach", "--print"))
    assert not launch.exists()
    stop_at(place, steps.script("prepare"), PREPARE_LINE, "numbers", "[1, 2, 3]")


def test_what_is_printed_of_an_experiment_lets_a_client_attach(experiment: ExperimentProject) -> None:
    experiment.debug("sums", "--script", "train.py")
    launch = without_launch_json(experiment.folder)
    (place,) = printed(experiment.ok("experiment.attach", "--print"))
    assert not launch.exists()
    stop_at(place, experiment.script, TRAIN_LINE, "numbers", "[1, 2, 3]")


def test_what_is_printed_of_the_other_machine_leads_there_from_here(tmp_path: Path, hosts: Hosts) -> None:
    with remote_project(tmp_path / "a project", hosts, hosts.instance) as project:
        result = project.remote("deploy.debug")
        project.ok("remote.stop")
        launch = project.folder / ".vscode" / "launch.json"
        launch.unlink()
        (place,) = printed(project.ok("deploy.attach-config", "--remote", "--print"))
        assert not launch.exists()
        with session(place, {project.score: [PLAIN_LINE]}) as client:
            posting = Posting(result["scoring_url"])
            frame = stop_of(client)
            assert frame["source"]["path"] == str(project.score)
            go_on(client, frame)
            assert posting.finish() == {"answer": 60}
        project.remote("container.stop")


def test_what_is_printed_of_a_step_on_the_other_machine_leads_there_too(tmp_path: Path, hosts: Hosts) -> None:
    with remote_project(tmp_path / "a project", hosts, hosts.instance) as project:
        project.remote("pipeline.debug", "--step", "prepare")
        (place,) = printed(project.ok("pipeline.attach", "--remote", "--print"))
        script = project.folder / "prepare" / "prepare.py"
        stop_at(place, script, PREPARE_LINE, "numbers", "[1, 2, 3]")
