"""`container.list` and `container.prune`: what is there, and taking away only what nobody needs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import make_project

from workflows.engines.step_variables import MARK

if TYPE_CHECKING:
    from projects import Project


def environment(cache: Path, digest: str) -> Path:
    """A finished environment, as a build leaves it."""
    folder = cache / "azureml-debug" / "environments" / digest[:16]
    folder.mkdir(parents=True)
    (folder / "azureml-debug.json").write_text(
        json.dumps({"name": "inference", "digest": digest, "bytes": 5_000_000, "executable": "python", "notes": []})
    )
    return folder


def user(cache: Path, project: Path, digest: str) -> None:
    """A project's note of what it uses."""
    folder = cache / "azureml-debug" / "projects"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{digest[:8]}.json").write_text(json.dumps({"project": str(project), "digests": {"inference": digest}}))


@pytest.mark.parametrize("engine", ["process"], indirect=True)
def test_prune_removes_what_no_project_uses_and_nothing_else(project: Project, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    here = {"XDG_CACHE_HOME": str(cache), "DOCKER_HOST": "unix:///nowhere/docker.sock"}
    used, orphaned, unknown = (environment(cache, letter * 64) for letter in "abc")
    half = cache / "azureml-debug" / "environments" / "half"
    half.mkdir()
    user(cache, project.folder, "a" * 64)
    user(cache, tmp_path / "deleted project", "b" * 64)
    dry = project.ok("container.prune", "--dry-run", "--json", **here).json
    assert {row["name"].split()[-1] for row in dry["removed"]} >= {"b" * 12, "c" * 12}
    assert all(folder.is_dir() for folder in (used, orphaned, unknown, half))
    out = project.ok("container.prune", **here).out
    assert "10.0 MB was given back" in out
    assert used.is_dir()
    assert not any(folder.exists() for folder in (orphaned, unknown, half))
    assert "Nothing is unused" in project.ok("container.prune", **here).out


def test_prune_removes_what_a_step_has_installed_once_its_run_has_ended(tmp_path: Path) -> None:
    folder = make_project(tmp_path / "project", "process")
    cache = tmp_path / "cache"
    here = {"XDG_CACHE_HOME": str(cache), "DOCKER_HOST": "unix:///nowhere/docker.sock"}
    of_environment = cache / "a-file"
    for run in ("killed-1-abc", "runs-2-abc", "begins-3-abc"):
        place = cache / "azureml-debug" / "steps" / run / "train"
        place.mkdir(parents=True)
        (place / "installed").write_bytes(bytes(2_000_000))
        of_environment.write_bytes(bytes(9_000_000))
        (place / "linked").hardlink_to(of_environment)
    begins = tmp_path / "begins-3-abc"
    begins.mkdir()
    marked = {**os.environ, MARK: "runs-2-abc/train"}
    step = subprocess.Popen(["sleep", "600"], env=marked)
    runner = subprocess.Popen(["sleep", "600"], cwd=begins)
    try:
        dry = folder.ok("container.prune", "--dry-run", "--json", **here).json["removed"]
        assert dry == [{"name": "packages of a step of killed-1-abc", "bytes": 2_000_000}]
        assert "2.0 MB was given back" in folder.ok("container.prune", **here).out
    finally:
        for process in (step, runner):
            process.kill()
            process.wait()
    assert sorted(path.name for path in (cache / "azureml-debug" / "steps").iterdir()) == [begins.name, "runs-2-abc"]
    assert of_environment.stat().st_size == 9_000_000


def test_list_names_each_service_with_its_state_and_ports(project: Project) -> None:
    debug = project.debug()
    (row,) = [
        row for row in project.ok("container.list", "--json").json["services"] if row["project"] == str(project.folder)
    ]
    assert (row["name"], row["engine"], row["state"]) == (debug["container"], debug["engine"], "running")
    assert str(debug["debug"]["port"]) in row["ports"]
    assert debug["container"] in project.ok("container.list").out


@pytest.mark.parametrize("engine", ["docker"], indirect=True)
def test_prune_leaves_an_image_alone_that_somebody_gave_a_name(project: Project, tmp_path: Path) -> None:
    if shutil.which("docker") is None:
        pytest.fail("the docker command is part of the engine's package")
    folder = project.folder / "somebodys-environment"
    folder.mkdir()
    (folder / "requirements.txt").write_text("# all in the Dockerfile\n")
    (folder / "Dockerfile").write_text(f"FROM azureml-debug/base:latest\nENV MARK={tmp_path.name}\n")
    project.ok("deploy.build", "--inference-env", folder.name)
    project.ok("deploy.tag", "--inference-env", folder.name, "--image-tag", "somebodys/own:1")
    try:
        # The project now uses another environment, so nobody uses this one.
        project.ok("deploy.build")
        rows = project.ok("container.prune", "--dry-run", "--json").json["removed"]
        assert not [row for row in rows if "somebodys/own" in row["name"] or folder.name in row["name"]]
    finally:
        subprocess.run(["docker", "rmi", "somebodys/own:1"], check=True, capture_output=True)


def test_a_service_whose_project_was_moved_is_listed_where_it_is_now(project: Project) -> None:
    project.debug()
    before = project.folder
    project.folder = before.rename(before.with_name("a moved project"))
    rows = project.ok("container.list", "--json").json["services"]
    (row,) = [row for row in rows if row["project"] in (str(before), str(project.folder))]
    assert (row["project"], row["state"]) == (str(project.folder), "running")
    assert project.ok("container.stop", "--json").json["stopped"]


@pytest.mark.parametrize("engine", ["docker"], indirect=True)
@pytest.mark.parametrize("ended", [False, True])
def test_prune_takes_away_the_container_of_a_deleted_project_and_spares_that_of_a_moved_one(
    project: Project, tmp_path: Path, ended: bool
) -> None:
    from workflows.engines.docker import DockerEngine

    own = f"container {project.debug()['container']} of {project.folder}, which is gone"

    def abandoned(known: frozenset[str] = frozenset()) -> list[str]:
        return [name for name, _size, _remove in DockerEngine().list_abandoned(known)]

    assert own not in abandoned()
    handle = json.loads((project.state / "session.json").read_text())["handle"]
    before = project.folder
    project.folder = before.rename(before.with_name("a moved project"))
    assert own not in abandoned()
    shutil.rmtree(project.folder)
    if ended:
        subprocess.run(["docker", "stop", "-t", "0", handle], check=True, capture_output=True)
    assert own in abandoned() and own not in abandoned(frozenset({handle}))
    other = make_project(tmp_path / "another project", "docker")
    rows = other.ok("container.list", "--json").json["services"]
    assert str(before) in [row["project"] for row in rows]
    dry = other.ok("container.prune", "--dry-run", "--json").json
    assert own in [row["name"] for row in dry["removed"]]
    # Only its own one: the machine's other containers are none of this test's.
    (remove,) = [remove for name, _size, remove in DockerEngine().list_abandoned(frozenset()) if name == own]
    remove()
    assert own not in abandoned()
    assert str(before) not in [row["project"] for row in other.ok("container.list", "--json").json["services"]]
    project.folder.mkdir()
