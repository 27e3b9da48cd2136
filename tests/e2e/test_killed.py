"""Commands that are killed at any moment: the same one works next, and after its end nothing is left of either."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import Hostile, make_project
from experiments import ExperimentProject, make_experiment_project
from pipelines import PipelineProject, make_pipeline_project
from projects import Project, listeners, until
from ready import PLAIN as STARTED_PLAINLY

#: Kills of the whole suite; `--hostile N` makes N.
KILLS = 12
#: What everything that a project's commands start on this machine has in its environment.
MARK = "KILLED_COMMANDS_MARK"
#: Modules that go on in the background.
BACKGROUND = ("workflows.runs.runner", "workflows.remote", "workflows.forwarder", "workflows.azureml")


#: What is written before it gets its name carries the mark of its process.
HALF = re.compile(r"^\..*\.\d+-\d+-[0-9a-f]{8}(\.tmp)?$")
#: Locks, and the record of a service.
HELD = ("lock", "lock.json", "submitting", "taking", "session.json")


@dataclass
class Story:
    """A command that is killed, and what ends what it starts."""

    project: Project
    debug: tuple[str, ...]
    end: str
    mark: str
    runtime: Path
    #: Seconds that it took the last time that it was undisturbed.
    seconds: float = 0.0
    said: list[str] = field(default_factory=list)

    def ours(self) -> list[psutil.Process]:
        """The processes of the project's commands and of what they have started."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def left(self) -> list[str]:
        """What is left: processes, containers, links, locks, half files, notes of what goes on."""
        state = self.project.folder / ".azureml-debug"
        found = [f"process {process.pid}: {command_of(process)}" for process in self.ours()]
        if self.project.environ["AML_ENGINE"] == "docker":
            found += [f"container {one['Names']} {one['Status']}" for one in containers(self.project.folder)]
        found += [f"file {path}" for path in self.runtime.rglob("*") if not path.is_dir()]
        for path in [*state.rglob("*"), *(self.project.folder / ".vscode").rglob("*")]:
            if HALF.search(path.name) or path.name in HELD or path.parent.name == "active":
                found.append(f"file {path}")
        links = Path(f"/tmp/azureml-debug-{os.getuid()}")
        runs = {path.name for path in (state / "runs").glob("*-*")}
        found += [f"links {path}" for path in (links.iterdir() if links.is_dir() else ()) if path.name in runs]
        found += [f"half run {name}" for name in runs if not (state / "runs" / name / "run.json").exists()]
        return found

    def forwarders(self) -> list[psutil.Process]:
        """Those of the project's containers; they are given few variables, and no mark."""
        if self.project.environ["AML_ENGINE"] != "docker":
            return []
        from workflows.engines.ports import FORWARDER

        known, found = {one["Id"] for one in containers(self.project.folder)}, []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get(FORWARDER) in known:
                    found.append(process)
        return found

    def kill(self, child: subprocess.Popen[str], everything: bool) -> None:
        """Kill the command, or with it whatever of the program goes on in the background by then."""
        others = [process for process in self.ours() if process.pid != child.pid] if everything else []
        others += self.forwarders() if everything else []
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
        for process in others:
            with contextlib.suppress(psutil.Error):
                if any(module in command_of(process) for module in BACKGROUND):
                    process.kill()


def command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def containers(project: Path) -> list[dict[str, Any]]:
    from workflows.engines.docker_client import connect

    with contextlib.closing(connect()) as client:
        found: list[dict[str, Any]] = client.api.containers(
            all=True, filters={"label": f"azureml-debug.project={project}"}
        )
        return found


@pytest.fixture(params=["deploy", "pipeline", "experiment"])
def story(request: pytest.FixtureRequest, tmp_path: Path, engine: str) -> Iterator[Story]:
    """Each story on each engine, done once undisturbed."""
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    folder, mark = tmp_path / "a project", uuid.uuid4().hex
    made: Project
    if request.param == "deploy":
        made = make_project(folder, engine)
        made.environ |= {"AML_IMAGE_TAG": f"debug-of-killed-{mark[:8]}:1", "AML_CONTAINER_NAME": f"killed-{mark[:8]}"}
        found = Story(made, ("deploy.debug", "--json"), "container.stop", mark, runtime)
    elif request.param == "pipeline":
        made = make_pipeline_project(folder, engine)
        found = Story(made, ("pipeline.debug", "--json"), "pipeline.cancel", mark, runtime)
    else:
        made = make_experiment_project(folder, engine)
        debug = ("experiment.debug", "sums", "--script", "train.py", "--json")
        found = Story(made, debug, "experiment.cancel", mark, runtime)
    # What goes on in the background is found by its variables and its command line.
    made.environ |= {MARK: mark, "XDG_RUNTIME_DIR": str(runtime), STARTED_PLAINLY: "1"}
    if request.param == "deploy":
        # One that is missing takes longer than all the rest.
        made.ok("deploy.build")
    began = time.monotonic()
    made.ok(*found.debug)
    found.seconds = time.monotonic() - began
    made.ok(found.end)
    nothing_is_left(found)
    yield found
    made.clean_up()
    for process in found.ours():
        with contextlib.suppress(psutil.Error):
            process.kill()
    if request.param == "deploy" and engine == "docker":
        from docker.errors import APIError

        from workflows.engines.docker_client import connect

        with contextlib.closing(connect()) as client, contextlib.suppress(APIError):
            # The name only: the environment's image has another one.
            client.api.remove_image(made.environ["AML_IMAGE_TAG"])


def nothing_is_left(story: Story, how: str = "") -> None:
    """Look until nothing is; what is just ending has a moment for it."""
    deadline = time.monotonic() + 10
    while left := story.left():
        assert time.monotonic() < deadline, "\n".join([how, *left, *story.said])
        time.sleep(0.05)


def ports_of(result: dict[str, Any]) -> list[int]:
    """The ports on which a command has said that debuggers are welcome."""
    if "debug" in result:
        return [result["debug"]["port"]]
    return [one["port"] for one in result["endpoints"]]


def kill_once(story: Story, source: random.Random) -> str:
    """Kill the command at a random moment, type it again, end it; what was done, for a message."""
    project = story.project
    moment, everything = source.uniform(0, 1.1 * story.seconds), source.random() < 0.4
    how = f"{' '.join(story.debug)}, killed after {moment:.3f} s{' with its background' if everything else ''}"
    child = project.start(*story.debug)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(moment)
    story.kill(child, everything)
    first = project.finish(child)
    project.children.remove(child)
    if first.code == 0:
        # It was over by then, and has begun something whole: a person ends that.
        assert project.inv(story.end).code in (0, 1)
        how += " (it was over)"
    began = time.monotonic()
    again = project.inv(*story.debug)
    story.seconds = time.monotonic() - began
    story.said[:] = [how, f"first: {first}", f"again: {again}"]
    assert again.code == 0, story.said
    ports = ports_of(again.json)
    assert ports and all(listeners(port) for port in ports), story.said
    last = project.inv(story.end)
    story.said.append(f"end: {last}")
    assert last.code == 0, story.said
    nothing_is_left(story, how)
    # A forwarder carries no mark, and listens.
    assert not [listeners(port) for port in ports if listeners(port)], story.said
    return how


def test_a_command_that_is_killed_at_any_moment_works_again_and_leaves_nothing(
    story: Story, hostile: Hostile, request: pytest.FixtureRequest
) -> None:
    kills = KILLS if request.config.option.hostile is None else hostile.count
    # Shared among the three stories on two engines.
    for index in range(max(2, kills // 6)):
        print(f"kill {index}:", kill_once(story, hostile.random(index)), flush=True)


@pytest.mark.parametrize("everything", [False, True], ids=["the command", "and its runner"])
def test_an_experiment_whose_command_was_killed_while_it_holds_is_debugged_again(
    tmp_path: Path, engine: str, everything: bool
) -> None:
    project = make_experiment_project(tmp_path / "a project", engine)
    command = ("experiment.debug", "sums", "--script", "train.py")
    try:
        # Follows the log, so that it is still there while the script holds.
        child = project.start(*command, "--follow")
        until(lambda: (project.folder / ".vscode" / "launch.json").exists(), "the launch configuration")
        first = project.record()
        if everything:
            os.kill(psutil.Process(int(runner_of(project, first["run_id"]))).pid, signal.SIGKILL)
        child.kill()
        project.finish(child)
        result = project.ok(*command, "--json").json
        assert result["run_id"] != first["run_id"]
        ended = project.record(first["run_id"])["status"]
        assert ended == ("Interrupted" if everything else "Canceled")
        assert not marked(first["run_id"])
        assert project.ok("experiment.cancel", "--json").json["run_id"] == result["run_id"]
    finally:
        project.clean_up()


def runner_of(project: Project, run_id: str) -> int:
    import json

    path = project.folder / ".azureml-debug" / "runs" / run_id / "runner.json"
    return int(json.loads(path.read_text())["pid"])


def marked(run_id: str) -> list[int]:
    from pipelines import running_marked

    return running_marked(run_id)


#: The first thing that any command does has nothing to do with the engine.
COMMANDS = [
    ("process", "container.list"),
    ("process", "experiment.list"),
    ("process", "deploy.stop"),
    ("process", "pipeline.list"),
    ("docker", "container.list"),
]


@pytest.mark.parametrize(("engine", "command"), COMMANDS, indirect=["engine"])
def test_ranks_of_a_killed_runner_are_taken_away_by_the_next_command_of_any_kind(
    pipelines: PipelineProject, command: str
) -> None:
    pipelines.ok("pipeline.debug", "--json")
    run = pipelines.record()
    os.kill(runner_of(pipelines, run["run_id"]), signal.SIGKILL)
    if pipelines.environ["AML_ENGINE"] == "docker":
        assert containers(pipelines.folder)
    else:
        assert marked(run["run_id"])
    pipelines.ok(command)
    assert not marked(run["run_id"])
    if pipelines.environ["AML_ENGINE"] == "docker":
        assert not containers(pipelines.folder)
    assert pipelines.record()["status"] == "Interrupted"
    assert not list((pipelines.runs / "active").iterdir())


def test_of_two_commands_at_once_one_is_killed_and_the_other_works(
    tmp_path: Path, engine: str, hostile: Hostile
) -> None:
    project = make_experiment_project(tmp_path / "a project", engine)
    command = ("experiment.debug", "sums", "--script", "train.py", "--json")
    project.ok(*command)
    project.ok("experiment.cancel")
    try:
        for index in range(2):
            children = [project.start(*command) for _ in range(2)]
            source = hostile.random(index)
            time.sleep(source.uniform(0.1, 1.5))
            source.choice(children).kill()
            results = [project.finish(child) for child in children]
            for result in results:
                if result.code == 1:
                    result.says("is being debugged already")
            if not any(result.code == 0 for result in results):
                project.ok(*command)
            assert project.ok("experiment.cancel", "--json").json["canceled"]
            assert not list((project.runs / "active").iterdir())
    finally:
        project.clean_up()


def test_a_finished_session_is_still_nobody_elses_to_replace(tmp_path: Path) -> None:
    project: ExperimentProject = make_experiment_project(tmp_path / "a project", "process")
    try:
        project.debug("sums", "--script", "train.py")
        project.inv("experiment.debug", "sums").says("is being debugged already")
        assert project.ok("experiment.cancel", "--json").json["canceled"]
    finally:
        project.clean_up()


def test_the_exit_code_is_that_of_all_that_was_asked_for(tmp_path: Path) -> None:
    project: ExperimentProject = make_experiment_project(tmp_path / "a project", "process")
    tasks = project.folder / "tasks.py"
    tasks.write_text(
        tasks.read_text() + "from invoke import task\n@task\ndef fails(context):\n    raise SystemExit(3)\n"
        "ns.add_task(fails)\n"
    )
    try:
        debug = ("experiment.debug", "sums", "--script", "train.py")
        assert project.inv(*debug).code == 0
        assert project.inv("experiment.cancel").code == 0
        assert project.inv("experiment.debug", "others", "--script", "train.py", "fails").code == 3
        assert project.inv("experiment.cancel").code == 0
        project.write("broken.py", "raise ValueError('no')\n")
        assert project.inv("experiment.debug", "sums", "--script", "broken.py", "--no-wait").code in (0, 1)
        project.inv("experiment.cancel")
        assert project.inv("experiment.run", "sums", "--script", "broken.py", "--follow").code == 1
        assert not list((project.runs / "active").iterdir())
    finally:
        project.clean_up()
