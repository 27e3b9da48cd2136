"""What the program keeps is for its user alone, whatever the umask; what is meant for others is as the umask says."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterable
from pathlib import Path

import pytest
from experiments import make_experiment_project
from pipelines import PipelineProject
from projects import Project, post

#: Types a command with a umask that leaves everything open, or one that is usual.
UMASKS = {"open": "000", "usual": "022"}


def typed(project: Project, umask: str) -> None:
    project.prefix = ("/bin/sh", "-c", f'umask {umask}; exec "$@"', "sh")


def open_to_others(folder: Path, theirs: Iterable[str] = ()) -> list[str]:
    """What others may do something with, in what the program keeps.

    Args:
        folder: Where to look.
        theirs: Names of folders whose content a person's own script has made.
    """
    found = []
    for path in [folder, *folder.rglob("*")]:
        if path.is_symlink() or not set(theirs).isdisjoint(path.relative_to(folder).parts[:-1]):
            continue
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
        except FileNotFoundError:
            continue  # What runs in the background has taken it away meanwhile.
        if mode & 0o077:
            found.append(f"{path.relative_to(folder)} {mode:o}")
    return found


# What umask it is makes no difference to an engine.
@pytest.mark.parametrize(
    ("engine", "umask"), [("process", "open"), ("process", "usual"), ("docker", "open")], indirect=["engine"]
)
def test_a_services_files_are_its_users(project: Project, umask: str, tmp_path: Path) -> None:
    typed(project, UMASKS[umask])
    # One that an earlier version has left open.
    state = project.folder / ".azureml-debug"
    state.mkdir(mode=0o777)
    state.chmod(0o777)
    debug = project.debug()
    assert post(debug["scoring_url"]) == {"answer": 60}
    # runsv's own are in a folder that nobody else enters.
    assert open_to_others(state, ["supervise"]) == []
    session = json.loads((project.state / "session.json").read_text())
    assert session["name"] == debug["container"]
    launch = project.folder / ".vscode" / "launch.json"
    assert stat.S_IMODE(launch.stat().st_mode) == 0o666 & ~int(UMASKS[umask], 8)
    project.ok("container.stop")
    assert (project.state / "last" / "service.log").exists()
    assert open_to_others(state) == []


def test_a_runs_files_are_its_users(pipelines: PipelineProject) -> None:
    typed(pipelines, UMASKS["open"])
    pipelines.ok("pipeline.debug", "--no-wait")
    assert pipelines.until_final()["status"] == "Completed"
    state = pipelines.folder / ".azureml-debug"
    # What a script writes is its own affair, in folders that nobody else enters.
    assert open_to_others(state, ["outputs", "logs", "data", "work"]) == []
    logs = list(state.rglob("70_driver_log.txt"))
    assert len(logs) == 3 and all(stat.S_IMODE(log.stat().st_mode) == 0o600 for log in logs)
    announced = list(state.rglob("events.jsonl"))
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in announced)


def test_an_experiments_files_are_its_users(tmp_path: Path, engine: str) -> None:
    experiment = make_experiment_project(tmp_path / "a project", engine)
    typed(experiment, UMASKS["open"])
    try:
        experiment.debug("sums", "--script", "train.py", "--no-wait")
        record = experiment.until_final()
        state = experiment.folder / ".azureml-debug"
        assert open_to_others(state, ["outputs", "logs", "data", "work"]) == []
        assert stat.S_IMODE((Path(record["folder"]) / "azureml-logs" / "60_control_log.txt").stat().st_mode) == 0o600
        # What it asked to be made is as the person's other files are.
        assert stat.S_IMODE(experiment.configuration().stat().st_mode) & 0o044
    finally:
        experiment.clean_up()
