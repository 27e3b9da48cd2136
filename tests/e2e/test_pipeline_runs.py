"""Runs of pipelines on both engines: several at once, followed, canceled, moved, and what they leave."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
from pathlib import Path

import pytest
from pipelines import (
    FAMILY,
    PREPARE_LINE,
    PipelineProject,
    running_marked,
    session,
    stop_of,
)
from projects import ANY_ENGINE, listeners, until
from test_pipeline import debug


def test_cancel_ends_a_step_that_is_paused_at_a_breakpoint(pipelines: PipelineProject) -> None:
    endpoint = debug(pipelines)["endpoints"][0]
    with session(endpoint, {pipelines.script("prepare"): [PREPARE_LINE]}) as client:
        stop_of(client)
        result = pipelines.ok("pipeline.cancel", "--json").json
        assert result["status"] == "Canceled"
    assert not listeners(endpoint["port"])
    record = pipelines.record()
    assert [step["status"] for step in record["steps"]] == ["Canceled"] * 3
    assert not running_marked(record["run_id"])
    pipelines.inv("pipeline.attach").says(f"The run {record['run_id']} is over: Canceled.", "inv pipeline.debug")
    pipelines.inv("pipeline.attach", "--step", "tell").says(f"The run {record['run_id']} is over: Canceled.")


def test_a_run_whose_runner_was_killed_is_recognised_and_nothing_of_it_stays(pipelines: PipelineProject) -> None:
    debug(pipelines)
    record = pipelines.record()
    runner = json.loads((pipelines.runs / record["run_id"] / "runner.json").read_text())["pid"]
    os.kill(runner, 9)
    until(lambda: not Path(f"/proc/{runner}").exists() or "Z" in Path(f"/proc/{runner}/stat").read_text(), "its end")
    result = pipelines.ok("pipeline.status")
    assert "Interrupted" in result.out
    assert pipelines.record()["status"] == "Interrupted"
    assert not running_marked(record["run_id"])
    assert "Interrupted" in pipelines.ok("pipeline.list").out


def test_two_runs_side_by_side_get_ports_of_their_own(pipelines: PipelineProject) -> None:
    first = debug(pipelines)
    wanted = str(first["endpoints"][0]["port"])
    second = pipelines.ok("pipeline.debug", "--json", "--debug-port", wanted)
    assert second.json["endpoints"][0]["port"] != first["endpoints"][0]["port"]
    assert "belongs to another session" in second.err
    numbers = [run["number"] for run in pipelines.ok("pipeline.list", "--json").json["runs"]]
    assert numbers == [2, 1]
    for run in (first, second.json):
        assert pipelines.step("prepare", run["run_id"])["endpoints"][0]["state"] == "waiting"


def test_independent_steps_run_side_by_side_on_ports_of_their_own(pipelines: PipelineProject) -> None:
    folder = pipelines.folder / "work"
    folder.mkdir()
    (folder / "work.py").write_text("print('here')\n")
    step = "    {code: ./work, environment: 'azureml:any@latest', command: python work.py}\n"
    pipelines.pipeline.write_text(f"type: pipeline\njobs:\n  one:\n{step}  two:\n{step}")
    debug(pipelines)
    ports = {pipelines.until_waiting(name)["port"] for name in ("one", "two")}
    assert len(ports) == 2


def test_nothing_in_the_background_keeps_the_callers_output_open(pipelines: PipelineProject) -> None:
    # Were a pipe inherited, this would return only when the step's wait is over.
    started = time.monotonic()
    debug(pipelines)
    assert pipelines.step("prepare")["status"] == "Running"
    assert time.monotonic() - started < 290


def test_follow_streams_the_logs_with_the_steps_names_and_ends_with_the_run(pipelines: PipelineProject) -> None:
    out = pipelines.ok("pipeline.submit", "--no-debug", "--follow").out
    assert "[prepare] doubled [1, 2, 3, 1, 2, 3]" in out and "[tell] the result is 36" in out
    assert out.index("[prepare]") < out.index("[add]") < out.index("[tell]")


@pytest.mark.parametrize(
    ("engine", "by"),
    [("process", "pipeline.submit"), ("process", "pipeline.tail-log"), ("docker", "pipeline.submit")],
    indirect=["engine"],
)
def test_follow_says_that_and_why_a_step_holds_and_when_it_goes_on(pipelines: PipelineProject, by: str) -> None:
    pipelines.single("print('begun', flush=True)\nraise ValueError('no such thing')\n")
    started: tuple[str, ...] = ("pipeline.submit", "--debug-timeout", "250", "--follow")
    if by == "pipeline.tail-log":
        pipelines.ok(*started[:-1])
        started = ("pipeline.tail-log", "--follow")
    child = pipelines.start(*started)
    assert child.stdout is not None
    told = next(line for line in child.stdout if line.startswith("work holds"))
    endpoint = pipelines.until_waiting("work")
    where = f"{endpoint['host']}:{endpoint['port']}"
    assert f"work holds for a debugger on {where}, up to 250 s" in told
    assert endpoint["launch_configuration"] in told and "inv pipeline.inspect FILE:LINE --run 1 --step work" in told
    with session(endpoint, {pipelines.folder / "work" / "work.py": [1]}) as client:
        assert any(line.startswith(f"work has a debugger on {where}") for line in child.stdout)
        assert client.wait_event("stopped", 60)
    assert pipelines.finish(child).code == 1
    child = pipelines.start("pipeline.submit", "--on-error", "--follow")
    assert child.stdout is not None
    told = next(line for line in child.stdout if line.startswith("work holds"))
    assert "work holds at ValueError: no such thing, for a debugger on " in told
    child.kill()


@ANY_ENGINE
def test_an_input_can_be_given_on_the_command_line(pipelines: PipelineProject) -> None:
    other = pipelines.folder / "other data"
    other.mkdir()
    (other / "numbers.txt").write_text("10")
    arguments = ("--input", f"numbers={other}", "--input", "factor=5")
    assert "the result is 100" in pipelines.ok("pipeline.submit", "--no-debug", "--follow", *arguments).out


def test_a_step_that_forks_starts_a_pool_or_leaves_by_os_exit_ends_as_it_would_alone(
    pipelines: PipelineProject,
) -> None:
    pipelines.single(
        """\
import multiprocessing, os, sys, time

def double(number):
    return number * 2

if __name__ == "__main__":
    child = os.fork()
    if child == 0:
        os._exit(3)
    print("forked", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            print(method, pool.map(double, range(3)), flush=True)
    # What the debugger is still to be told at its attach ends with this process.
    time.sleep(0.5)
    os._exit(7)
"""
    )
    endpoint = debug(pipelines)["endpoints"][0]
    with session(endpoint, {pipelines.folder / "work" / "work.py": [4]}):
        record = pipelines.until_final()
    assert record["steps"][0]["exit_code"] == 7, record
    log = Path(endpoint["log"]).read_text()
    assert "forked 3" in log and "fork [0, 2, 4]" in log and "spawn [0, 2, 4]" in log


@ANY_ENGINE
def test_a_step_without_a_script_of_its_own_runs_and_the_next_one_holds(pipelines: PipelineProject) -> None:
    text = pipelines.pipeline.read_text()
    fetch = (
        "  fetch:\n    command: echo fetched > ${{outputs.data}}/data.txt\n    outputs: {data: {type: uri_folder}}\n"
    )
    fetch += "    environment: azureml:any@latest\n"
    needs = "      data: ${{parent.inputs.numbers}}\n"
    assert needs in text
    text = text.replace(needs, needs + "      extra: ${{parent.jobs.fetch.outputs.data}}\n")
    pipelines.pipeline.write_text(text + fetch)
    result = pipelines.ok("pipeline.debug", "--json")
    assert [endpoint["step"] for endpoint in result.json["endpoints"]] == ["prepare"]
    assert "fetch has started no Python script of its own" in result.err


@ANY_ENGINE
def test_a_number_means_that_run_whatever_others_are_called(pipelines: PipelineProject) -> None:
    pipelines.ok("pipeline.submit", "--no-debug", "--follow")
    text = pipelines.pipeline.read_text().replace("display_name: numbers", "display_name: 1_more_numbers")
    pipelines.pipeline.write_text(text)
    pipelines.ok("pipeline.submit", "--no-debug", "--follow")
    assert pipelines.status("1")["name"] == "numbers"
    assert pipelines.status("numbers")["number"] == 1 and pipelines.status("1_more"[:1] + "-more")["number"] == 2


@ANY_ENGINE
def test_what_to_type_again_names_the_pipeline_that_was_typed(pipelines: PipelineProject) -> None:
    other = pipelines.folder / "other.yml"
    other.write_text(pipelines.pipeline.read_text().replace("factor: 3", "factor: three"))
    arguments = ("--pipeline-file", "other.yml", "--input", "factor=4")
    pipelines.script("add").write_text("raise SystemExit(1)\n")
    result = pipelines.inv("pipeline.submit", "--no-debug", "--follow", *arguments)
    result.says("inv pipeline.debug --pipeline-file other.yml --input factor=4 --step add")


@ANY_ENGINE
def test_a_missing_package_is_named_with_where_it_goes(pipelines: PipelineProject) -> None:
    pipelines.single("import no_such_package_at_all.inner\n")
    result = pipelines.inv("pipeline.submit", "--no-debug", "--follow")
    wrong, todo = result.err.strip().splitlines()[-2:]
    assert "the package no_such_package_at_all is not installed" in wrong and "env/training/requirements.txt" in todo


@ANY_ENGINE
def test_published_options_are_taken_also_from_a_step_that_is_not_debugged(pipelines: PipelineProject) -> None:
    pipelines.single("import sys\nprint('got', sys.argv[1:])\n", "python work.py --a 1 --remote_debug --b 2")
    assert "got ['--a', '1', '--b', '2']" in pipelines.ok("pipeline.submit", "--no-debug", "--follow").out


@ANY_ENGINE
def test_ctrl_c_leaves_a_run_that_is_only_followed(pipelines: PipelineProject) -> None:
    child = pipelines.start("pipeline.debug", "--follow")
    until(lambda: (pipelines.folder / ".vscode" / "launch.json").exists(), "the chain's end")
    until(lambda: pipelines.step("prepare")["endpoints"], "the step holding")
    time.sleep(0.5)
    child.send_signal(signal.SIGINT)
    result = pipelines.finish(child)
    assert result.code == 130 and "The run goes on" in result.out, result
    assert pipelines.status()["status"] == "Running"


@ANY_ENGINE
def test_configurations_of_runs_that_are_over_do_not_pile_up(pipelines: PipelineProject) -> None:
    debug(pipelines)
    pipelines.ok("pipeline.cancel")
    debug(pipelines, "--step", "prepare")
    assert set(pipelines.launch()) == {FAMILY}


@ANY_ENGINE
def test_runs_submitted_at_the_same_moment_get_different_ports(pipelines: PipelineProject) -> None:
    # Python, which binds the port, starts only after a while: as behind a `pip install`.
    pipelines.single("print('done')\n", "sleep 1; python work.py")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    children = [pipelines.start("pipeline.debug", "--json", "--debug-port", port) for _ in range(4)]
    results = [pipelines.finish(child) for child in children]
    assert [result.code for result in results] == [0] * 4, results
    endpoints = [result.json["endpoints"][0] for result in results]
    assert len({endpoint["port"] for endpoint in endpoints}) == 4
    assert {endpoint["state"] for endpoint in endpoints} == {"waiting"}


def test_a_failing_step_of_ranks_does_not_end_one_whose_name_begins_like_its_own(pipelines: PipelineProject) -> None:
    folder = pipelines.folder / "work"
    folder.mkdir()
    (folder / "fail.py").write_text("import time\ntime.sleep(0.5)\nraise SystemExit(3)\n")
    (folder / "work.py").write_text("import time\ntime.sleep(2)\n")
    common = "    code: ./work\n    environment: azureml:any@latest\n"
    pipelines.pipeline.write_text(
        f"type: pipeline\njobs:\n  train:\n{common}    command: python fail.py\n"
        "    distribution: {type: pytorch, process_count_per_instance: 2}\n"
        f"  train_b:\n{common}    command: python work.py\n"
    )
    assert pipelines.inv("pipeline.submit", "--no-debug", "--follow").code == 1
    assert {step["name"]: step["status"] for step in pipelines.record()["steps"]} == {
        "train": "Failed",
        "train_b": "Completed",
    }


@ANY_ENGINE
def test_the_copy_of_a_project_leaves_the_originals_run_alone(pipelines: PipelineProject) -> None:
    debug(pipelines)
    run = pipelines.record()["run_id"]
    copy = PipelineProject(pipelines.folder.with_name("the copy"), pipelines.environ)
    shutil.copytree(pipelines.folder, copy.folder, symlinks=True)
    copy.inv("pipeline.cancel").says(run, "Cancel it there")
    assert pipelines.step("prepare")["endpoints"][0]["state"] == "waiting"
    shutil.rmtree(copy.folder)


def test_a_moved_project_can_be_attached_to_where_it_is_now(pipelines: PipelineProject) -> None:
    debug(pipelines)
    before = pipelines.folder
    pipelines.folder = before.rename(before.with_name("a moved project"))
    (endpoint,) = pipelines.ok("pipeline.attach", "--json").json["endpoints"]
    assert endpoint["path_mappings"][0]["localRoot"] == str(pipelines.folder / "prepare")
    assert pipelines.ok("pipeline.cancel", "--json").json["status"] == "Canceled"


def test_an_input_file_with_what_a_shell_minds_in_its_name_is_one_word(pipelines: PipelineProject) -> None:
    names = ["houses (1).csv", "a;b.csv", "a&b.csv", "$HOME.csv", "it's.csv", "ä b.csv"]
    for name in names:
        (pipelines.folder / name).write_text(name)
    inputs = "".join(f'  f{number}: {{type: uri_file, path: "./{name}"}}\n' for number, name in enumerate(names))
    given = "".join(f"      f{number}: ${{{{parent.inputs.f{number}}}}}\n" for number in range(len(names)))
    command = " ".join(f"${{{{inputs.f{number}}}}}" for number in range(len(names)))
    pipelines.single("import sys\nfor path in sys.argv[1:]:\n    print('<' + open(path).read() + '>')\n")
    pipelines.pipeline.write_text(
        f"type: pipeline\ninputs:\n{inputs}jobs:\n  work:\n    code: ./work\n    environment: azureml:any@latest\n"
        f"    inputs:\n{given}    command: python work.py {command}\n"
    )
    out = pipelines.ok("pipeline.submit", "--no-debug", "--follow").out
    assert [line for line in out.splitlines() if line.startswith("<")] == [f"<{name}>" for name in names]


def test_what_a_step_leaves_in_the_background_ends_with_the_run(pipelines: PipelineProject) -> None:
    pipelines.single("print()\n", "setsid sleep 4321 & (setsid sleep 4322 &); echo ok")
    pipelines.ok("pipeline.submit", "--no-debug", "--follow")
    run = pipelines.record()["run_id"]
    until(lambda: not running_marked(run), "the end of what was left")


def test_a_run_whose_folder_was_deleted_ends(pipelines: PipelineProject) -> None:
    debug(pipelines)
    run = pipelines.record()["run_id"]
    shutil.rmtree(pipelines.folder / ".azureml-debug", ignore_errors=True)
    until(lambda: not running_marked(run), "the end of its processes")


@ANY_ENGINE
def test_a_clock_that_was_corrected_does_not_make_a_run_look_dead(pipelines: PipelineProject) -> None:
    debug(pipelines)
    path = pipelines.runs / pipelines.record()["run_id"] / "runner.json"
    kept = json.loads(path.read_text())
    # What is compared are ticks since the boot, which no clock moves; another process's differ.
    assert kept["started"] == float(Path(f"/proc/{kept['pid']}/stat").read_text().rpartition(")")[2].split()[19])
    assert pipelines.status()["status"] == "Running"
    path.write_text(json.dumps({**kept, "space": "pid:[1]"}))
    assert pipelines.status()["status"] == "Running"
    # As if another process had its number by now. It says nothing of the end of its ranks, which the next command ends.
    os.kill(kept["pid"], signal.SIGSTOP)
    try:
        path.write_text(json.dumps({**kept, "started": kept["started"] + 1}))
        assert pipelines.status()["status"] == "Interrupted"
    finally:
        os.kill(kept["pid"], signal.SIGKILL)


@ANY_ENGINE
def test_what_a_persons_own_tasks_do_at_the_end_is_done(pipelines: PipelineProject) -> None:
    tasks = pipelines.folder / "tasks.py"
    own = "import atexit, sys\natexit.register(lambda: print('own end', file=sys.stderr))\n"
    tasks.write_text(own + tasks.read_text())
    pipelines.single("print()\n")
    assert pipelines.ok("pipeline.submit", "--no-debug").err.endswith("own end\n")
