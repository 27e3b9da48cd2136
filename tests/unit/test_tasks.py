"""The tasks as people meet them: names, help, speed of the import, ends."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from invoke import Collection

from workflows import namespace
from workflows.errors import BadValue, UserError
from workflows.tasks import azureml, container, deploy, experiment, pipeline, vscode
from workflows.tasks._inspection import quote_location

ROOT = Path(__file__).resolve().parents[2]
CONTRACT = {
    "deploy": "build tag run runsvdir attach-config stop debug reload inspect",
    "pipeline": "submit tail-log attach debug inspect status list cancel",
    "experiment": "create run debug attach inspect list show logs outputs cancel prune",
    "container": "stop logs shell code list prune base",
    "azureml": "check",
    "vscode": "setup",
}


def test_every_task_of_the_contract_is_there_under_its_name() -> None:
    for collection, names in CONTRACT.items():
        tasks = namespace.collections[collection].task_names
        assert set(names.split()) <= set(tasks), tasks


#: As many of `inv --help TASK` as there are, in one process; a line of HELPED in front of each.
HELPS = """
import sys
from invoke.main import program
for name in sys.argv[1:]:
    print("HELPED", name)
    program.run(["inv", "--help", name], exit=False)
"""


def test_every_task_has_a_line_of_help_and_every_flag_an_explanation() -> None:
    tasks = {
        f"{collection.__name__.rpartition('.')[2]}.{name}": task
        for collection in (deploy, pipeline, experiment, container, azureml, vscode)
        for name, task in Collection.from_module(collection).tasks.items()
    }
    said = subprocess.run(
        [sys.executable, "-c", HELPS, *tasks], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    texts = dict(part.split("\n", 1) for part in said.split("HELPED ")[1:])
    for name, task in tasks.items():
        text = texts[name]
        assert "Usage: " in text, (name, text)
        assert (task.__doc__ or "").strip().endswith("."), name
        options = text.partition("Options:")[2]
        for line in options.splitlines():
            # Two blanks are before a flag's name, many before what is said of it.
            if line.startswith("  --"):
                assert len(line.split(maxsplit=1)) == 2 and "  " in line.strip(), (name, line)


def test_listing_the_tasks_imports_nothing_heavy() -> None:
    code = (
        "import sys; from workflows import namespace\n"
        "heavy = {'docker', 'requests', 'rich', 'yaml', 'fabric', 'paramiko', 'psutil', 'filelock', 'azureml',"
        " 'dotenv', 'debugpy', 'hashlib', 'lzma', 'platform', 'shutil', 'tempfile',"
        " 'workflows.console', 'workflows.settings'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    # Invoke itself brings some along; only what we add counts.
    bare = code.replace("from workflows import namespace", "import invoke")
    ours, invokes = (
        subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for text in (code, bare)
    )
    assert ours == invokes


@pytest.mark.parametrize("wanted", [True, False])
def test_the_programs_byte_code_is_kept_and_none_lies_beside_a_persons_tasks(wanted: bool, tmp_path: Path) -> None:
    package, project = tmp_path / "program" / "workflows", tmp_path / "project"
    shutil.copytree(ROOT / "workflows", package, ignore=shutil.ignore_patterns("__pycache__"))
    project.mkdir()
    (project / "own.py").write_text("")
    (project / "tasks.py").write_text("from workflows import namespace as ns\nimport own\n")
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environ |= {"PYTHONPATH": str(package.parent), **({} if wanted else {"PYTHONDONTWRITEBYTECODE": "1"})}
    typed = [sys.executable, "-m", "invoke", "experiment.list"]
    subprocess.run(typed, cwd=project, env=environ, check=True, capture_output=True)
    assert bool(list(package.glob("tasks/__pycache__/deploy.*.pyc"))) is wanted
    # What a task imports when it runs.
    assert bool(list(package.glob("flows/__pycache__/experiment.*.pyc"))) is wanted
    assert list(project.rglob("*.pyc")) == []


def test_an_error_is_two_lines_with_the_place_in_front() -> None:
    error = UserError("it is\nbroken.", "Mend it.", file="a/b.py", line=3)
    assert str(error) == "a/b.py:3: error: it is broken.\nMend it."
    assert str(UserError("it is broken.", "Mend it.")) == "error: it is broken.\nMend it."
    assert BadValue("x", "y").exit_code == 2


def test_only_the_engine_imports_docker() -> None:
    for path in (ROOT / "workflows").rglob("*.py"):
        text = path.read_text()
        if "import docker" in text or "from docker" in text:
            assert path.name.startswith("docker") or "TYPE_CHECKING" in text, path


def test_a_flag_is_never_taken_for_an_argument_without_one() -> None:
    assert "location" in inspect.signature(deploy.inspect.body).parameters
    for words, code, expected in [
        (["deploy.inspect", "--help"], 0, "Usage: "),
        (["deploy.inspect", "--location=-x.py:3"], 1, "Help: inv --help deploy.inspect"),
    ]:
        done = subprocess.run([sys.executable, "-m", "invoke", *words], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == code and expected in done.stdout + done.stderr


@pytest.mark.parametrize("task", ["pipeline.debug", "experiment.list", "deploy.inspect score.py:3", "container.stop"])
def test_arguments_that_a_task_does_not_take_are_refused(task: str) -> None:
    command = [sys.executable, "-m", "invoke", *task.split(), "--", "--epochs", "4"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    name = task.split()[0]
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"error: {name} takes nothing after `--`.",
        f"Leave it out. Help: inv --help {name}",
    ]


@pytest.mark.parametrize(
    ("name", "typed"), [("train.py", "train.py:3"), ("my train.py", "'my train.py:3'"), ("-x.py", "./-x.py:3")]
)
def test_a_place_is_shown_as_a_shell_takes_it(name: str, typed: str) -> None:
    assert quote_location(name, 3) == typed


def test_a_local_engine_takes_no_ssh_library_and_one_behind_ssh_has_it() -> None:
    code = (
        "import sys; from workflows.engines.docker_client import _load_sdk; _load_sdk(sys.argv[1])\n"
        "import docker.api.client as client\n"
        "print('paramiko' in sys.modules, hasattr(client, 'SSHHTTPAdapter'))"
    )
    told = {
        host: subprocess.run(
            [sys.executable, "-c", code, host], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.split()
        for host in ("unix:///var/run/docker.sock", "ssh://somebody@somewhere")
    }
    assert told == {"unix:///var/run/docker.sock": ["False", "False"], "ssh://somebody@somewhere": ["True", "True"]}


def test_every_task_has_its_help_in_the_list_and_completes() -> None:
    def inv(*words: str) -> str:
        command = [sys.executable, "-m", "invoke", *words]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    # Not those that this clone's tasks.py adds, which another test may have loaded here.
    ours = set(namespace.collections) - {"bench", "dev"}
    names = [f"{name}.{task}" for name in ours for task in namespace.collections[name].task_names]
    listed = inv("--list", "--list-format=json")
    entries = [task for collection in json.loads(listed)["collections"] for task in collection["tasks"]]
    assert entries and all((task["help"] or "").strip() for task in entries), entries
    completed = inv("--complete", "--", "inv").split()
    assert set(names) <= set(completed)
    flags = inv("--complete", "--", "inv vscode.setup -").split()
    assert {"--remote", "--follow", "--stop-after", "--wait", "--json"} <= set(flags)


@pytest.mark.parametrize("words", [["--list"], ["--help", "deploy.debug"], ["container.list"]], ids=" ".join)
@pytest.mark.parametrize("read", [0, 1])
def test_a_reader_that_is_gone_ends_a_command_quietly(tmp_path: Path, words: list[str], read: int) -> None:
    (tmp_path / "tasks.py").write_text("import time\nfrom workflows import namespace as ns\n")
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "AML_ENGINE": "process"}
    with subprocess.Popen(
        [sys.executable, "-m", "invoke", *words],
        cwd=tmp_path,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Each line at once, as on a terminal, so that those after the first meet nobody.
        bufsize=0,
    ) as process:
        assert process.stdout and process.stderr
        process.stdout.read(read)
        process.stdout.close()
        assert process.stderr.read() == b""
    # What Invoke itself writes ends with 1; a command of ours as other tools do.
    assert process.returncode in (0, 1 if words[0].startswith("--") else 141)


INTERRUPTING = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "workflows.tasks.pipeline":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
from workflows import namespace as ns
"""


def test_ctrl_c_while_tasks_are_loaded_ends_with_130_and_quietly(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(INTERRUPTING)
    ended = subprocess.run(
        [sys.executable, "-m", "invoke", "container.list"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (130, b"")
