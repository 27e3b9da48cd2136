"""Inputs that once ended in a traceback or never, given to the real commands: two lines, and nothing is started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pipelines import PipelineProject, make_pipeline_project

LONG = "x" * 300


@pytest.fixture
def person(tmp_path: Path) -> PipelineProject:
    """A project with a pipeline, a service and an experiment, on processes of this machine."""
    made = make_pipeline_project(tmp_path / "a project", "process")
    (made.folder / "score.py").write_text("def init(): pass\ndef run(x): return x\n")
    (made.folder / "train.py").write_text("print('hello')\n")
    made.environ.update({"AML_SCORE_SCRIPT": "score.py", "XDG_CACHE_HOME": str(tmp_path / "cache")})
    return made


def refused(project: PipelineProject, *arguments: str, **more: str) -> str:
    """Two lines, no traceback, no environment built and no run made; what was said."""
    done = project.inv(*arguments, **more)
    assert done.code in (1, 2), done
    assert "Traceback" not in done.err, done.err
    assert done.err.count("\n") == 2, done.err
    assert "error: " in done.err
    assert not (project.folder / ".azureml-debug" / "runs").is_dir() or not list(
        (project.folder / ".azureml-debug" / "runs").glob("*-*")
    )
    return done.err


@pytest.mark.parametrize("command", [("deploy.debug",), ("pipeline.debug", "--step", "add"), ("vscode.setup",)])
@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("launch.json", b'{"configurations": [\n{"name": ["x"]}]}', "launch.json:2: error: "),
        ("launch.json", b'{\r"configurations": [\r{"name": {}}]}', "launch.json:3: error: "),
        ("launch.json", b'{"x": \n' + b"[" * 990 + b"]" * 990 + b"}", "launch.json:2: error: "),
        ("launch.json", b'{\n"x": "' + b'\\"' * 200_000, "launch.json:2: error: "),
        ("launch.json", b'{"configurations": [' + b"9" * 5000 + b"]}", "launch.json:1: error: "),
        ("tasks.json", b'{"tasks": [\n{"label": {"a": 1}}]}', "tasks.json:2: error: "),
    ],
    ids=["list", "carriage returns", "nested", "quotes", "digits", "label"],
)
def test_files_of_the_editor(
    person: PipelineProject, command: tuple[str, ...], name: str, data: bytes, said: str
) -> None:
    if name == "tasks.json" and command != ("vscode.setup",):
        pytest.skip("only vscode.setup edits it")
    file = person.folder / ".vscode" / name
    file.parent.mkdir()
    file.write_bytes(data)
    assert said in refused(person, *command)
    assert file.read_bytes() == data


def test_absurd_files(person: PipelineProject) -> None:
    vscode = person.folder / ".vscode"
    vscode.mkdir()
    with open(vscode / "launch.json", "wb") as file:
        file.truncate(2 * 1024**3)
    assert "it is larger than 4 MB" in refused(person, "pipeline.debug", "--step", "add")
    (vscode / "launch.json").unlink()
    for make in (lambda path: os.mkfifo(path), lambda path: path.symlink_to("/dev/zero"), lambda path: path.mkdir()):
        for name in ("pipe.yml", "pipe.txt"):
            path = person.folder / name
            make(path)
            flag = "--pipeline-file" if name == "pipe.yml" else "--inference-env"
            task = "pipeline.submit" if name == "pipe.yml" else "deploy.build"
            assert name in refused(person, task, flag, name)
            path.rmdir() if path.is_dir() else path.unlink()


ALIASES = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    + [f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * 10) + "]" for n in range(1, 9)]
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ALIASES, "p.yml:5: error: p.yml has more than 100000 values"),
        ("type: pipeline\njobs:\n  a: {command: '" + "${{" * 20_000 + "'}\n", "p.yml:3: error: "),
        ("type: pipeline\ninputs: {x: !!timestamp x}\njobs: {a: {command: ls}}\n", "p.yml:2: error: "),
        ("type: pipeline\ninputs:\n  x: !!int ''\njobs: {a: {command: ls}}\n", "p.yml:3: error: "),
        ("type: pipeline\ninputs:\n  x: !!bool maybe\njobs: {a: {command: ls}}\n", "p.yml:3: error: "),
        ("type: pipeline\rjobs:\r  a: {comand: ls}\r", "p.yml:3: error: "),
        ("x: " + "[" * 990 + "]" * 990, "p.yml:1: error: "),
        ("type: pipeline\njobs:\n  a:\n    command: ls\n    code: " + LONG, "p.yml:5: error: "),
        ("type: pipeline\njobs:\n  a:\n    command: ls\n    component: " + LONG + ".yml\n", "p.yml:"),
        (
            "type: pipeline\njobs:\n  a:\n    command: ls ${{inputs.x}}\n"
            "    inputs: {x: {type: uri_file, path: 'http://[::1'}}\n",
            "p.yml:5: error: ",
        ),
        (
            "type: pipeline\njobs:\n  a:\n    command: ls\n    resources: {instance_count: " + "9" * 5000 + "}",
            "p.yml:5: ",
        ),
        ('type: pipeline\njobs:\n  a:\n    command: ls\n    code: "a\\0b"\n', "p.yml:5: error: "),
    ],
)
def test_pipelines(person: PipelineProject, text: str, said: str) -> None:
    (person.folder / "p.yml").write_text(text, newline="")
    assert said in refused(person, "pipeline.submit", "--pipeline-file", "p.yml")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("deploy.debug", "--score-script", f"{LONG}.py"), "name is too long"),
        (("deploy.debug", "--score-script", "~nouser/x.py"), "home folder the system does not know"),
        (("deploy.build", "--inference-env", "~nouser"), "home folder the system does not know"),
        (("deploy.build", "--inference-env", LONG), "error: "),
        (("pipeline.submit", "--pipeline-file", f"{LONG}.yml"), "File name too long"),
        (("pipeline.submit", "--input", f"numbers={LONG}"), "which does not exist"),
        (("pipeline.submit", "--input", "numbers=~nouser/x"), "which does not exist"),
        (("pipeline.submit", "--input", "numbers=caf\udce9"), "which does not exist"),
        (("experiment.debug", "sums", "--script", "~nouser/x.py"), "home folder the system does not know"),
        (("experiment.debug", "sums", "--script", f"{LONG}.py"), "error: "),
        (("experiment.debug", "sums", "--script", "train.py", "--environment", "~nouser"), "home folder"),
        (("experiment.create", LONG), "cannot be an experiment's name"),
        (("deploy.debug", "--debug-port", "9" * 5000), "must be a port number"),
    ],
    ids=str,
)
def test_arguments(person: PipelineProject, arguments: tuple[str, ...], said: str) -> None:
    assert said in refused(person, *arguments)


def test_settings(person: PipelineProject) -> None:
    (person.folder / ".env").write_bytes(b"AML_ENGINE=process\nAML_AUTH=caf\xe9\n")
    assert ".env:2: error: .env is not UTF-8." in refused(person, "experiment.list")
    (person.folder / ".env").write_bytes(b"X=1\r\rAML_DEBUG_PORT=" + b"9" * 5000)
    assert ".env:3: error: " in refused(person, "deploy.debug", AML_DEBUG_PORT="")
    (person.folder / ".env").write_bytes(b"AML_MODEL_DIR=~nouser/x\n")
    assert ".env:1: error: " in refused(person, "deploy.debug")
    (person.folder / ".env").unlink()
    os.mkfifo(person.folder / ".env")
    assert ".env: error: .env cannot be read: it is not a regular file." in refused(person, "experiment.list")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&-"])
def test_streams_and_locale(person: PipelineProject, closed: str) -> None:
    environ = {**os.environ, **person.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run(
        f"exec {closed}; exec {sys.executable} -m invoke experiment.list",
        shell=True,
        cwd=person.folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
