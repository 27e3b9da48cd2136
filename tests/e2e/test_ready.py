"""A command that begins with the program loaded is the same as one that is started the usual way."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from conftest import make_project
from pipelines import make_pipeline_project
from projects import ROOT, Project, until
from ready import BARE, CLIENT, PLAIN, Command, Ready, ready, typed

BEGUN = "import os, sys, time\nopen('begun', 'w').write(f'{os.getpid()} {os.getsid(0)}')\ntime.sleep(60)\n"


@pytest.fixture
def source() -> Ready:
    found = ready(sys.executable, ROOT, os.environ)
    if found is None:
        pytest.skip("this system's processes have no descriptors")
    return found


@pytest.fixture
def made(tmp_path: Path) -> Project:
    """A project in which no engine is asked for anything."""
    return make_project(tmp_path / "a project", "process")


def both(project: Project, source: Ready, *arguments: str, **more: str) -> tuple[str, str, int]:
    """What a command says and how it ends, the same in both ways."""
    environ = {**os.environ, **project.environ, **more}
    usual = subprocess.run(
        [sys.executable, "-m", "invoke", *arguments], cwd=project.folder, env=environ, capture_output=True, text=True
    )
    assert source.takes(project.folder, environ)
    with Command(source, ["-m", "invoke", *arguments], project.folder, environ) as command:
        out, err = command.communicate(timeout=60)
    assert (out, err, command.returncode) == (usual.stdout, usual.stderr, usual.returncode)
    return out, err, command.returncode


@pytest.mark.parametrize(
    "words",
    [("--list",), ("deploy.inspect", "--help"), ("pipeline.status",), ("container.shell", "--", "x"), ("none",)],
)
def test_both_say_the_same(made: Project, source: Ready, words: tuple[str, ...]) -> None:
    out, err, code = both(made, source, *words)
    assert (out or err) and code in (0, 1)


def test_pythonpath_may_lead_to_the_program(made: Project, source: Ready) -> None:
    (made.folder / "tasks.py").write_text(BARE)
    assert not source.takes(made.folder, dict(os.environ))
    assert both(made, source, "pipeline.status", PYTHONPATH=str(ROOT))[2] == 1


def test_pythonpath_may_lead_to_the_program_and_to_the_tests_way_to_sign_in(made: Project) -> None:
    (made.folder / "tasks.py").write_text(BARE)
    led = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(CLIENT)]), "AML_AUTH": "azureml_server_credential:none"}
    source = ready(sys.executable, ROOT, {**os.environ, **led})
    if source is None:
        pytest.skip("this system's processes have no descriptors, or PYTHONPATH is set")
    assert not source.takes(made.folder, dict(os.environ))
    _, err, code = both(made, source, "remote.sync", AML_REMOTE_HOST="azureml:", **led)
    assert code == 1 and "names no compute instance" in err


ENDING = """import atexit, threading
atexit.register(print, "at exit", end="")
threading.Thread(target=lambda: (threading.main_thread().join(), print("a thread"))).start()
"""


@pytest.mark.parametrize("ends", ["", "raise SystemExit(300)", "raise SystemExit('words')"])
def test_it_ends_as_python_does(made: Project, source: Ready, ends: str) -> None:
    tasks = made.folder / "tasks.py"
    tasks.write_text(f"{tasks.read_text()}{ENDING}{ends}\n")
    out, _, code = both(made, source, "--list")
    assert out.endswith("a thread\nat exit")
    assert code == (300 & 0xFF if "300" in ends else bool(ends))


def test_its_environment_is_its_own(made: Project, source: Ready) -> None:
    assert "AML_DEBUG_TIMEOUT" in both(made, source, "pipeline.status", AML_DEBUG_TIMEOUT="soon")[1]
    assert "AML_DEBUG_TIMEOUT" not in both(made, source, "pipeline.status")[1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_signal_ends_it_and_is_its_status(made: Project, source: Ready, number: int, code: int) -> None:
    tasks = made.folder / "tasks.py"
    tasks.write_text(tasks.read_text() + BEGUN)
    begun = made.folder / "begun"
    with Command(source, ["-m", "invoke", "--list"], made.folder, dict(os.environ)) as command:
        until(lambda: begun.exists() and " " in begun.read_text(), "its beginning")
        assert begun.read_text() == f"{command.pid} {command.pid}"
        assert command.poll() is None
        command.send_signal(number)
        assert command.wait(30) == code
        assert command.poll() == code


def test_what_would_start_otherwise_is_started_the_usual_way(made: Project, source: Ready) -> None:
    environ = dict(os.environ)
    assert source.takes(made.folder, environ)
    for name in ("PYTHONPATH", "PYTHONUTF8", "LC_ALL", "TZ"):
        assert not source.takes(made.folder, {**environ, name: "anything"})
    for hiding in ("invoke.py", "docker/__init__.py", "sitecustomize.py"):
        place = made.folder / hiding
        place.parent.mkdir(exist_ok=True)
        place.touch()
        assert not source.takes(made.folder, environ)
        place.unlink()
        assert source.takes(made.folder, environ)
    tasks = made.folder / "tasks.py"
    tasks.write_text(tasks.read_text().replace(str(ROOT), "/another/clone"))
    assert not source.takes(made.folder, environ)
    tasks.unlink()
    assert not source.takes(made.folder, environ)


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (
            "import sys, __main__\nprint(sys.argv, __name__, open('made').read(), vars(__main__) is globals())",
            0,
        ),
        ("class Own: pass\nimport pickle\nprint(pickle.loads(pickle.dumps(Own())))\nraise SystemExit(7)", 7),
        ("1 / 0", 1),
    ],
)
def test_lines_of_python_do_as_from_the_start(tmp_path: Path, source: Ready, lines: str, code: int) -> None:
    (tmp_path / "made").write_text("read")
    environ = dict(os.environ)
    usual = subprocess.run([sys.executable, "-c", lines], cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert source.takes_lines(tmp_path, environ)
    with Command(source, ["-c", lines], tmp_path, environ) as command:
        out, err = command.communicate(timeout=60)
    assert command.returncode == usual.returncode == code
    assert re.sub("0x[0-9a-f]+", "", out) == re.sub("0x[0-9a-f]+", "", usual.stdout)
    assert err.splitlines()[-1:] == usual.stderr.splitlines()[-1:]
    (tmp_path / "docker.py").touch()
    assert not source.takes_lines(tmp_path, environ)


def test_what_another_process_starts_has_its_streams_and_its_end(made: Project, source: Ready) -> None:
    assert source.asked in typed(ROOT, made.folder, os.environ)
    tasks = made.folder / "tasks.py"
    tasks.write_text(tasks.read_text() + "print(sys.stdin.read(), file=sys.stderr)\n")
    found = [
        subprocess.run([*start, "--list"], cwd=made.folder, input="told", capture_output=True, text=True)
        for start in (typed(ROOT, made.folder, os.environ), [sys.executable, "-m", "invoke"])
    ]
    assert found[0].stdout == found[1].stdout and "deploy.debug" in found[0].stdout
    assert [one.stderr for one in found] == ["told\n", "told\n"]
    assert [one.returncode for one in found] == [0, 0]
    tasks.write_text(tasks.read_text() + "sys.exit(7)\n")
    assert subprocess.run([*typed(ROOT, made.folder, os.environ), "--list"], cwd=made.folder, input="").returncode == 7
    tasks.write_text(tasks.read_text().replace("sys.exit(7)", BEGUN))
    begun = made.folder / "begun"
    with subprocess.Popen(
        [*typed(ROOT, made.folder, os.environ), "--list"], cwd=made.folder, stdin=subprocess.DEVNULL
    ) as relay:
        until(lambda: begun.exists() and " " in begun.read_text(), "its beginning")
        relay.terminate()
        assert relay.wait(30) == 128 + signal.SIGTERM
    (made.folder / "invoke.py").touch()
    assert typed(ROOT, made.folder, os.environ) == [sys.executable, "-m", "invoke"]


def test_its_files_stay_open_when_garbage_is_collected(made: Project, source: Ready) -> None:
    tasks = made.folder / "tasks.py"
    lines = "import gc, os\nopened = [os.open('.', os.O_RDONLY) for _ in range(20)]\ngc.collect()\n"
    tasks.write_text(f"{tasks.read_text()}{lines}print([os.path.isdir(one) for one in opened])\n")
    assert both(made, source, "--list")[0].startswith(str([True] * 20))


def test_what_a_command_leaves_in_the_background_begins_as_it_has(tmp_path: Path, source: Ready) -> None:
    project = make_pipeline_project(tmp_path / "a project", "process")
    seen = tmp_path / "seen"
    project.single(f"import os, time\nwhile not os.path.exists({str(seen)!r}):\n    time.sleep(0.05)\n")
    lines, ends = [], []
    for more in ({}, {PLAIN: "1"}):
        run = project.ok("pipeline.debug", "--no-wait", "--json", **more).json["run_id"]
        folder = project.runs / run
        runner = psutil.Process(json.loads((folder / "runner.json").read_text())["pid"])
        lines.append(" ".join(runner.cmdline()))
        assert os.getsid(runner.pid) == runner.pid
        until(lambda: Path(runner.cwd()) == folder, "its run")  # noqa: B023
        seen.touch()
        runner.wait(60)
        seen.unlink()
        ends.append((project.record()["status"], (folder / "runner.log").read_text()))
    assert "ready_process.py" in lines[0] and "workflows.runs.runner --warm" in lines[1]
    assert ends == [("Completed", "")] * 2
