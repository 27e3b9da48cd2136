"""A disk that is full, or nearly: it is said soon, with what is left where, and the rest is as it was."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import make_project, missing
from disks import fill, mounted, use_inodes, what_is_missing
from experiments import ExperimentProject, make_experiment_project
from projects import ANY_ENGINE, Project, post

EXPERIMENT = ("experiment.debug", "sums", "--script", "train.py")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own for a project."""
    if reason := what_is_missing():
        missing(reason)
    with mounted(tmp_path / "disk", "size=600k,nr_inodes=400") as folder:
        yield folder


@pytest.fixture
def project(disk: Path, engine: str) -> Iterator[Project]:
    made = make_project(disk / "a project", engine)
    yield made
    made.clean_up()


@pytest.fixture
def experiment(disk: Path, engine: str) -> Iterator[ExperimentProject]:
    made = make_experiment_project(disk / "a project", engine)
    yield made
    made.clean_up()


def bytes_left(engine: str, *left: int) -> tuple[int, ...]:
    """Bytes that are left on the disk; what notices it at which of them has nothing to do with the engine."""
    return left[:1] if engine == "docker" else left


#: Fills the disk of the announcements; their own file to the end of a page, with blank lines, which say nothing.
FILL = """\
import os
for end, line in ((".filler", b"x" * 4096), ("", b"\\n" * 64)):
    with open(os.environ["AZUREML_DEBUGGEE_EVENTS"] + end, "ab", buffering=0) as file:
        try:
            while file.write(line):
                pass
        except OSError:
            pass
"""


def says_it_is_full(result: object, disk: Path) -> None:
    result.says("The disk ", f"(tmpfs on {disk})")  # type: ignore[attr-defined]


def test_a_service_that_serves_and_cannot_announce_it_is_told_as_such(project: Project, disk: Path) -> None:
    project.ok("vscode.setup")
    # The disk fills while score.py is loaded, as by a log that grows.
    project.score.write_text(f"def init():\n{textwrap.indent(FILL, '    ')}def run(data):\n    return 1\n")
    before = (project.folder / ".vscode" / "launch.json").read_bytes()
    result = project.inv("deploy.debug")
    result.says("The service debug", "serves, but cannot announce it: The disk is full: 0 bytes", f"(tmpfs on {disk})")
    assert (project.folder / ".vscode" / "launch.json").read_bytes() == before
    assert not (project.state / "session.json").exists()


def test_a_project_on_a_full_disk_is_told_so_and_works_once_there_is_room(
    project: Project, disk: Path, engine: str
) -> None:
    for left in bytes_left(engine, 0, 4096, 16384):
        filler = fill(disk, left)
        says_it_is_full(project.inv("deploy.debug"), disk)
        filler.unlink()
    assert post(project.debug()["scoring_url"]) == {"answer": 60}


def test_a_project_on_a_disk_without_inodes_is_told_so(project: Project, disk: Path) -> None:
    use_inodes(disk, leave=2)
    result = project.inv("deploy.debug")
    result.says("all of its inodes are used", f"(tmpfs on {disk})")


def test_an_experiment_on_a_full_disk_is_told_so_and_works_once_there_is_room(
    experiment: ExperimentProject, disk: Path, engine: str
) -> None:
    for left in bytes_left(engine, 0, 8192, 24576):
        filler = fill(disk, left)
        says_it_is_full(experiment.inv(*EXPERIMENT), disk)
        filler.unlink()
    assert experiment.debug(*EXPERIMENT[1:])["status"] == "Running"
    assert experiment.ok("experiment.cancel", "--json").json["canceled"]


def test_a_step_that_runs_and_cannot_announce_itself_is_told_as_such(experiment: ExperimentProject, disk: Path) -> None:
    experiment.debug("sums", "--script", "train.py")
    experiment.ok("experiment.cancel")
    # The announcements' disk is full before the script's own python starts.
    experiment.write("first.py", f"{FILL}import time\ntime.sleep(60)\n")
    result = experiment.inv("experiment.debug", "sums", "--script", "first.py", "--on-error")
    result.says("sums runs, but cannot announce where it listens: The disk is full", f"(tmpfs on {disk})")
    assert experiment.record()["status"] in ("Running", "Canceled")


# Images are not in the cache.
@ANY_ENGINE
def test_a_full_cache_is_named_with_the_setting_that_puts_it_elsewhere(project: Project, disk: Path) -> None:
    fill(disk, 8192)
    project.inv("deploy.debug", XDG_CACHE_HOME=str(disk / "cache")).says("The disk ", f"(tmpfs on {disk})")


STREAMS = [("stdout", "Standard output"), ("stderr", "Standard error")]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize(("stream", "words"), STREAMS)
@pytest.mark.parametrize(
    ("command", "unbuffered"),
    [
        (("container.list",), ""),
        (("container.list",), "1"),
        (("container.list", "--json"), ""),
        (("container.list", "--json"), "1"),
        (("experiment.show",), ""),
        (("deploy.inspect", "score.py:x"), ""),
        (("deploy.inspect", "score.py:x"), "1"),
        (("container.logs",), ""),
    ],
)
def test_an_output_that_cannot_be_written_is_no_full_disk_of_the_projects(
    tmp_path: Path, stream: str, words: str, command: tuple[str, ...], unbuffered: str
) -> None:
    project = make_experiment_project(tmp_path / "a project", "process")
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with open("/dev/full", "w") as full:
        streams[stream] = full  # type: ignore[assignment]
        done = subprocess.run(
            [sys.executable, "-m", "invoke", *command],
            cwd=project.folder,
            env={**os.environ, **project.environ, "PYTHONUNBUFFERED": unbuffered},
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
            **streams,  # type: ignore[call-overload]
        )
    told = (done.stderr or "") + (done.stdout or "")
    assert "Traceback" not in told and "Exception ignored" not in told, told
    assert "disk is full" not in told and "No space is left" not in told, told
    if done.returncode == 0:
        # Nothing was written to that stream.
        assert stream == "stderr", done
        return
    if stream == "stdout" and ("experiment.show" in command or "logs" in command[0] or "inspect" in command[0]):
        # These end in an error of their own here, said on the other stream.
        assert done.returncode in (1, 2) and "error: " in told
        return
    if stream == "stdout":
        assert done.returncode == 1
        wrong, todo = done.stderr.strip().splitlines()[-2:]
        assert f"error: {words} cannot be written: No space left on device." in wrong and todo
    else:
        # What was wrong is said on the stream that works.
        assert done.returncode in (1, 2) and "error: " in done.stdout


#: What only shows how things are.
LOOKS = [
    ("container.list",),
    ("container.logs", "--tail", "3"),
    ("pipeline.list",),
    ("experiment.list",),
]


def full_of_bytes(disk: Path) -> None:
    fill(disk)


def full_of_files(disk: Path) -> None:
    use_inodes(disk)


# Of what it is full makes no difference to an engine, and both commands are the same one.
@pytest.mark.parametrize(
    ("engine", "full", "command"),
    [
        ("process", full_of_bytes, "container.stop"),
        ("process", full_of_files, "deploy.stop"),
        ("docker", full_of_files, "deploy.stop"),
    ],
    indirect=["engine"],
)
def test_a_full_disk_keeps_no_service_from_being_looked_at_and_stopped(
    project: Project, disk: Path, full: Callable[[Path], None], command: str
) -> None:
    url = project.debug()["scoring_url"]
    full(disk)
    for look in LOOKS:
        project.ok(*look)
    stopped = project.ok(command, "--json")
    assert stopped.json["stopped"]
    with pytest.raises(OSError):
        post(url)
    assert not (project.state / "session.json").exists()
    assert [path.name for path in project.state.iterdir() if path.name not in ("last", "forwarder.log")] == []
    kept = project.inv("container.logs")
    if "could not be kept" in stopped.err:
        assert "note: the last log of " in stopped.err and "could not be kept: The disk " in stopped.err
        kept.says("No log of a service of this project is kept.")
    else:
        assert kept.code == 0
    assert "No service of this project is running." in project.ok("container.stop").out
    project.ok("container.list")


@pytest.mark.parametrize(
    ("engine", "full"),
    [("process", full_of_bytes), ("process", full_of_files), ("docker", full_of_bytes)],
    indirect=["engine"],
)
def test_runs_on_a_full_disk_are_shown_and_canceled(
    experiment: ExperimentProject, disk: Path, full: Callable[[Path], None]
) -> None:
    experiment.debug(*EXPERIMENT[1:])
    full(disk)
    for look in (("experiment.list",), ("experiment.list", "--json"), ("experiment.logs",), ("pipeline.list",)):
        experiment.ok(*look)
    experiment.ok("experiment.cancel")
    assert "Running" not in experiment.ok("experiment.list").out


@ANY_ENGINE
def test_a_project_that_has_never_been_used_is_shown_on_a_full_disk(project: Project, disk: Path) -> None:
    use_inodes(disk)
    for look in (("container.list",), ("pipeline.list",), ("experiment.list",)):
        project.ok(*look)
    project.inv("container.logs").says("No log of a service of this project is kept.")
    assert "No service of this project is running." in project.ok("container.stop").out
    assert not (project.folder / ".azureml-debug").exists()
