"""A pipeline in a workspace, from the command to the breakpoint: the real SDK, over real HTTP, real processes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azureml_projects import python_with_the_sdk
from azureml_server import AzureMLServer
from pipelines import (
    ADD_LINE,
    FAMILY,
    PREPARE_LINE,
    READER_LINE,
    TELL_LINE,
    PipelineProject,
    go_on,
    session,
    stop_of,
    value_of,
)
from projects import until
from workspaces import make_workspace_project, workspace

from workflows.debugger.dap import DapClosed, DapError

ASLEEP = "import time\nprint('asleep', flush=True)\nwhile True:\n    time.sleep(0.05)\n"


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[AzureMLServer]:
    """The workspace, with the behaviour that a test's parameter says."""
    with workspace(**{"python": python_with_the_sdk(), **getattr(request, "param", {})}) as made:
        yield made


@pytest.fixture
def project(server: AzureMLServer, tmp_path: Path) -> Iterator[PipelineProject]:
    made = make_workspace_project(tmp_path / "a project", server, tmp_path / "home")
    yield made
    made.clean_up()


def debug(project: PipelineProject, *arguments: str) -> dict[str, Any]:
    """`pipeline.debug --json`, which has to work."""
    return project.ok("pipeline.debug", "--json", *arguments).json


def own_files(project: PipelineProject) -> str:
    """All that lies in the project, but for the token's own file."""
    files = [path for path in project.folder.rglob("*") if path.is_file() and path.name != "token"]
    return "".join(path.read_text(errors="replace") for path in files)


#: Where newer workspaces keep their logs; all other tests have them where older ones do.
USER_LOGS = {"layout": "user_logs"}


def test_each_step_stops_at_its_breakpoint_one_after_the_other(server: AzureMLServer, project: PipelineProject) -> None:
    before = {path: path.read_bytes() for path in project.folder.rglob("*") if path.is_file()}
    result = debug(project)
    (first,) = result["endpoints"]
    assert (result["backend"], first["step"], first["host"]) == ("azureml", "prepare", "127.0.0.1")
    assert project.launch()[f"{FAMILY} (prepare)"]["connect"] == {"host": "127.0.0.1", "port": first["port"]}
    with session(
        first,
        {
            project.script("prepare"): [PREPARE_LINE],
            project.folder / "prepare" / "helpers" / "numbers_file.py": [READER_LINE],
        },
    ) as client:
        stop = stop_of(client)
        assert (stop["line"], value_of(client, stop, "text.strip()")) == (READER_LINE, "'1 2 3'")
        go_on(client, stop)
        stop = stop_of(client)
        assert (stop["source"]["path"], stop["line"]) == (str(project.script("prepare")), PREPARE_LINE)
        assert value_of(client, stop, "numbers") == "[1, 2, 3]"
        go_on(client, stop)
    for step, line, expression, value in (
        ("add", ADD_LINE, "total", "12"),
        ("tell", TELL_LINE, "text", "'36'"),
    ):
        endpoint = project.until_waiting(step)
        with session(endpoint, {project.script(step): [line]}) as client:
            stop = stop_of(client)
            assert value_of(client, stop, expression) == value
            go_on(client, stop)
    assert project.until_final()["status"] == "Completed"
    log = Path(project.step("tell")["log"]).read_text()
    assert re.search(
        r"before\nTimeout for debug connection: 300\nip_address: 127\.0\.0\.1\ndebug_port: \d+\n"
        r"Debugger attached = True\nthe result is 36\nafter\n",
        log,
    )
    run = server.state.runs[result["run_id"]]
    assert run.status in ("Completed", "Finished") and server.state.runs[first["run_id"]].status == "Completed"
    # The person's own files are as they were.
    assert {path: path.read_bytes() for path in before} == before


def test_a_step_that_does_not_wait_is_attached_to_later_and_its_port_lets_nobody_in_without_the_token(
    server: AzureMLServer, project: PipelineProject
) -> None:
    project.single(ASLEEP)
    # Without a hold the step runs at once, and is attached to later.
    (endpoint,) = debug(project, "--no-wait")["endpoints"]
    assert endpoint["state"] == "listening"
    until(lambda: "asleep" in Path(endpoint["log"]).read_text(), "the log")
    (child,) = server.steps("work")
    until(lambda: "azureml_debug.0" in child.tags, "the tag")
    host, port = child.tags["azureml_debug.0"].split()[0].split(":")
    with socket.create_connection((host, int(port)), 20) as peer:
        peer.sendall(b'Content-Length: 119\r\n\r\n{"seq":1,"type":"request","command":"initialize","arguments":{')
        assert peer.recv(1) == b""
    with session(endpoint, {project.folder / "work" / "work.py": [4]}) as client:
        assert stop_of(client)["line"] == 4
    token = next(project.runs.glob("*/token"))
    assert token.stat().st_mode & 0o077 == 0
    secret = token.read_text()
    seen = "".join(path.read_text(errors="replace") for path in server.state.root.rglob("*") if path.is_file())
    assert len(secret) > 30 and secret not in own_files(project) + seen + json.dumps(child.tags)


def test_an_open_port_is_open_where_it_is_asked_for_and_the_run_can_be_canceled(
    server: AzureMLServer, project: PipelineProject
) -> None:
    project.single(ASLEEP)
    result = debug(project, "--open-port")
    (endpoint,) = result["endpoints"]
    place = f"ip_address: {endpoint['host']}\ndebug_port: {endpoint['port']}\n"
    # The tag that tells the same may be read before the log.
    until(lambda: place in Path(endpoint["log"]).read_text(), "the log")
    assert not list(project.runs.glob("*/token"))
    with session(endpoint, {project.folder / "work" / "work.py": [4]}) as client:
        assert stop_of(client)["line"] == 4
    assert project.ok("pipeline.cancel", "--json").json["status"] == "Canceled"
    until(lambda: server.state.runs[result["run_id"]].status == "Canceled", "the end of the run")
    (child,) = server.steps("work")
    until(lambda: server.runner.processes(child) == [], "the end of its processes")
    assert project.status()["status"] == "Canceled"


@pytest.mark.parametrize(
    ("server", "distribution"),
    [({}, "mpi"), (USER_LOGS, "pytorch")],
    indirect=["server"],
    ids=["azureml-logs-mpi", "user_logs-pytorch"],
)
def test_every_rank_on_a_node_is_attached_to_on_a_port_of_its_own(project: PipelineProject, distribution: str) -> None:
    project.single(
        "import os\nrank = os.environ.get('RANK', os.environ.get('OMPI_COMM_WORLD_RANK'))\nprint('rank', rank)\n",
        more=f"distribution:\n  type: {distribution}\n  process_count_per_instance: 3",
    )
    endpoints = debug(project, "--rank", "all")["endpoints"]
    assert [one["rank"] for one in endpoints] == [0, 1, 2] and len({one["port"] for one in endpoints}) == 3
    assert {f"{FAMILY} (work, rank {rank})" for rank in range(3)} <= set(project.launch())
    for endpoint in endpoints:
        with session(endpoint, {project.folder / "work" / "work.py": [3]}) as client:
            stop = stop_of(client)
            assert value_of(client, stop, "rank") == f"'{endpoint['rank']}'"
            go_on(client, stop)
    assert project.until_final()["status"] == "Completed"


@pytest.mark.parametrize(
    "server", [{"pauses": {"Queued": 4, "Preparing": 0.5}, "build_seconds": 2.5}], indirect=True, ids=["slow"]
)
def test_queueing_and_building_the_image_are_shown_as_they_happen(project: PipelineProject) -> None:
    project.single("print('done')\n")
    told = project.ok("pipeline.debug").out
    assert re.search(r"work: Queued \d+\.\d s\n", told) and re.search(r"work: Preparing \d+\.\d s\n", told)
    assert "Step 2/5 : building the image" in told
    assert told.index("work: Queued") < told.index("Step 2/5") < told.index("work: Preparing")
    status = project.status()["steps"][0]
    assert [one["phase"] for one in status["phases"]][-3:] == ["Queued", "Preparing", "Running"]


@pytest.mark.parametrize("server", [{"build_seconds": 0.5, "build_fails": True}], indirect=True, ids=["broken"])
def test_an_image_that_cannot_be_built_is_told_with_the_end_of_its_log(project: PipelineProject) -> None:
    project.single("print('done')\n")
    result = project.inv("pipeline.debug")
    assert result.code == 1 and "ERROR: No matching distribution found for no-such-package" in result.err
    assert "error: The step work failed: " in result.err and "Image build failed" in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize("server", [USER_LOGS], indirect=True, ids=["user_logs"])
def test_a_step_that_raises_is_held_where_it_raised(project: PipelineProject) -> None:
    project.single("numbers = [1, 2]\nprint(numbers[7])\n")
    debug(project, "--on-error")

    def raised() -> dict[str, Any] | None:
        return next((one for one in project.step("work")["endpoints"] if one["error"]), None)

    # Where the tags take long to come, the log has told of the port before.
    endpoint = until(raised, "what was raised")
    assert endpoint["error"].startswith("IndexError: list index out of range")
    with session(endpoint, {}) as client:
        stop = stop_of(client)
        assert (stop["line"], value_of(client, stop, "numbers")) == (2, "[1, 2]")
        go_on(client, stop)
    assert project.until_final()["status"] == "Failed"


def test_a_run_is_picked_up_again_after_its_follower_was_killed_and_what_has_ended_keeps_its_logs(
    project: PipelineProject,
) -> None:
    assert debug(project, "--step", "add")["endpoints"]
    until(lambda: project.step("prepare")["status"] == "Completed", "the first step", pause=0.2)
    log = Path(project.step("prepare")["log"])
    text = log.read_text()
    assert "doubled" in text
    (known,) = project.runs.glob("*/runner.json")
    os.kill(json.loads(known.read_text())["pid"], signal.SIGKILL)
    # Whatever the settings say of the next run.
    project.environ["AML_BACKEND"] = "local"
    (endpoint,) = project.ok("pipeline.attach", "--json").json["endpoints"]
    assert (endpoint["step"], endpoint["state"]) == ("add", "waiting") and project.step("add")["status"] == "Running"
    stop = project.ok("pipeline.inspect", f"add.py:{ADD_LINE}", "--json", "--eval", "total").json
    assert stop["values"] == {"total": "12"} and stop["stopped"]["file"] == str(project.script("add"))
    assert log.read_text() == text
    assert project.until_final()["status"] == "Completed"


def test_a_compute_without_nodes_is_what_a_step_waits_for_and_ctrl_c_leaves_no_run_in_the_workspace(
    server: AzureMLServer, project: PipelineProject
) -> None:
    server.add_compute("empty", nodes=0)
    project.single("print('done')\n")
    child = project.start("pipeline.debug", "--compute-target", "empty")
    until(lambda: list(project.runs.glob("*/run.json")), "the run")
    until(lambda: any(one.get("waits_for") for one in project.record()["steps"]), "what it waits for")
    assert project.record()["steps"][0]["waits_for"].startswith("compute empty: 0 of 0 nodes")
    assert "compute empty: 0 of 0 nodes" in project.ok("pipeline.status").out
    child.send_signal(signal.SIGINT)
    assert "Interrupted" in project.finish(child).err
    assert [run.status for run in server.state.runs.values()] == ["Canceled", "Canceled"]


def test_a_run_canceled_from_elsewhere_is_told(server: AzureMLServer, project: PipelineProject) -> None:
    server.add_compute("slow", nodes=0)
    project.single("print('done')\n")
    child = project.start("pipeline.debug", "--compute-target", "slow")
    until(lambda: server.steps("work"), "the step")
    (step,) = server.steps("work")
    until(lambda: step.status == "Queued", "the queue")
    server.cancel(server.state.runs[step.root])
    result = project.finish(child)
    assert result.code == 1 and "Canceled" in result.err and "Traceback" not in result.err


@pytest.mark.parametrize("server", [{"closing_seconds": 4}], indirect=True, ids=["closing"])
@pytest.mark.parametrize("canceled", [False, True], ids=["completed", "canceled"])
def test_following_ends_with_the_run_also_where_its_steps_end_before(
    server: AzureMLServer, project: PipelineProject, canceled: bool
) -> None:
    project.single(ASLEEP if canceled else "print('done', end='')\n")
    child = project.start("pipeline.submit", "--no-debug", "--follow")
    if canceled:
        until(lambda: server.steps("work") and server.steps("work")[0].status == "Running", "the step")
        server.cancel(server.state.runs[server.steps("work")[0].root])
    result = project.finish(child)
    assert project.record()["status"] == ("Canceled" if canceled else "Completed")
    assert "\n  the steps are over; the workspace has still to close the run\n" in result.out
    assert result.code == int(canceled) and ("is over: Canceled" in result.err) == canceled
    assert ("has completed" in result.out) != canceled


def test_a_node_that_is_preempted_ends_the_session_and_is_told(server: AzureMLServer, project: PipelineProject) -> None:
    project.single(ASLEEP)
    (endpoint,) = debug(project)["endpoints"]
    with session(endpoint, {project.folder / "work" / "work.py": [4]}) as client:
        stop_of(client)
        server.preempt(server.steps("work")[0])
        with contextlib.suppress(DapClosed, DapError):
            client.wait_event("terminated", 20)
    assert project.until_final()["status"] == "Failed"
    result = project.inv("pipeline.tail-log", "--follow")
    assert result.code == 1 and "lost its node" in result.err and "preempted" in result.err


def test_a_node_that_cannot_be_reached_is_told_and_the_run_goes_on(
    server: AzureMLServer, project: PipelineProject
) -> None:
    # What a node says whose address is another network's: one for documentation, RFC 5737, where nobody is.
    lines = r"Timeout for debug connection: 300\nip_address: 203.0.113.7\ndebug_port: 5678\n"
    project.single("", command=f"printf '{lines}'; sleep 600")
    result = project.inv("pipeline.debug")
    assert result.code == 1, result.out
    assert "203.0.113.7:5678, which cannot be reached from this machine" in result.err
    assert "--remote" in result.err and "Traceback" not in result.err
    assert project.status()["status"] == "Running"


def test_where_no_tag_can_be_set_the_log_says_where_to_attach(server: AzureMLServer, project: PipelineProject) -> None:
    server.faults.fail("PATCH .*/runs/.*", 500)
    project.single("import os\nprint('done')\n")
    (endpoint,) = debug(project)["endpoints"]
    assert "azureml_debug.0" not in server.steps("work")[0].tags
    with session(endpoint, {project.folder / "work" / "work.py": [2]}) as client:
        stop = stop_of(client)
        assert stop["line"] == 2
        go_on(client, stop)
    assert project.until_final()["status"] == "Completed"


@pytest.mark.parametrize("server", [{"python": sys.executable}], indirect=True, ids=["bare"])
def test_a_node_without_azureml_core_does_as_well(server: AzureMLServer, project: PipelineProject) -> None:
    project.single("import os\nprint('done')\n")
    (endpoint,) = debug(project)["endpoints"]
    with session(endpoint, {project.folder / "work" / "work.py": [2]}) as client:
        go_on(client, stop_of(client))
    assert project.until_final()["status"] == "Completed"
    (child,) = server.steps("work")
    assert ":attached" in child.tags["azureml_debug.0"]


def test_passing_faults_while_a_run_is_followed_do_no_harm(server: AzureMLServer, project: PipelineProject) -> None:
    project.single("import os\nprint('done')\n")
    (endpoint,) = debug(project)["endpoints"]
    server.faults.throttle("GET .*/children", retry_after=1, times=2)
    server.faults.drop("GET .*/details", times=1)
    until(lambda: project.record()["trouble"], "the trouble")
    until(lambda: not project.record()["trouble"], "the end of it")
    with session(endpoint, {project.folder / "work" / "work.py": [2]}) as client:
        go_on(client, stop_of(client))
    assert project.until_final()["status"] == "Completed"


def test_data_of_a_datastore_is_taken_where_it_lies(server: AzureMLServer, project: PipelineProject) -> None:
    place = server.state.file("azureml-blobstore", "numbers")
    place.mkdir(parents=True)
    (place / "numbers.txt").write_text("5 6\n")
    name = "azureml://datastores/workspaceblobstore/paths/numbers"
    project.ok("pipeline.submit", "--no-debug", "--input", f"numbers={name}", "--follow")
    assert "the result is 66" in Path(project.step("tell")["log"]).read_text()
    wrong = project.inv("pipeline.submit", "--no-debug", "--input", "numbers=azureml://datastores/none/paths/x")
    assert wrong.code == 1 and "no datastore none" in wrong.err and "workspaceblobstore" in wrong.err
    asset = project.inv("pipeline.submit", "--no-debug", "--input", "numbers=azureml:numbers:1")
    assert asset.code == 1 and "registered asset azureml:numbers:1" in asset.err


def test_a_run_submitted_elsewhere_is_found_by_its_id(
    server: AzureMLServer, project: PipelineProject, tmp_path: Path
) -> None:
    project.single(ASLEEP)
    run_id = project.ok("pipeline.submit", "--json", "--no-debug").json["run_id"]
    other = make_workspace_project(tmp_path / "other", server, tmp_path / "home 2")
    try:
        assert other.status(run_id)["steps"][0]["name"] == "work"
        log = Path(other.status(run_id)["steps"][0]["log"])
        until(lambda: log.exists() and "asleep" in log.read_text(), "the log")
        assert other.ok("pipeline.cancel", "--json", "--run", run_id).json["status"] == "Canceled"
    finally:
        other.clean_up()
    until(lambda: project.status()["status"] == "Canceled", "the end")


# What cannot be submitted --------------------------------------------------------------------------


def test_an_unknown_compute_target_is_told_with_those_there_are(
    server: AzureMLServer, project: PipelineProject
) -> None:
    result = project.inv("pipeline.debug", "--compute-target", "nowhere")
    assert result.code == 1 and "no compute target nowhere" in result.err and "cpu (AmlCompute)" in result.err
    assert not server.state.runs and not list(project.runs.glob("*/run.json"))
    project.environ["AML_COMPUTE_TARGET"] = ""
    result = project.inv("pipeline.debug")
    assert "no compute target cpu-cluster" in result.err and result.code == 1


def test_an_environment_that_the_workspace_does_not_have_is_told_with_its_place(
    server: AzureMLServer, project: PipelineProject
) -> None:
    project.single("print(1)\n")
    server.state.environments.clear()
    result = project.inv("pipeline.debug")
    assert result.code == 1 and "The workspace has no environment any@latest" in result.err
    assert "pipeline.yml:" in result.err and "Traceback" not in result.err


def test_code_that_is_more_than_a_snapshot_may_hold_is_refused_before_anything_is_sent(
    server: AzureMLServer, project: PipelineProject
) -> None:
    project.single("print(1)\n")
    with open(project.folder / "work" / "model.bin", "wb") as file:
        file.truncate(400 << 20)
    result = project.inv("pipeline.submit")
    assert result.code == 1 and "larger than the 300 MB" in result.err and ".amlignore" in result.err
    assert not server.state.runs and not list(project.runs.glob("*/snapshots"))
    (project.folder / "work" / ".amlignore").write_text("*.bin\n")
    project.ok("pipeline.submit", "--no-debug", "--follow")


def test_no_workspace_is_told_before_anything_else(project: PipelineProject) -> None:
    (project.folder / "config.json").unlink()
    result = project.inv("pipeline.debug")
    assert result.code == 1 and "No Azure ML workspace is named" in result.err


def test_a_compute_target_has_to_be_named(project: PipelineProject) -> None:
    project.single("print(1)\n")
    project.environ["AML_COMPUTE_TARGET"] = ""
    result = project.inv("pipeline.debug")
    assert result.code == 1 and "Step work names no compute target" in result.err and "pipeline.yml:" in result.err


def test_an_expired_token_is_told(server: AzureMLServer, tmp_path: Path) -> None:
    made = make_workspace_project(tmp_path / "a project", server, tmp_path / "home", token_seconds=-60)
    result = made.inv("pipeline.debug")
    assert result.code == 1 and "does not accept the sign-in" in result.err and "Traceback" not in result.err


def test_without_the_extra_the_command_that_installs_it_is_said(project: PipelineProject) -> None:
    project.python = sys.executable
    result = project.inv("pipeline.debug", PYTHONPATH="", AML_SDK="v1")
    if "azureml" in result.out:
        pytest.skip("this interpreter has the SDK")
    assert result.code == 1 and "pip install" in result.err and "[azureml-v1]" in result.err
