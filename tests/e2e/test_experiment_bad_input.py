"""What a user can do wrong with an experiment: one line that says what, one that says what to do, nothing left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import missing
from experiments import TRAIN_LINE, ExperimentProject, make_experiment_project
from pipelines import running_marked, session
from projects import ROOT, until


@pytest.fixture
def experiment(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[ExperimentProject]:
    """A project with a training script; without Docker unless a test asks for it."""
    engine = getattr(request, "param", "process")
    if engine == "docker":
        request.getfixturevalue("docker_engine")
    made = make_experiment_project(tmp_path / "a project", engine)
    yield made
    made.clean_up()


def nothing_left(experiment: ExperimentProject, *known: str) -> None:
    """Assert that there is no run, and no experiment but the known ones."""
    assert not list(experiment.runs.glob("*/run.json"))
    assert set(experiment.known()) == set(known)
    assert not (experiment.folder / ".azureml").exists()


def test_every_task_says_what_to_do_where_nothing_was_run_yet(experiment: ExperimentProject) -> None:
    for task in ("attach", "show", "logs", "outputs", "cancel"):
        experiment.inv(f"experiment.{task}").says("No experiment of this project has been run", "inv experiment.debug")
    experiment.inv("experiment.inspect", "train.py:3").says("No experiment of this project has been run")
    assert "no experiment yet" in experiment.ok("experiment.list").out
    experiment.ok("experiment.create", "sums")
    assert "sums  no runs" in experiment.ok("experiment.list").out
    experiment.inv("experiment.show", "--run", "sums").says("no run sums", "inv experiment.list")


def test_an_unknown_experiment_one_that_is_there_and_a_bad_name(experiment: ExperimentProject) -> None:
    experiment.inv("experiment.run", "sums", "--script", "train.py").says(
        "no experiment sums", "experiment.create sums"
    )
    experiment.ok("experiment.create", "sums")
    experiment.inv("experiment.run", "sum", "--script", "train.py").says("no experiment sum", "sums")
    experiment.inv("experiment.create", "sums").says("sums already", "inv experiment.run sums")
    experiment.inv("experiment.create", "Sums").says("sums already")
    for name in ("a b", "../x", "ä", "-x", "x" * 101, ""):
        for task in ("create", "debug"):
            experiment.inv(f"experiment.{task}", name).says("name" if not name.startswith("-") else "has no flag -x")
    nothing_left(experiment, "sums")


def test_a_script_that_is_missing_not_named_or_not_in_the_project(
    experiment: ExperimentProject, tmp_path: Path
) -> None:
    experiment.inv("experiment.debug", "sums").says("its script is not known", "--script train.py")
    missing = experiment.inv("experiment.debug", "sums", "--script", "tarin.py")
    missing.says("tarin.py does not exist", "--script")
    assert "create" not in missing.out + missing.err and "sums" not in experiment.known()
    experiment.inv("experiment.debug", "sums", "--script", "some data").says("is a folder", "--script")
    (tmp_path / "outside.py").write_text("")
    experiment.inv("experiment.debug", "sums", "--script", "../outside.py").says("not in the project's folder")
    experiment.write("outputs/train.py", "")
    experiment.inv("experiment.debug", "sums", "--script", "outputs/train.py").says("is in outputs", "Move it")
    nothing_left(experiment)
    experiment.run("sums", "--script", "train.py")
    experiment.script.rename(experiment.folder / "moved.py")
    experiment.inv("experiment.run", "sums").says("sums.runconfig:2: error:", "train.py does not exist")


def test_a_run_configuration_that_cannot_be_read_and_fields_that_are_not_acted_on(
    experiment: ExperimentProject,
) -> None:
    for text, words in (
        ("script: [", ("sums.runconfig:",)),
        ("arguments: []\n", ("names no script", "script: train.py")),
        ("script: train.py\nnodeCount: many\n", ("sums.runconfig:2: error:", "nodeCount")),
        ("script: train.py\narguments: ['$AZUREML_DATAREFERENCE_rows']\n", ("the data rows", "--data rows=PATH")),
    ):
        file = experiment.write(".azureml/sums.runconfig", text)
        experiment.inv("experiment.debug", "sums").says(*words)
        assert file.read_text() == text
    file.write_text("script: train.py\ntarget: cpu-cluster\namlcompute: {vmSize: STANDARD_D2}\n")
    out = experiment.ok("experiment.run", "sums", "--follow").out
    assert "note: not acted on: target, amlcompute.vmSize" in out and "total 6" in out
    file.write_text("script: train.py\nenvironment:\n  name: AzureML-sklearn\n  version: 3\n")
    out = experiment.ok("experiment.run", "sums", "--follow").out
    assert "note: environment AzureML-sklearn:3 is not on this machine" in out and "total 6" in out
    file.write_text("script: train.py\nenvironment: {name: x, python: {userManagedDependencies: true}}\n")
    assert "userManagedDependencies" in experiment.ok("experiment.run", "sums").out
    file.write_text("script: train.py\nenvironment:\n  python: {condaDependenciesFile: no.yml}\n")
    experiment.inv("experiment.run", "sums").says("sums.runconfig:3: error:", "no.yml does not exist")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("environmentVariables:\n  GOOD: x\n  'A=B': x\n", ":4: error:|`A=B` cannot be the name"),
        ("environmentVariables:\n  '': x\n", ":3: error:|`` cannot be the name"),
        ('environmentVariables:\n  "A\\0B": x\n', ":3: error:|cannot be the name"),
        ('environmentVariables:\n  GOOD: "a\\0b"\n', ":3: error:|`GOOD`|NUL"),
        ('environmentVariables:\n  GOOD: "\\uD800"\n', ":3: error:"),
        ('environment:\n  environmentVariables:\n    "A=B": x\n', ":4: error:|`A=B` cannot be the name"),
        ("docker:\n  shmSize: lots\n", ":3: error:|`docker.shmSize` cannot be `lots`|2g"),
        ('arguments:\n  - x\n  - "a\\0b"\n', ":4: error:|NUL"),
    ],
)
def test_what_no_process_can_be_given_is_refused_before_anything_is_built(
    experiment: ExperimentProject, text: str, words: str
) -> None:
    experiment.write(".azureml/sums.runconfig", f"script: train.py\n{text}")
    experiment.inv("experiment.run", "sums").says("sums.runconfig", *words.split("|"))
    assert not list(experiment.runs.glob("*/run.json"))


def test_data_that_is_missing_or_not_named(experiment: ExperimentProject) -> None:
    for entry in ("numbers", "=some data", "numbers=", "my-data=some data"):
        result = experiment.inv("experiment.debug", "sums", "--script", "train.py", "--data", entry)
        assert result.code == 2 and "--data must be NAME=PATH" in result.err, result
    wrong = ("--script", "train.py", "--data", "numbers=no data")
    experiment.inv("experiment.debug", "sums", *wrong).says("data numbers does not exist", "--data numbers=PATH")
    nothing_left(experiment)
    experiment.run("sums", "--script", "train.py", "--data", "numbers=some data")
    shutil.rmtree(experiment.folder / "some data")
    experiment.inv("experiment.run", "sums").says("sums.runconfig:", "data numbers does not exist")


def test_values_that_cannot_be_read_end_with_2(experiment: ExperimentProject) -> None:
    for arguments in (("--rank", "foo"), ("--debug-port", "x")):
        result = experiment.inv("experiment.debug", "sums", "--script", "train.py", *arguments)
        assert result.code == 2 and "error: " in result.err and "Traceback" not in result.err, result
    nothing_left(experiment)


def test_an_environment_that_is_not_there_is_answered_with_those_there_are(experiment: ExperimentProject) -> None:
    experiment.write("env/small/requirements.txt", "")
    experiment.write("env/empty/readme", "")
    debug = ("experiment.debug", "sums", "--script", "train.py", "--environment")
    experiment.inv(*debug, "smal").says("no environment smal", "Existing ones: small")
    experiment.inv(*debug, "empty").says("no conda.yml or requirements.txt")
    nothing_left(experiment)
    out = experiment.ok(
        "experiment.debug", "sums", "--script", "train.py", "--environment", "AzureML-x", "--no-wait"
    ).out
    assert "environment AzureML-x is not on this machine" in out


@pytest.mark.parametrize("experiment", ["process", "docker"], indirect=True)
def test_an_environment_that_does_not_build_shows_the_last_lines_and_its_log_is_kept(
    experiment: ExperimentProject,
) -> None:
    experiment.write("env/broken/requirements.txt", "no-such-package-of-anybody-at-all==7\n")
    result = experiment.inv("experiment.debug", "sums", "--script", "train.py", "--environment", "broken")
    result.says("no-such-package-of-anybody-at-all", "requirements.txt")
    assert len(result.err.strip().splitlines()) > 2
    record = experiment.record()
    assert record["status"] == "Failed" and "no-such-package" in record["reason"]
    log = experiment.log(name="60_control_log.txt")
    assert "No solution found" in log and log.strip().splitlines()[-2:] == result.err.strip().splitlines()[-2:]
    assert experiment.ok("experiment.logs", "--build").out == log
    assert "Failed" in experiment.ok("experiment.list").out
    experiment.inv("experiment.logs").says("has not been started: Failed", "--build")
    assert not running_marked(record["run_id"])
    # It is not in the way of the next one.
    assert experiment.run("sums", "--training-env", str(ROOT / "env" / "training"))["status"] == "Completed"


def test_a_full_disk_ends_a_run_in_two_lines(experiment: ExperimentProject, tmp_path: Path) -> None:
    cache = tmp_path / "small cache"
    cache.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(cache)]
    if os.getuid() or subprocess.run(mounted, capture_output=True, check=False).returncode:
        missing("a small file system cannot be mounted")
    try:
        result = experiment.inv("experiment.debug", "sums", "--script", "train.py", XDG_CACHE_HOME=str(cache))
        result.says("space")
        assert experiment.record()["status"] == "Failed"
        assert not list((cache / "azureml-debug" / "environments").glob("*"))
    finally:
        subprocess.run(["umount", str(cache)], check=True)


def test_a_command_that_is_killed_in_mid_build_leaves_a_run_that_is_told_to_be_over(
    experiment: ExperimentProject,
) -> None:
    begun = experiment.slow_environment()
    child = experiment.start("experiment.debug", "sums", "--script", "train.py", "--environment", "slow")
    until(begun.exists, "the beginning of the build")
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert experiment.record()["status"] == "Preparing"
    assert "Interrupted" in experiment.ok("experiment.show").out
    (line,) = [line for line in experiment.log(name="60_control_log.txt").splitlines() if "building the env" in line]
    shutil.rmtree(line.rpartition(" in ")[2])
    # Neither the run nor a lock is in the way of the next one.
    assert experiment.debug("sums", "--training-env", str(ROOT / "env" / "training"))["status"] == "Running"


def test_ctrl_c_in_mid_build_takes_away_what_was_begun(experiment: ExperimentProject, tmp_path: Path) -> None:
    begun = experiment.slow_environment()
    experiment.environ["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    child = experiment.start("experiment.debug", "sums", "--script", "train.py", "--environment", "slow")
    until(begun.exists, "the beginning of the build")
    child.send_signal(signal.SIGINT)
    experiment.finish(child).says("Interrupted in build", code=130)
    assert experiment.record()["status"] == "Canceled"
    assert not list((tmp_path / "cache" / "azureml-debug" / "environments").iterdir())


def test_two_debugs_and_two_runs_that_are_started_at_once(experiment: ExperimentProject) -> None:
    command = ("experiment.debug", "sums", "--script", "train.py", "--json")
    results = [experiment.finish(child) for child in [experiment.start(*command) for _ in range(2)]]
    assert sorted(result.code for result in results) == [0, 1], results
    next(result for result in results if result.code).says("is being debugged already", "experiment.cancel")
    experiment.ok("experiment.cancel")
    started = [experiment.start("experiment.run", "sums", "--json") for _ in range(3)]
    results = [experiment.finish(child) for child in started]
    assert [result.code for result in results] == [0, 0, 0], results
    runs = {result.json["run_id"] for result in results}
    assert len(runs) == 3 and {experiment.until_final(run)["status"] for run in runs} == {"Completed"}
    assert len({experiment.record(run)["number"] for run in runs}) == 3


def test_a_failure_in_somebody_elses_code_names_the_innermost_own_line(experiment: ExperimentProject) -> None:
    script = experiment.folder / "fails.py"
    script.write_text("import json\n\n\ndef read():\n    return json.loads('nothing')\n\n\nread()\n")
    experiment.ok("experiment.create", "fails")
    failed = experiment.inv("experiment.run", "fails", "--script", "fails.py", "--follow")
    failed.says("fails.py:5: error: ", "failed: exit code 1")
    assert "json/decoder.py" in failed.out


def test_a_script_that_fails_ends_the_command_that_follows_with_its_log(experiment: ExperimentProject) -> None:
    experiment.script.write_text("import sys\nprint('about to fail')\nsys.exit(9)\n")
    experiment.ok("experiment.create", "sums")
    result = experiment.inv("experiment.run", "sums", "--script", "train.py", "--follow")
    result.says("exit code 9", "inv experiment.logs")
    assert "about to fail" in result.out
    assert "exit code 9" in experiment.ok("experiment.show").out
    experiment.inv("experiment.logs", "--follow").says("exit code 9")
    experiment.inv("experiment.attach").says("Nothing is debugged", "inv experiment.debug sums")
    experiment.script.write_text("print(1\n")
    experiment.inv("experiment.debug", "sums", "--no-wait", "--follow").says("exit code 1")


def test_a_broken_launch_json_is_refused_before_anything_starts(experiment: ExperimentProject) -> None:
    file = experiment.write(".vscode/launch.json", '{"configurations": [')
    experiment.inv("experiment.debug", "sums", "--script", "train.py").says("launch.json")
    assert file.read_text() == '{"configurations": ['
    nothing_left(experiment)
    shutil.rmtree(file.parent)
    experiment.write(".vscode", "")
    result = experiment.inv("experiment.debug", "sums", "--script", "train.py")
    result.says(".vscode", "is a file, not a folder")
    assert "build" not in result.out
    nothing_left(experiment)


def test_a_second_debugger_is_told_that_one_is_attached(experiment: ExperimentProject) -> None:
    (endpoint,) = experiment.debug("sums", "--script", "train.py")["endpoints"]
    with session(endpoint, {experiment.script: [TRAIN_LINE]}):
        experiment.inv("experiment.inspect", f"train.py:{TRAIN_LINE}").says("already attached")


def test_damaged_records_are_not_in_the_way(experiment: ExperimentProject) -> None:
    experiment.run("sums", "--script", "train.py")
    # Its runner writes the record last of all.
    experiment.until_final()
    folder = Path(experiment.record()["folder"])
    (folder / "run.json").write_text("{")
    (folder.parents[1] / "experiments" / "sums.json").write_text("[")
    experiment.ok("experiment.list")
    experiment.inv("experiment.show").says("No experiment of this project has been run")
    result = experiment.debug("sums")
    assert result["number"] == 2
    assert json.loads((folder.parents[1] / "experiments" / "sums.json").read_text())["session"] == result["run_id"]


def test_a_refused_command_leaves_the_run_configuration_as_it_was(experiment: ExperimentProject) -> None:
    experiment.ok("experiment.create", "kept")
    experiment.ok("experiment.run", "kept", "--script", "train.py", "--follow")
    path = experiment.folder / ".azureml" / "kept.runconfig"
    before = path.read_bytes()
    assert experiment.inv("experiment.run", "kept", "--environment", "no-such-folder", "--", "--other").code == 1
    assert path.read_bytes() == before


def test_an_empty_run_is_not_taken_for_the_latest(experiment: ExperimentProject) -> None:
    experiment.ok("experiment.create", "kept")
    experiment.ok("experiment.run", "kept", "--script", "train.py", "--follow")
    experiment.inv("experiment.cancel", "--run", "").says("--run is empty", "inv experiment.list")


def test_what_cannot_be_copied_is_named_and_links_are_copied_as_links(experiment: ExperimentProject) -> None:
    experiment.script.write_text("import os\nos.symlink('gone', 'outputs/dangling')\nopen('outputs/a', 'w').close()\n")
    experiment.ok("experiment.create", "kept")
    experiment.ok("experiment.run", "kept", "--script", "train.py", "--follow")
    experiment.ok("experiment.outputs", "--copy", "taken")
    copied = {path.name for path in (experiment.folder / "taken").rglob("*")}
    assert {"dangling", "a"} <= copied
    experiment.inv("experiment.outputs", "--copy", "x" * 300).says("cannot be copied")
    # A variable of a shell's that is not set.
    experiment.inv("experiment.outputs", "--copy", "").says("--copy is empty", "Name a folder")
    assert not (experiment.folder / "outputs").exists()


def test_an_editor_that_cannot_be_read_is_named(experiment: ExperimentProject) -> None:
    experiment.ok("experiment.create", "kept")
    arguments = ("experiment.run", "kept", "--script", "train.py", "--edit")
    experiment.inv(*arguments, EDITOR="'ed", VISUAL="").says("'ed", "Correct EDITOR")
