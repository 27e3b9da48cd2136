"""The README's first commands, typed by an ordinary user in a clean clone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import blocks
from projects import ROOT, post

#: Somebody who is not root and has no entry in the list of users.
STRANGER = 54321


class Person:
    """Somebody's home folder with a clean clone in it, and commands run as that person."""

    def __init__(self, home: Path) -> None:
        self.home, self.clone = home, home / "a clone"
        self.uid = STRANGER if os.getuid() == 0 else os.getuid()
        listed = subprocess.run(
            ["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
        ).stdout
        for name in filter(None, listed.decode().split("\0")):
            if (ROOT / name).is_file():
                (self.clone / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, self.clone / name)
        if self.uid != os.getuid():
            for path in (home, *home.rglob("*")):
                os.chown(path, self.uid, self.uid)
        kept = {
            k: v for k, v in os.environ.items() if not k.startswith(("AML_", "XDG_", "UV_", "PYTHON", "VIRTUAL_ENV"))
        }
        self.environ = {**kept, "HOME": str(home), "PATH": f"{self.clone}/.venv/bin:{kept['PATH']}"}

    def run(self, *command: str, **more: str) -> str:
        """Run a command that has to work; its standard output."""
        done = self._done(command, more)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def fails(self, *command: str, **more: str) -> str:
        """Run a command that has to fail for a reason of the person's; its standard error."""
        done = self._done(command, more)
        assert done.returncode == 1, done.stderr + done.stdout
        return done.stderr

    def _done(self, command: tuple[str, ...], more: dict[str, str]) -> subprocess.CompletedProcess[str]:
        who: dict[str, object] = {}
        if self.uid != os.getuid():
            socket = Path("/var/run/docker.sock")
            groups = [socket.stat().st_gid] if socket.exists() else []
            who = {"user": self.uid, "group": self.uid, "extra_groups": groups}
        done: subprocess.CompletedProcess[str] = subprocess.run(
            command,
            cwd=self.clone,
            env={**self.environ, **more},
            capture_output=True,
            text=True,
            timeout=280,
            **who,  # type: ignore[call-overload]
        )
        return done


@pytest.fixture
def person() -> Iterator[Person]:
    home = Path(tempfile.mkdtemp(prefix="azureml-debug-newcomer-"))
    home.chmod(0o755)
    made = Person(home)
    yield made
    subprocess.run(
        [sys.executable, "-m", "invoke", "container.stop"], cwd=made.clone, env=made.environ, capture_output=True
    )
    shutil.rmtree(home, ignore_errors=True)


def python_for(person: Person) -> str:
    """A Python that the person may run; root's own may lie in root's home."""
    for candidate in ("/usr/bin/python3", getattr(sys, "_base_executable", sys.executable)):
        try:
            person.run(candidate, "-c", "import sys, ensurepip; sys.exit(sys.version_info < (3, 10))")
        except (AssertionError, OSError):
            continue
        return candidate
    raise AssertionError("no Python 3.10 or later that an ordinary user may run")


SCRIPT = """
import os
import helper


def init():
    os.makedirs("outputs", exist_ok=True)
    with open("outputs/started.txt", "w") as file:
        file.write(str(os.getuid()))


def run(data):
    return {"uid": os.getuid()}
"""


@pytest.mark.timeout(600)
def test_the_first_commands_of_the_readme_work_for_an_ordinary_user(
    person: Person, request: pytest.FixtureRequest
) -> None:
    for command in readme_commands():
        assert command in (
            "python3 -m venv .venv && . .venv/bin/activate",
            "pip install -e . && inv deploy.debug",
            "pip install -e '.[test]' && inv test",
        )
    person.run(python_for(person), "-m", "venv", ".venv")
    person.run("pip", "install", "-q", "-e", ".")
    _clone_and_wheel_carry_the_environment_definitions(person)
    # First as on a machine without Docker; the setting stays at its default, auto.
    _debugs(person, "process", DOCKER_HOST="unix:///nowhere/docker.sock")
    request.getfixturevalue("docker_engine")
    _debugs(person, "docker")


def _clone_and_wheel_carry_the_environment_definitions(person: Person) -> None:
    needed = [f"env/inference/{name}" for name in ("Dockerfile", "conda.yml", "requirements.txt")]
    needed += ["env/inference/runit/gunicorn/run", "env/inference/runit/gunicorn/finish", "env/training/conda.yml"]
    for name in needed:
        assert (person.clone / name).is_file(), name
    person.run("pip", "wheel", "-q", "--no-deps", "-w", "wheels", ".")
    (wheel,) = (person.clone / "wheels").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        for name in needed:
            assert f"workflows/_defaults/{name}" in names
        assert archive.getinfo("workflows/_defaults/env/inference/runit/gunicorn/run").external_attr >> 16 & 0o111
        assert "workflows/debuggee/restart_worker.sh" in names
        assert "workflows/environments/install.sh" in names


def _debugs(person: Person, engine: str, **more: str) -> None:
    """The person debugs the example, then a service that writes into their folder."""
    free = {"AML_SCORING_PORT": "0", "AML_DEBUG_PORT": "0", **more}
    result = json.loads(person.run("inv", "deploy.debug", "--json", **free).splitlines()[-1])
    assert result["engine"] == engine
    sample = json.loads((person.clone / "examples/deployment/sample.json").read_text())
    assert post(result["scoring_url"], sample) == {"predictions": ["setosa", "versicolor", "virginica"]}
    launch = json.loads((person.clone / ".vscode/launch.json").read_text())
    assert launch["configurations"][0]["name"] == "Azure Machine Learning Deployment: Docker Debug"

    own = person.clone / f"own {engine}"
    own.mkdir()
    (own / "score.py").write_text(SCRIPT)
    (own / "helper.py").write_text("")
    for path in (own, *own.iterdir()):
        os.chown(path, person.uid, -1)
    started = ("inv", "deploy.debug", "--json", "--score-script", f"own {engine}/score.py")
    if engine == "docker":
        # A container sees the folder for reading only, so nothing in it can change the person's files.
        refused = person.fails(*started, **free)
        assert "Read-only file system: 'outputs'" in refused and "tempfile.mkdtemp()" in refused
        assert not (own / "outputs").exists()
        elsewhere = "def init():\n    import tempfile\n    os.chdir(tempfile.mkdtemp())\n"
        (own / "score.py").write_text(SCRIPT.replace("def init():\n", elsewhere))
    result = json.loads(person.run(*started, **free).splitlines()[-1])
    assert post(result["scoring_url"]) == {"uid": person.uid}
    person.run("inv", "container.stop", **more)
    assert (own / "outputs" / "started.txt").exists() == (engine == "process")
    strangers = [path for path in person.home.rglob("*") if path.lstat().st_uid != person.uid]
    assert strangers == []


def readme_commands() -> list[str]:
    """What the README has a person type in a clone."""
    (block,) = [block for block in blocks(ROOT / "README.md") if "install -e" in block.text]
    return block.text.splitlines()
