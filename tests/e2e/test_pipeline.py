"""The story of a pipeline's steps on both engines: breakpoints, ranks, errors, inspection."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pipelines import (
    ADD_LINE,
    FAMILY,
    LAUNCHER,
    PREPARE_LINE,
    READER_LINE,
    TELL_LINE,
    PipelineProject,
    go_on,
    session,
    stop_of,
    value_of,
)
from projects import ANY_ENGINE, listeners, until

RANKS = "distribution:\n  type: pytorch\n  process_count_per_instance: 4\n"
RANK_SCRIPT = """\
import os
rank = int(os.environ["RANK"])
square = rank * rank
print("rank", rank, "of", os.environ["WORLD_SIZE"], square)
"""


def debug(project: PipelineProject, *arguments: str, **more: str) -> dict[str, Any]:
    return project.ok("pipeline.debug", "--json", *arguments, **more).json


def test_one_command_holds_the_first_step_and_writes_the_configurations(pipelines: PipelineProject) -> None:
    result = debug(pipelines)
    assert result["backend"] == "local"
    assert set(result["seconds"]) == {"build", "submit", "tail-log", "attach"}
    (endpoint,) = result["endpoints"]
    assert endpoint["step"] == "prepare" and endpoint["host"] == "127.0.0.1" and endpoint["state"] == "waiting"
    assert set(listeners(endpoint["port"])) == {"127.0.0.1"}
    launch = pipelines.launch()
    assert set(launch) == {f"{FAMILY} (prepare)", f"{FAMILY} (add)", f"{FAMILY} (tell)"}
    assert launch[endpoint["launch_configuration"]]["connect"] == {"host": "127.0.0.1", "port": endpoint["port"]}
    compounds = json.loads((pipelines.folder / ".vscode/launch.json").read_text())["compounds"]
    assert [entry["name"] for entry in compounds] == ["Azure Machine Learning Compute: all"]
    assert compounds[0]["configurations"] == list(launch)
    log = Path(endpoint["log"])
    assert log.name == "70_driver_log.txt" and log.parent.name == "azureml-logs"
    lines = log.read_text().splitlines()
    assert lines[:3] == [
        "Timeout for debug connection: 300",
        "ip_address: 127.0.0.1",
        f"debug_port: {endpoint['port']}",
    ]


def test_a_breakpoint_stops_in_each_of_the_three_steps_and_data_passes_through(pipelines: PipelineProject) -> None:
    endpoint = debug(pipelines)["endpoints"][0]
    reader = pipelines.folder / "prepare" / "helpers" / "numbers_file.py"
    with session(endpoint, {pipelines.script("prepare"): [PREPARE_LINE], reader: [READER_LINE]}) as client:
        inner = stop_of(client)
        assert (inner["source"]["path"], inner["line"]) == (str(reader), READER_LINE)
        go_on(client, inner)
        frame = stop_of(client)
        assert (frame["source"]["path"], frame["line"]) == (str(pipelines.script("prepare")), PREPARE_LINE)
        assert value_of(client, frame, "numbers") == "[1, 2, 3]"
        go_on(client, frame)
        client.wait_event("terminated", 30)
    for step, line, expression, value in (("add", ADD_LINE, "total", "12"), ("tell", TELL_LINE, "text", "'36'")):
        endpoint = pipelines.until_waiting(step)
        assert pipelines.launch()[f"{FAMILY} ({step})"]["connect"]["port"] == endpoint["port"]
        with session(endpoint, {pipelines.script(step): [line]}) as client:
            frame = stop_of(client)
            assert (frame["source"]["path"], frame["line"]) == (str(pipelines.script(step)), line)
            assert value_of(client, frame, expression) == value
    record = pipelines.until_final()
    assert record["status"] == "Completed", record
    status = pipelines.status()
    log = Path(status["steps"][2]["log"]).read_text().splitlines()
    assert log[0] == "before" and log[-2:] == ["the result is 36", "after"]
    assert "Debugger attached = True" in log
    assert (Path(status["steps"][0]["outputs"]) / "count.txt").read_text() == "6"
    assert not (pipelines.folder / "prepare" / "outputs").exists()


@ANY_ENGINE
def test_the_person_is_told_what_the_run_has_added_to_launch_json_and_a_name_that_a_shell_takes(
    pipelines: PipelineProject,
) -> None:
    pipelines.single("", "python 'the work.py'")
    (pipelines.folder / "work" / "the work.py").write_text("number = 1\nprint(number)\n")
    out = pipelines.ok("pipeline.debug").out
    assert "launch.json added" in out and "inv pipeline.inspect 'the work.py:2' --run 1" in out


def test_the_chain_can_be_done_one_step_at_a_time(pipelines: PipelineProject) -> None:
    submitted = pipelines.ok("pipeline.submit", "--json").json
    assert submitted["endpoints"] == []
    shown = pipelines.ok("pipeline.tail-log").out
    assert "Timeout for debug connection: 300" in shown and "inv pipeline.attach" in shown
    attached = pipelines.ok("pipeline.attach", "--json").json
    assert attached["run_id"] == submitted["run_id"]
    (endpoint,) = attached["endpoints"]
    with session(endpoint, {pipelines.script("prepare"): [PREPARE_LINE]}) as client:
        assert stop_of(client)["line"] == PREPARE_LINE


def test_an_output_called_artifacts_is_what_the_step_leaves_in_its_outputs(pipelines: PipelineProject) -> None:
    pipelines.pipeline.write_text(
        "type: pipeline\njobs:\n  first:\n    command: mkdir outputs/deep && echo found > outputs/deep/a.txt\n"
        "    outputs: {artifacts: }\n"
        "  second:\n    command: cat ${{inputs.x}}/outputs/deep/a.txt && ls ${{inputs.x}}\n"
        "    inputs: {x: '${{parent.jobs.first.outputs.artifacts}}'}\n"
    )
    pipelines.ok("pipeline.submit", "--no-debug", "--follow")
    log = Path(pipelines.step("second")["log"]).read_text()
    assert log.split() == ["found", "logs", "outputs"]


def test_only_the_chosen_steps_hold_and_the_others_run(pipelines: PipelineProject) -> None:
    result = debug(pipelines, "--step", "tell")
    (endpoint,) = result["endpoints"]
    assert endpoint["step"] == "tell" and endpoint["launch_configuration"] == FAMILY
    assert pipelines.step("prepare")["status"] == "Completed" and not pipelines.step("prepare")["debugged"]


def test_inspect_stops_in_a_step_shows_values_and_lets_the_run_go_on(pipelines: PipelineProject) -> None:
    debug(pipelines)
    seen = pipelines.ok("pipeline.inspect", f"prepare.py:{PREPARE_LINE}", "--eval", "sum(numbers)", "--json").json
    assert seen["stopped"] == {"file": str(pipelines.script("prepare")), "line": PREPARE_LINE, "function": "<module>"}
    assert seen["locals"]["numbers"] == "[1, 2, 3]" and seen["values"] == {"sum(numbers)": "6"}
    seen = pipelines.ok("pipeline.inspect", f"add.py:{ADD_LINE}", "--json").json
    assert seen["locals"]["total"] == "12"
    seen = pipelines.ok("pipeline.inspect", f"tell/tell.py:{TELL_LINE}", "--json").json
    assert seen["locals"]["text"] == "'36'"
    assert pipelines.until_final()["status"] == "Completed"


@ANY_ENGINE
def test_inspect_finds_a_line_in_the_second_script_that_a_step_starts(pipelines: PipelineProject) -> None:
    pipelines.single("value = 3\nprint(value)\n", "python first.py && python work.py")
    (pipelines.folder / "work" / "first.py").write_text("print('first')\n")
    debug(pipelines)
    seen = pipelines.ok("pipeline.inspect", "work.py:2", "--json").json
    assert seen["locals"]["value"] == "3"
    assert pipelines.until_final()["status"] == "Completed"


@ANY_ENGINE
def test_inspect_shows_every_frame_of_the_steps_own_code(pipelines: PipelineProject) -> None:
    pipelines.single("from lib.inner import work\nprint(work(2))\n")
    (pipelines.folder / "work" / "lib").mkdir()
    (pipelines.folder / "work" / "lib" / "inner.py").write_text("def work(value):\n    return value\n")
    debug(pipelines)
    shown = pipelines.ok("pipeline.inspect", "lib/inner.py:2").out
    assert "inner.py:2" in shown and "work.py:2" in shown and "of other code" not in shown


def test_inspect_goes_on_with_what_a_script_has_become_by_an_exec(pipelines: PipelineProject) -> None:
    pipelines.single(
        "import os, sys\nif len(sys.argv) == 1:\n    os.execv(sys.executable, [sys.executable, *sys.argv, 'again'])\n"
        "value = 3\nprint(value)\n"
    )
    debug(pipelines)
    seen = pipelines.ok("pipeline.inspect", "work.py:5", "--json").json
    assert seen["locals"]["value"] == "3"
    assert pipelines.until_final()["status"] == "Completed"


CHILDREN = """
import subprocess, sys
from multiprocessing import get_context
import part

if __name__ == "__main__":
    subprocess.run([sys.executable, "child.py"], check=True)
    with get_context("spawn").Pool(1) as pool:
        print(pool.map(part.double, [21]))
"""


def test_inspect_stops_in_child_processes_and_says_in_which(pipelines: PipelineProject) -> None:
    pipelines.single(CHILDREN)
    (pipelines.folder / "work" / "child.py").write_text("value = 3\nprint(value)\n")
    (pipelines.folder / "work" / "part.py").write_text("def double(number):\n    return number * 2\n")
    debug(pipelines)
    result = pipelines.ok("pipeline.inspect", "child.py:2", "--json")
    assert result.json["locals"]["value"] == "3"
    assert f"child.py:2, child process {result.json['child']}" in result.err
    debug(pipelines)
    seen = pipelines.ok("pipeline.inspect", "part.py:2", "--json").json
    assert seen["locals"] == {"number": "21"} and seen["child"] > 0
    assert pipelines.until_final()["status"] == "Completed"


# In a container the link's other end lies elsewhere.
@pytest.mark.parametrize(
    ("engine", "named"),
    [
        *(("process", name) for name in ("common.py", "work/common.py", "shared/common.py")),
        ("docker", "shared/common.py"),
    ],
    indirect=["engine"],
)
def test_inspect_finds_a_file_behind_a_link_by_either_name(pipelines: PipelineProject, named: str) -> None:
    pipelines.single("import common\nprint(common.double(21))\n")
    shared = pipelines.folder / "shared"
    shared.mkdir()
    (shared / "common.py").write_text("def double(number):\n    return number * 2\n")
    (pipelines.folder / "work" / "common.py").symlink_to("../shared/common.py")
    debug(pipelines)
    seen = pipelines.ok("pipeline.inspect", f"{named}:2", "--json").json
    assert seen["locals"] == {"number": "21"}
    assert pipelines.until_final()["status"] == "Completed"


@ANY_ENGINE
def test_without_children_they_run_undebugged(pipelines: PipelineProject) -> None:
    pipelines.single("import subprocess, sys\nsubprocess.run([sys.executable, 'child.py'], check=True)\n")
    (pipelines.folder / "work" / "child.py").write_text("value = 3\nprint(value)\n")
    debug(pipelines, "--no-children")
    said = pipelines.inv("pipeline.inspect", "child.py:2")
    said.says("ended before it reached child.py:2")
    said.says("Child processes are left out of this run (--no-children). With them: inv pipeline.debug")
    assert pipelines.until_final()["status"] == "Completed"


def test_four_ranks_stop_at_the_same_line_at_once(pipelines: PipelineProject) -> None:
    pipelines.single(RANK_SCRIPT, more=RANKS)
    result = debug(pipelines, "--rank", "all")
    endpoints = result["endpoints"]
    assert [endpoint["rank"] for endpoint in endpoints] == [0, 1, 2, 3]
    ports = [endpoint["port"] for endpoint in endpoints]
    assert ports == list(range(ports[0], ports[0] + 4))
    names = [f"{FAMILY} (work, rank {rank})" for rank in range(4)]
    assert list(pipelines.launch()) == names
    script = pipelines.folder / "work" / "work.py"
    sessions = [session(endpoint, {script: [4]}) for endpoint in endpoints]
    clients = [each.__enter__() for each in sessions]
    try:
        frames = [stop_of(client) for client in clients]
        assert [(frame["source"]["path"], frame["line"]) for frame in frames] == [(str(script), 4)] * 4
        assert [value_of(client, frame, "square") for client, frame in zip(clients, frames, strict=True)] == list(
            "0149"
        )
    finally:
        for each in sessions:
            each.__exit__(None, None, None)
    assert pipelines.until_final()["status"] == "Completed"
    logs = sorted(Path(endpoints[0]["log"]).parent.glob("70_driver_log_*.txt"))
    assert [path.name for path in logs] == [f"70_driver_log_{rank}.txt" for rank in range(4)]
    text = logs[3].read_text().splitlines()
    assert "rank: 3" in text and "rank 3 of 4 9" in text


def made_by_a_launcher(pipelines: PipelineProject, script: str, count: int) -> None:
    """A step whose command has a launcher that nobody has heard of start the script."""
    tools = pipelines.folder / "tools"
    tools.mkdir()
    (tools / "mylaunch.py").write_text(LAUNCHER)
    more = "inputs: {tools: {type: uri_folder, path: ./tools}}\n"
    pipelines.single(script, f"python ${{{{inputs.tools}}}}/mylaunch.py {count} work.py", more=more)


def test_each_rank_that_a_steps_own_command_makes_is_attached_to_on_a_port_of_its_own(
    pipelines: PipelineProject,
) -> None:
    made_by_a_launcher(pipelines, RANK_SCRIPT, 3)
    endpoints = debug(pipelines, "--rank", "all")["endpoints"]
    first = endpoints[0]["port"]
    assert [(one["rank"], one["port"]) for one in endpoints] == [(rank, first + rank) for rank in range(3)]
    assert list(pipelines.launch()) == [f"{FAMILY} (work, rank {rank})" for rank in range(3)]
    script = pipelines.folder / "work" / "work.py"
    for rank, endpoint in enumerate(endpoints):
        with session(endpoint, {script: [4]}) as client:
            assert value_of(client, stop_of(client), "square") == str(rank**2)
    assert pipelines.until_final()["status"] == "Completed"


@ANY_ENGINE
def test_one_of_the_ranks_that_a_steps_own_command_makes_holds_and_the_others_run(pipelines: PipelineProject) -> None:
    made_by_a_launcher(pipelines, RANK_SCRIPT, 3)
    (endpoint,) = debug(pipelines, "--rank", "2")["endpoints"]
    assert endpoint["rank"] == 2
    seen = pipelines.ok("pipeline.inspect", "work.py:4", "--rank", "2", "--json").json
    assert seen["locals"]["square"] == "4"
    assert pipelines.until_final()["status"] == "Completed"


@ANY_ENGINE
def test_an_error_in_any_rank_that_a_steps_own_command_makes_is_held(pipelines: PipelineProject) -> None:
    made_by_a_launcher(pipelines, "import os\nrank = int(os.environ['RANK'])\nassert rank != 1, 'not this one'\n", 3)
    (endpoint,) = debug(pipelines, "--on-error")["endpoints"]
    assert (endpoint["rank"], endpoint["error"]) == (1, "AssertionError: not this one")


@ANY_ENGINE
@pytest.mark.parametrize("command", ["python work.py", "python work.py; exit 3", "exit 3"])
def test_a_step_that_fails_without_an_exception_says_why_it_did_not_hold(
    pipelines: PipelineProject, command: str
) -> None:
    pipelines.single("try:\n    1 / 0\nexcept ZeroDivisionError:\n    raise SystemExit(3)\n", command)
    said = pipelines.inv("pipeline.debug", "--on-error")
    said.says("exit code 3")
    assert said.err.count("it did not hold, since no exception left its Python") == 1


@ANY_ENGINE
def test_one_rank_holds_and_the_others_run(pipelines: PipelineProject) -> None:
    pipelines.single(RANK_SCRIPT, more=RANKS)
    (endpoint,) = debug(pipelines, "--rank", "2")["endpoints"]
    assert endpoint["rank"] == 2 and endpoint["launch_configuration"] == f"{FAMILY} (work, rank 2)"
    log = Path(endpoint["log"]).parent / "70_driver_log_1.txt"
    until(lambda: "rank 1 of 4 1" in log.read_text(), "rank 1 running to its end")


def test_after_an_error_the_debugger_shows_the_frames_and_locals_that_failed(pipelines: PipelineProject) -> None:
    pipelines.single("def divide(number):\n    zero = number - number\n    return number / zero\n\ndivide(7)\n")
    (endpoint,) = debug(pipelines, "--on-error")["endpoints"]
    assert "ZeroDivisionError" in Path(endpoint["log"]).read_text()
    with session(endpoint, {}) as client:
        frame = stop_of(client)
        assert frame["reason"] == "exception"
        assert (frame["name"], frame["line"]) == ("divide", 3)
        assert value_of(client, frame, "zero") == "0"
        go_on(client, frame)
    record = pipelines.until_final()
    assert record["status"] == "Failed" and record["steps"][0]["exit_code"] == 1


@ANY_ENGINE
def test_on_error_holds_whichever_rank_raises_and_the_log_is_shown_once(pipelines: PipelineProject) -> None:
    pipelines.single("import os\nif os.environ['RANK'] == '3':\n    raise ValueError('the third')\n", more=RANKS)
    (endpoint,) = debug(pipelines, "--on-error")["endpoints"]
    assert endpoint["rank"] == 3 and endpoint["error"] == "ValueError: the third"
    pipelines.inv("pipeline.inspect", "work.py:1").says(
        "work holds at ValueError: the third in work.py:3, which work.py:1 is not part of.",
        "It keeps holding. To see it: inv pipeline.inspect --run 1 --step work --rank 3",
    )
    looked = pipelines.ok("pipeline.inspect")
    assert "ValueError: the third\nStopped in <module> at work/work.py:3" in looked.out
    assert "to let it go: inv pipeline.inspect --run 1 --step work --rank 3 --release" in looked.out
    for arguments in (("--eval", "os.environ['RANK']"), ("--release", "--rank", "3", "--eval", "os.environ['RANK']")):
        seen = pipelines.ok("pipeline.inspect", "--json", *arguments).json
        assert seen["exception"] == {"type": "ValueError", "message": "the third"}
        assert seen["values"] == {"os.environ['RANK']": "'3'"}
        assert seen["holds"] == (arguments[0] == "--eval")
    pipelines.until_final()
    followed = pipelines.inv("pipeline.tail-log", "--follow")
    followed.says("The step work failed")
    assert (followed.out + followed.err).count("ValueError: the third") == 1


@ANY_ENGINE
def test_a_rank_that_is_not_debugged_is_told_with_what_would_debug_it(pipelines: PipelineProject) -> None:
    pipelines.single(RANK_SCRIPT, more=RANKS)
    debug(pipelines, "--rank", "2")
    refused = pipelines.inv("pipeline.inspect", "work.py:1", "--rank", "1")
    refused.says("Rank 1 of work is not debugged in this run; debugged: 2.", "inv pipeline.debug --step work --rank 1")


@ANY_ENGINE
def test_an_error_in_a_worker_of_a_pool_holds_there_and_inspect_says_in_which_process(
    pipelines: PipelineProject,
) -> None:
    pipelines.single(
        "import multiprocessing\ndef divide(number):\n    zero = number - number\n    return number / zero\n"
        "with multiprocessing.Pool(1) as pool:\n    pool.map(divide, [7])\n"
    )
    result = pipelines.ok("pipeline.debug", "--on-error")
    found = re.search(r"holds in its child process (\d+) at ZeroDivisionError: division by zero", result.out)
    assert found is not None, result.out
    seen = pipelines.ok("pipeline.inspect", "work.py:4", "--json").json
    assert (seen["stopped"]["function"], seen["locals"]["zero"]) == ("divide", "0")
    assert seen["child"] == int(found[1])
    assert pipelines.until_final()["status"] == "Failed"


@ANY_ENGINE
def test_inspect_finds_the_exception_of_a_group_that_was_raised_at_a_line(pipelines: PipelineProject) -> None:
    pipelines.single(
        "import asyncio\nasync def first():\n    raise ValueError\n"
        "async def second():\n    local = 7\n    raise KeyError\n"
        "async def main():\n    async with asyncio.TaskGroup() as group:\n"
        "        group.create_task(first())\n        group.create_task(second())\nasyncio.run(main())\n"
    )
    debug(pipelines, "--on-error")
    seen = pipelines.ok("pipeline.inspect", "work.py:6", "--json").json
    assert (seen["stopped"]["function"], seen["locals"]["local"]) == ("second", "7")
    assert pipelines.until_final()["status"] == "Failed"


@ANY_ENGINE
def test_a_task_whose_error_nobody_retrieves_is_held(pipelines: PipelineProject) -> None:
    pipelines.single(
        "import asyncio\nasync def fail():\n    local = 7\n    raise KeyError(local)\nasync def main():\n"
        "    task = asyncio.create_task(fail())\n    await asyncio.sleep(0.1)\n    del task\nasyncio.run(main())\n"
    )
    (endpoint,) = debug(pipelines, "--on-error")["endpoints"]
    assert endpoint["error"] == "KeyError: 7"
    seen = pipelines.ok("pipeline.inspect", "work.py:4", "--json").json
    assert (seen["stopped"]["function"], seen["locals"]["local"]) == ("fail", "7")
    assert pipelines.until_final()["status"] == "Completed"


@ANY_ENGINE
def test_on_error_says_so_where_no_step_raises(pipelines: PipelineProject) -> None:
    result = pipelines.ok("pipeline.debug", "--on-error", "--json")
    assert result.json["endpoints"] == [] and result.json["status"] == "Completed"
    assert "no step raised" in result.err


def test_without_waiting_a_step_runs_and_can_be_attached_to(pipelines: PipelineProject) -> None:
    pipelines.single("import time\ncount = 0\nwhile count < 3000:\n    count += 1\n    time.sleep(0.02)\n")
    (endpoint,) = debug(pipelines, "--no-wait")["endpoints"]
    assert endpoint["state"] == "listening"
    with session(endpoint, {pipelines.folder / "work" / "work.py": [4]}) as client:
        frame = stop_of(client)
        assert int(value_of(client, frame, "count")) >= 0


def test_without_a_debugger_the_run_goes_on_after_the_timeout_and_says_how_to_submit_again(
    pipelines: PipelineProject,
) -> None:
    pipelines.single("print('working')\n")
    debug(pipelines, "--debug-timeout", "1")
    record = pipelines.until_final()
    assert record["status"] == "Completed"
    log = Path(pipelines.step("work")["log"]).read_text().splitlines()
    assert log[0] == "Timeout for debug connection: 1" and log[-2:] == ["Debugger attached = False", "working"]
    assert "inv pipeline.debug --step work" in pipelines.ok("pipeline.status").out


@ANY_ENGINE
def test_after_an_error_its_message_is_shown_and_inspect_shows_the_values(pipelines: PipelineProject) -> None:
    pipelines.single("def look(prices):\n    return prices['rent']\n\nlook({'food': 3})\n")
    result = pipelines.ok("pipeline.debug", "--on-error")
    assert "holds at KeyError: 'rent'" in result.out and "inv pipeline.inspect work.py:2" in result.out
    assert "holds at KeyError: 'rent'" in pipelines.ok("pipeline.status").out
    seen = pipelines.ok("pipeline.inspect", "work.py:2", "--json").json
    assert seen["stopped"]["function"] == "look" and seen["locals"]["prices"] == "{'food': 3}"
    assert pipelines.until_final()["status"] == "Failed"


@ANY_ENGINE
def test_a_step_can_be_inspected_again_after_a_debugger_has_left(pipelines: PipelineProject) -> None:
    pipelines.single("import time\ncount = 0\nwhile count < 6000:\n    count += 1\n    time.sleep(0.01)\n")
    debug(pipelines)
    for line in (4, 5, 4):
        seen = pipelines.ok("pipeline.inspect", f"work.py:{line}", "--json").json
        assert seen["stopped"]["line"] == line
    assert pipelines.ok("pipeline.attach", "--json").json["endpoints"][0]["state"] == "detached"


@ANY_ENGINE
def test_inspect_takes_the_rank_that_is_debugged_and_names_those_there_are(pipelines: PipelineProject) -> None:
    pipelines.single(RANK_SCRIPT, more=RANKS)
    debug(pipelines, "--rank", "3")
    pipelines.inv("pipeline.inspect", "work.py:4", "--rank", "1").says("Rank 1 of work is not debugged", "debugged: 3")
    pipelines.inv("pipeline.tail-log", "--rank", "9").says("no rank 9")
    assert pipelines.ok("pipeline.inspect", "work.py:4", "--json").json["locals"]["rank"] == "3"
