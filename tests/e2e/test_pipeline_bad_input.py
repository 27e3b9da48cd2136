"""What a user can do wrong with a pipeline: one line that says what, one that says what to do, nothing left."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest
from pipelines import PIPELINE, PREPARE_LINE, PipelineProject, running_marked, session
from projects import ANY_ENGINE, until


@ANY_ENGINE
def test_every_task_says_what_to_do_where_nothing_was_run_yet(pipelines: PipelineProject) -> None:
    for task in ("tail-log", "attach", "status", "cancel"):
        pipelines.inv(f"pipeline.{task}").says("No pipeline of this project has been run", "inv pipeline.debug")
    pipelines.inv("pipeline.inspect", "prepare.py:3").says("No pipeline of this project has been run")
    assert pipelines.ok("pipeline.list").out.startswith("No pipeline")


@ANY_ENGINE
@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("type: pipeline", "type: [", ("pipeline.yml:",)),
        ("command: python add.py", "command: python sum.py", ("sum.py",)),
        ("parent.jobs.prepare", "parent.jobs.prepaer", ("prepaer", "prepare")),
        ("outputs.doubled}}\n      factor", "outputs.halved}}\n      factor", ("halved", "doubled")),
        ("./some data", "./no data", ("no data",)),
        ("./some data", "azureml://datastores/x/paths/y", ("--input numbers=",)),
        ("code: ./tell", "code: ./nowhere", ("nowhere",)),
        ("type: uri_folder\n    path", "type: uri_floder\n    path", ("uri_floder",)),
    ],
)
def test_a_wrong_pipeline_file_is_refused_at_its_place_before_anything_starts(
    pipelines: PipelineProject, old: str, new: str, words: tuple[str, ...]
) -> None:
    assert old in PIPELINE
    pipelines.pipeline.write_text(PIPELINE.replace(old, new))
    pipelines.inv("pipeline.debug").says("pipeline.yml:", *words)
    assert not pipelines.runs.exists() or not list(pipelines.runs.glob("*/run.json"))


@ANY_ENGINE
def test_a_missing_pipeline_file_is_named(pipelines: PipelineProject) -> None:
    pipelines.inv("pipeline.debug", "--pipeline-file", "other.yml").says("other.yml")


@ANY_ENGINE
def test_values_that_cannot_be_read_end_with_2(pipelines: PipelineProject) -> None:
    for arguments in (("--rank", "foo"), ("--input", "nothing"), ("--debug-port", "x")):
        result = pipelines.inv("pipeline.debug", *arguments)
        assert result.code == 2 and "error: " in result.err and "Traceback" not in result.err, result
    assert pipelines.inv("pipeline.inspect", "prepare.py:x").code in (1, 2)


@ANY_ENGINE
def test_an_unknown_step_rank_or_run_is_answered_with_those_there_are(pipelines: PipelineProject) -> None:
    pipelines.inv("pipeline.debug", "--step", "prepaer").says("prepaer", "prepare, add, tell")
    pipelines.inv("pipeline.debug", "--rank", "3").says("rank 3", "one process")
    pipelines.ok("pipeline.submit", "--no-debug")
    pipelines.inv("pipeline.status", "--run", "77").says("77", "inv pipeline.list")
    pipelines.inv("pipeline.tail-log", "--step", "other").says("other", "prepare, add, tell")
    pipelines.inv("pipeline.attach").says("Nothing is debugged", "inv pipeline.debug")


@ANY_ENGINE
def test_a_failing_step_is_named_with_exit_code_and_log_and_independent_steps_finish(
    pipelines: PipelineProject,
) -> None:
    pipelines.script("add").write_text("print('about to fail')\nraise SystemExit(9)\n")
    text = PIPELINE + (
        "  alone:\n    command: python alone.py\n    code: ./alone\n    environment: azureml:any@latest\n"
    )
    pipelines.pipeline.write_text(text)
    (pipelines.folder / "alone").mkdir()
    (pipelines.folder / "alone" / "alone.py").write_text("import time\ntime.sleep(2)\nprint('alone')\n")
    result = pipelines.inv("pipeline.submit", "--no-debug", "--follow")
    result.says("add failed", "exit code 9", "inv pipeline.tail-log")
    assert (result.out + result.err).count("about to fail") == 1
    steps = {step["name"]: step["status"] for step in pipelines.record()["steps"]}
    assert steps == {"prepare": "Completed", "add": "Failed", "tell": "Skipped", "alone": "Completed"}
    out = pipelines.ok("pipeline.status").out
    assert "exit code 9" in out and "add did not complete" in out


def test_a_step_that_fails_before_its_script_starts_ends_the_command_with_its_log(
    pipelines: PipelineProject,
) -> None:
    pipelines.single("print()\n", "echo no such thing >&2; exit 4; python work.py")
    result = pipelines.inv("pipeline.debug")
    result.says("work failed", "exit code 4")
    assert "no such thing" in result.err


def test_a_step_that_never_starts_a_script_of_its_own_is_said_to(pipelines: PipelineProject) -> None:
    pipelines.single("print()\n", "echo only a shell")
    done = pipelines.ok("pipeline.debug")
    assert "note: work has started no Python script of its own, so nothing was debugged in it" in done.out
    assert "has completed, and no step has started a Python script that could be debugged" in done.out


def test_a_step_that_stays_silent_is_given_up_after_the_timeout_and_ended(pipelines: PipelineProject) -> None:
    pipelines.single("print()\n", "sleep 600; python work.py")
    pipelines.inv("pipeline.debug", "--debug-timeout", "2").says("5 s", "--debug-timeout")
    record = pipelines.record()
    assert record["status"] == "Canceled" and not running_marked(record["run_id"])


def test_a_port_of_another_program_is_an_error_that_names_it(pipelines: PipelineProject) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        pipelines.inv("pipeline.debug", "--debug-port", port).says(port, "is held by", f"process {os.getpid()}")
    assert not list(pipelines.runs.glob("*/run.json"))


def test_ctrl_c_while_nothing_holds_yet_ends_what_was_started(pipelines: PipelineProject) -> None:
    pipelines.single("print()\n", "sleep 600; python work.py")
    child = pipelines.start("pipeline.debug")
    until(lambda: list(pipelines.runs.glob("*/steps/work/azureml-logs/*.txt")), "the step's start")
    time.sleep(0.3)
    child.send_signal(signal.SIGINT)
    result = pipelines.finish(child)
    result.says("Interrupted in tail-log", code=130)
    record = pipelines.record()
    assert record["status"] == "Canceled" and not running_marked(record["run_id"])


@ANY_ENGINE
def test_a_broken_launch_json_is_refused_before_anything_starts(pipelines: PipelineProject) -> None:
    (pipelines.folder / ".vscode").mkdir()
    broken = '{"configurations": ['
    (pipelines.folder / ".vscode" / "launch.json").write_text(broken)
    pipelines.inv("pipeline.debug").says("launch.json")
    assert (pipelines.folder / ".vscode" / "launch.json").read_text() == broken
    assert not list(pipelines.runs.glob("*/run.json"))


@ANY_ENGINE
def test_a_step_that_does_not_write_its_file_fails_the_step_that_needs_it(pipelines: PipelineProject) -> None:
    pipelines.script("add").write_text("print('nothing written')\n")
    pipelines.inv("pipeline.submit", "--no-debug", "--follow").says("tell failed", "has not written its output result")


@ANY_ENGINE
def test_inspect_of_a_step_behind_one_that_holds_says_which_holds(pipelines: PipelineProject) -> None:
    pipelines.ok("pipeline.debug")
    pipelines.inv("pipeline.inspect", "add.py:7").says("prepare holds for its debugger", "--step add")


@ANY_ENGINE
def test_inspect_of_a_step_that_is_over_says_how_to_submit_it_again(pipelines: PipelineProject) -> None:
    endpoint = pipelines.ok("pipeline.debug", "--json").json["endpoints"][0]
    with session(endpoint, {}):
        pipelines.until_waiting("add")
    pipelines.inv("pipeline.inspect", f"prepare.py:{PREPARE_LINE}").says("prepare", "inv pipeline.debug --step prepare")


def test_a_second_debugger_is_told_that_one_is_attached(pipelines: PipelineProject) -> None:
    endpoint = pipelines.ok("pipeline.debug", "--json").json["endpoints"][0]
    script = pipelines.script("prepare")
    with session(endpoint, {script: [PREPARE_LINE]}):
        pipelines.inv("pipeline.inspect", f"prepare.py:{PREPARE_LINE}").says("already attached")


def test_a_run_of_an_engine_that_has_gone_can_still_be_looked_at(pipelines: PipelineProject) -> None:
    pipelines.ok("pipeline.submit", "--no-debug", "--follow")
    gone = {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}
    assert "Completed" in pipelines.ok("pipeline.status", **gone).out
    assert json.loads(pipelines.ok("pipeline.list", "--json", **gone).out)["runs"][0]["status"] == "Completed"


@ANY_ENGINE
def test_a_damaged_record_is_not_in_the_way(pipelines: PipelineProject) -> None:
    pipelines.ok("pipeline.submit", "--no-debug", "--follow")
    folder = Path(pipelines.record()["folder"])
    (folder / "run.json").write_text("{")
    pipelines.inv("pipeline.status").says("No pipeline of this project has been run")
    pipelines.ok("pipeline.submit", "--no-debug", "--follow")
    assert pipelines.record()["number"] == 2


@ANY_ENGINE
def test_ports_beyond_the_last_one_are_refused(pipelines: PipelineProject) -> None:
    pipelines.single("print()\n", more="distribution:\n  type: pytorch\n  process_count_per_instance: 4\n")
    pipelines.inv("pipeline.debug", "--rank", "all", "--debug-port", "65534").says("65535", "--debug-port")


@ANY_ENGINE
def test_inspect_where_no_step_raised_says_so(pipelines: PipelineProject) -> None:
    pipelines.single("number = 1\nnumber += 1\n")
    pipelines.ok("pipeline.submit", "--on-error", "--follow")
    pipelines.inv("pipeline.inspect", "work.py:2").says("raised", "inv pipeline.debug")


def test_a_variable_that_cannot_be_one_fails_its_step_and_no_other(pipelines: PipelineProject) -> None:
    text = PIPELINE + (
        '  odd:\n    command: echo odd\n    environment: azureml:any@latest\n    environment_variables: {A: "x\\0y"}\n'
    )
    pipelines.pipeline.write_text(text)
    assert pipelines.inv("pipeline.submit", "--no-debug", "--follow").code == 1
    record = pipelines.record()
    assert "runner" not in record["reason"]
    assert [step["status"] for step in record["steps"]] == ["Completed"] * 3 + ["Failed"]
