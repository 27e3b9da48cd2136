"""`azureml-debug`: the tasks without a tasks.py, what its messages name, and the hints of both commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from invoke import Collection, Program
from invoke.exceptions import ParseError

import workflows
from workflows import command_name, project, version
from workflows.console import Console, as_typed
from workflows.tasks import _known_flags
from workflows.tasks._program import OwnProgram
from workflows.tasks._runs import read_location_and_run
from workflows.tasks.all_tasks import collect_tasks

ROOT = Path(__file__).resolve().parents[2]
Refusal = Callable[..., tuple[int, list[str]]]


def own(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "AML_ENGINE": "process"}
    typed = [sys.executable, "-m", "workflows", *words]
    return subprocess.run(typed, cwd=cwd, env=environ, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def named() -> Iterator[None]:
    """Messages name `azureml-debug`."""
    command_name.set_command(command_name.OWN)
    yield
    command_name.set_command(command_name.INVOKE)


@pytest.fixture
def refused(named: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refusal:
    """How a command that is not understood ends, and what it says."""

    def run(*words: str) -> tuple[int, list[str]]:
        monkeypatch.setattr(sys, "argv", ["azureml-debug", *words])
        with pytest.raises(SystemExit) as ended:
            OwnProgram(collect_tasks()).run()
        assert isinstance(ended.value.code, int)
        return ended.value.code, capsys.readouterr().err.splitlines()

    return run


def test_it_works_in_a_folder_without_tasks_and_names_itself(tmp_path: Path) -> None:
    done = own("experiment.list", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "First: azureml-debug experiment.debug NAME" in done.stdout


def test_its_version_is_the_programs(tmp_path: Path) -> None:
    assert own("--version", cwd=tmp_path).stdout == f"azureml-debug {version.__version__}\n"


def test_it_lists_what_projects_get_and_nothing_for_developing(named: None, capsys: pytest.CaptureFixture[str]) -> None:
    OwnProgram(collect_tasks()).run(["azureml-debug", "--list"], exit=False)
    listed = capsys.readouterr().out
    assert all(f"  {name} " in listed for name in collect_tasks().task_names)
    assert not {"test", "lint", "bench.deploy", "dev.test"} & set(listed.split())


def test_shells_complete_it(named: None, capsys: pytest.CaptureFixture[str]) -> None:
    for shell in ("bash", "zsh", "fish"):
        OwnProgram(collect_tasks()).run(["azureml-debug", "--print-completion-script", shell], exit=False)
        script = capsys.readouterr().out
        assert "_complete_azureml-debug" in script
    for typed, expected in {"deploy.d": "deploy.debug", "experiment.cancel --r": "--run"}.items():
        OwnProgram(collect_tasks()).run(["azureml-debug", "--complete", "--", f"azureml-debug {typed}"], exit=False)
        assert expected in capsys.readouterr().out.split()


def test_bash_completes_it(tmp_path: Path) -> None:
    script = own("--print-completion-script", "bash", cwd=tmp_path).stdout
    asked = (
        f'azureml-debug() {{ "{sys.executable}" -m workflows "$@"; }}\n{script}\n'
        "COMP_WORDS=(azureml-debug deploy.de); _complete_azureml-debug azureml-debug deploy.de; echo ${COMPREPLY[@]}"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", asked], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["deploy.debug"], done.stderr


@pytest.mark.parametrize(
    ("typed", "problem", "remedy"),
    [
        ("deploy.debgu", "There is no task deploy.debgu.", "Did you mean deploy.debug?"),
        ("deploy debug", "There is no task deploy.", "Did you mean deploy.debug?"),
        ("deploy:debug", "There is no task deploy:debug.", "Did you mean deploy.debug?"),
        ("debug", "There is no task debug.", "Did you mean deploy.debug, pipeline.debug or experiment.debug?"),
        ("remote", "remote is a collection of tasks.", "azureml-debug --list remote"),
        ("zzz", "There is no task zzz.", "All tasks: azureml-debug --list"),
        ("--help deploy.debgu", "There is no task deploy.debgu.", "Did you mean deploy.debug?"),
        ("--list pipelin", "There is no collection pipelin.", "Did you mean pipeline?"),
        ("--follow", "There is no flag --follow.", "azureml-debug --list"),
        ("-v doctor", "There is no flag -v.", "azureml-debug doctor -v"),
        ("deploy.debug --folow", "deploy.debug has no flag --folow.", "Did you mean --follow?"),
        ("deploy.run --model m", "deploy.run has no flag --model.", "Did you mean --model-dir?"),
        ("deploy.debug -d", "deploy.debug has no flag -d.", "in the background"),
        ("pipeline.debug -f x.yml", "pipeline.debug has no flag -f.", "Did you mean --file or --follow?"),
        ("pipeline.debug --remote --json --stpe x", "pipeline.debug has no flag --stpe.", "Did you mean --step?"),
        ("pipeline.status --name x", "pipeline.status has no flag --name.", "Did you mean --run?"),
        ("deploy.inspect --line 3", "deploy.inspect has no flag --line.", "azureml-debug deploy.inspect FILE:LINE"),
        ("container.stop debug", "container.stop takes no word debug.", "azureml-debug --help container.stop"),
        ("experiment.debug", "experiment.debug needs NAME.", "azureml-debug experiment.debug NAME"),
        ("experiment.debug demo --rank", "--rank needs a value.", "--rank VALUE: Rank of"),
        ("pipeline.debug my.yml", "pipeline.debug takes no word my.yml.", "Did you mean --file my.yml?"),
        ("experiment.run demo t.py", "experiment.run takes no word t.py.", "Did you mean --script t.py?"),
        ("experiment.debug demo 3", "experiment.debug takes no word 3.", "-- 3"),
        (
            "experiment.debug demo --epochs 3 --follow --lr=0.1 -- -x",
            "experiment.debug has no flag --epochs.",
            "azureml-debug experiment.debug demo --follow -- --epochs 3 --lr=0.1 -x",
        ),
    ],
)  # fmt: skip
def test_what_is_not_understood_ends_with_2_and_two_lines(
    refused: Refusal, typed: str, problem: str, remedy: str
) -> None:
    code, lines = refused(*typed.split())
    assert (code, len(lines), lines[0]) == (2, 2, f"error: {problem}")
    assert remedy in lines[1]


def test_help_after_a_task_needs_nothing_else_of_it(named: None, capsys: pytest.CaptureFixture[str]) -> None:
    OwnProgram(collect_tasks()).run(["azureml-debug", "experiment.debug", "--help"], exit=False)
    assert "--script" in capsys.readouterr().out


def test_a_secret_in_a_hint_is_not_shown(refused: Refusal) -> None:
    assert "s3cr3t" not in "".join(refused("experiment.debug", "demo", "--db-password", "s3cr3t")[1])


def test_inv_gives_the_same_hints_and_ends_as_invoke_does() -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    typed = [sys.executable, "-m", "invoke", "experiment.debug", "demo", "--epochs", "3"]
    done = subprocess.run(typed, cwd=ROOT, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr.splitlines()) == (
        1,
        [
            "error: experiment.debug has no flag --epochs.",
            "Arguments of the script go after `--`: inv experiment.debug demo -- --epochs 3",
        ],
    )


def _flags() -> set[str]:
    return {flag for context in collect_tasks().to_contexts() for flag in context.flag_names()}


def test_what_a_guess_leads_to_is_there() -> None:
    assert {flag for flags in _known_flags.SIMILAR_FLAGS.values() for flag in flags} - _flags() == set()
    words = {argument.name for context in collect_tasks().to_contexts() for argument in context.positional_args}
    assert {word for wanted in _known_flags.POSITIONAL_ARGUMENTS.values() for word in wanted} - words == set()


RUN_TASKS = sorted(
    str(context.name) for context in collect_tasks().to_contexts() if "run" in context.args and context.args
)


def typed(*words: str) -> dict[str, object]:
    """The values of the first task of a command line."""
    program = Program(namespace=Collection.from_module(workflows))
    program.create_config()
    program.parse_core(["inv", *words])
    program.parse_collection()
    program.parse_tasks()
    values: dict[str, object] = program.tasks[0].as_kwargs
    return values


@pytest.mark.parametrize("task", RUN_TASKS)
def test_a_run_is_named_by_a_word_or_by_its_flag(task: str) -> None:
    words = ("train.py:3",) if task.endswith(".inspect") else ()
    assert typed(task, *words, "demo")["run"] == typed(task, *words, "--run", "demo")["run"] == "demo"
    assert typed(task)["run"] is None
    # What follows is the next task, or a flag, as before.
    assert typed(task, "pipeline.list")["run"] is None
    with pytest.raises(ParseError):
        typed(task, "--nothing")


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ((None, None), (None, None)),
        (("train.py:3", None), ("train.py:3", None)),
        (("train.py:3", "demo"), ("train.py:3", "demo")),
        (("demo", "train.py:3"), ("train.py:3", "demo")),
        (("demo", None), (None, "demo")),
        (("7", None), (None, "7")),
        (("train.py", None), ("train.py", None)),
        (("src/train", None), ("src/train", None)),
        ((None, "demo"), (None, "demo")),
    ],
)
def test_inspect_tells_a_line_from_a_run(
    words: tuple[str | None, str | None], meant: tuple[str | None, str | None]
) -> None:
    assert read_location_and_run(*words) == meant


def test_messages_name_the_command_that_was_typed(named: None, capsys: pytest.CaptureFixture[str]) -> None:
    text = "First: inv deploy.debug\nHelp: inv --help x.y; `inv doctor`; the inv file"
    assert as_typed(text) == (
        "First: azureml-debug deploy.debug\nHelp: azureml-debug --help x.y; `azureml-debug doctor`; the inv file"
    )
    Console(as_json=True).result({"found": [{"remedy": "inv doctor"}], "locals": {"text": "inv doctor"}})
    expected = {"found": [{"remedy": "azureml-debug doctor"}], "locals": {"text": "inv doctor"}}
    assert json.loads(capsys.readouterr().out) == expected
    command_name.set_command(command_name.INVOKE)
    assert as_typed(text) == text


def test_its_project_is_the_nearest_folder_that_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    inner = tmp_path / "repo" / "src" / "deep"
    inner.mkdir(parents=True)
    (tmp_path / ".azureml-debug").mkdir()
    assert project.find_project(inner) == inner
    assert project.find_project(tmp_path) == tmp_path
    (tmp_path / "repo" / "tasks.py").write_text("from celery import task\n")
    assert project.find_project(inner) == inner
    (tmp_path / "repo" / "tasks.py").write_text("import x\nfrom workflows import namespace as ns\n")
    assert project.find_project(inner) == tmp_path / "repo"
    (tmp_path / "repo" / "src" / ".azureml-debug").mkdir()
    assert project.find_project(inner) == tmp_path / "repo" / "src"
    (inner / ".git").mkdir()
    assert project.find_project(inner) == inner
