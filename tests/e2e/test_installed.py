"""The program as other projects have it: a wheel in their own environment, two lines in their tasks.py."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import missing
from projects import PLAIN, PLAIN_LINE, ROOT, Project, post
from services import Posting, attach, stop_of, value_of
from wheelhouse import PYTHON, make_wheelhouse

TASKS = '"""Our tasks."""\nfrom workflows import namespace as ns\n'


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command that has to work; its standard output."""
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Project]:
    """A project with nothing but tasks.py, score.py and an environment that the wheel is installed into."""
    if not Path(PYTHON).exists():
        missing(f"{PYTHON} is not here")
    wheels = make_wheelhouse(Path(os.environ["XDG_CACHE_HOME"]))
    offline = ("--no-index", "--find-links", wheels)
    folder = tmp_path / "their project"
    (folder / "service").mkdir(parents=True)
    (folder / "service" / "score.py").write_text(PLAIN)
    (folder / "tasks.py").write_text(TASKS)
    venv = folder / ".venv"
    # The tests' own pip installs into it: to give it one takes as long as all of its packages.
    run(PYTHON, "-m", "venv", "--without-pip", venv, cwd=folder)
    pip = (sys.executable, "-m", "pip", "--python", venv / "bin" / "python")
    run(*pip, "wheel", "--quiet", "--no-deps", *offline, "--wheel-dir", tmp_path / "made", ROOT, cwd=tmp_path)
    (wheel,) = (tmp_path / "made").glob("*.whl")
    run(*pip, "install", "--quiet", *offline, wheel, cwd=folder)
    environ = {"AML_ENGINE": "process", "AML_SCORING_PORT": "0", "AML_DEBUG_PORT": "0", "PYTHONPATH": ""}
    made = Project(folder, environ, python=str(venv / "bin" / "python"))
    yield made
    made.clean_up()


@pytest.mark.timeout(600)
def test_a_wheel_in_an_empty_project_stops_at_a_breakpoint_in_its_score(installed: Project) -> None:
    folder = installed.folder
    code = "import workflows; print(workflows.__file__)"
    assert Path(run(installed.python, "-c", code, cwd=folder).strip()).is_relative_to(folder / ".venv")

    # Until the project names its own files the program's example is run, out of the wheel.
    example = installed.debug()
    assert "_defaults" in example["path_mappings"][0]["localRoot"]
    flower = {"data": [[5.1, 3.5, 1.4, 0.2]]}
    assert post(example["scoring_url"], flower) == {"predictions": ["setosa"]}

    (folder / ".env").write_text("AML_SCORE_SCRIPT=service/score.py\n")
    result = installed.debug()
    with attach(installed, result, PLAIN_LINE) as client:
        posting = Posting(result["scoring_url"])
        frame = stop_of(client)
        assert (frame["source"]["path"], frame["line"]) == (str(installed.score), PLAIN_LINE)
        assert value_of(client, frame, "total") == "6"
        client.request("continue", {"threadId": frame["thread"]}, 20)
        assert posting.finish() == {"answer": 60}
    # The other stories' examples and environments come with it too.
    installed.ok("pipeline.debug", "--json", "--step", "evaluate")
    installed.ok("pipeline.cancel")
