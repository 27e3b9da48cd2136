"""What a failure has left: shown by a command, opened by a debugger, fetched from a workspace."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from azureml_projects import python_with_sdk_v2
from azureml_server import AzureMLServer
from experiments import ExperimentProject, make_experiment_project
from hosts import Hosts
from pages import ROOT, blocks
from pipelines import make_pipeline_project
from projects import ANY_ENGINE, Project, post, quiet_port, until
from remotes import remote_project
from workspaces import make_v2_project

from workflows.debugger.dap import DapClient, DapError
from workflows.debugger.frames import evaluate, read_locals, read_stack
from workflows.engines.ports import find_holder
from workflows.engines.reservations import read_reservation
from workflows.flows.snapshots import FAMILY
from workflows.vscode.f5 import READY, VARIABLE

#: Divides by zero, in line 5.
FAILING = """def train(rows, rate):
    total = 0
    for row in rows:
        total += row
    return total / rate


if __name__ == "__main__":
    train([1, 2, 3, 4], 0)
"""
FAILING_LINE = 5
#: Ranks of which the second fails first, and the first a while later; the third does well.
RANKS = """import os
import time

rank = int(os.environ["RANK"])
share = {"rank": rank, "rows": list(range(rank, 10))}
if rank == 1:
    share["missing"]
time.sleep(1)
if rank == 0:
    raise RuntimeError(f"rank {rank} was left alone")
"""


@pytest.fixture
def project(tmp_path: Path, engine: str) -> Iterator[ExperimentProject]:
    made = make_experiment_project(tmp_path / "a project", engine)
    made.write("train.py", FAILING)
    yield made
    made.clean_up()


def fail(project: Project, *command: str) -> str:
    """Type a command whose run fails; what it says of it."""
    result = project.inv(*command)
    assert result.code == 1, result
    return result.err


def opened(project: Project, *command: str) -> DapClient:
    """A client of the protocol, attached to what a command has opened for an editor."""
    result = project.ok(*command, "--json").json
    entry = project.launch()[result["launch_configuration"]]
    assert entry["connect"] == result["debug"]
    client = DapClient.connect("127.0.0.1", entry["connect"]["port"], 10)
    client.attach(path_mappings=result["path_mappings"], timeout=20)
    return client


def test_a_script_that_failed_is_looked_at_when_it_is_gone(project: ExperimentProject) -> None:
    project.ok("experiment.create", "sums")
    said = fail(project, "experiment.run", "sums", "--script", "train.py", "--follow")
    assert "; its variables: inv experiment.snapshot --run 1)" in said
    assert "Variables when it failed: inv experiment.snapshot --run 1" in project.ok("experiment.show").out
    found = project.ok("experiment.snapshot", "--run", "1", "--eval", "rows[:3]", "--eval", "nothing")
    # The page shows what is shown, but for the time.
    page = next(block.text for block in blocks(ROOT / "docs" / "snapshots.md") if "--eval" in block.text)
    for line in page.splitlines()[2:]:
        assert line in found.out
    assert "nothing = not recorded: there is no nothing in this frame" in found.out
    stop = project.ok("experiment.snapshot", "--json", "--frame", "1").json
    assert stop["stopped"]["function"] == "<module>" and stop["stopped"]["file"] == str(project.folder / "train.py")
    assert [one["line"] for one in stop["stack"]] == [FAILING_LINE, 9]
    assert stop["exception"]["type"] == "ZeroDivisionError"
    refused = project.inv("experiment.snapshot", "--eval", "rows.clear()")
    assert refused.code == 2 and "nothing can be run" in refused.err


@ANY_ENGINE
def test_a_failure_is_opened_as_if_the_program_were_stopped_there(project: ExperimentProject) -> None:
    project.ok("experiment.create", "sums")
    fail(project, "experiment.run", "sums", "--script", "train.py", "--follow")
    with opened(project, "experiment.attach", "--snapshot") as client:
        assert f"{FAMILY}: sums" in project.launch()
        stop = client.wait_event("stopped", 10)
        assert stop.body["text"] == "ZeroDivisionError: division by zero"
        frame = read_stack(client, stop.body["threadId"])[0]
        assert (frame.file, frame.line) == (str(project.folder / "train.py"), FAILING_LINE)
        assert read_locals(client, frame) == {"rows": "[1, 2, 3, 4]", "rate": "0", "total": "10", "row": "4"}
        assert evaluate(client, frame, "rows[-1]", 5) == "4"
        with pytest.raises(DapError, match="This is a snapshot"):
            client.request("next", {"threadId": 1})
        client.disconnect()
    (project.folder / "train.py").write_text(f"# edited since\n{FAILING}")
    shown = project.ok("experiment.snapshot").out
    assert "note: the file here is not the one that ran" in shown
    with opened(project, "experiment.attach", "--snapshot") as client:
        source = client.request("stackTrace", {"threadId": 1})["stackFrames"][0]["source"]
        assert client.request("source", {"sourceReference": source["sourceReference"]})["content"] == FAILING
        client.disconnect()


def test_a_failure_on_the_other_machine_is_looked_at_from_here(tmp_path: Path, hosts: Hosts) -> None:
    with remote_project(tmp_path / "a project", hosts, hosts.instance) as project:
        # The usual ones may be those of a test that runs beside this one.
        project.environ["AML_DEBUG_PORT"] = str(quiet_port())
        (project.folder / "train.py").write_text(FAILING)
        project.ok("experiment.create", "--remote", "sums")
        said = fail(project, "experiment.run", "--remote", "sums", "--script", "train.py", "--follow")
        assert "its variables: inv experiment.snapshot --remote --run 1)" in said
        found = project.remote("experiment.snapshot", "--frame", "0", "--eval", "rows[:2]", "--eval", "rate")
        assert found["values"] == {"rows[:2]": "[1, 2]", "rate": "0"}
        assert project.inv("experiment.snapshot", "--remote", "--eval", "len(rows)").code == 2
        assert len(project.remote("experiment.snapshot", "--list")["snapshots"]) == 1
        # The editor here opens it, with the source that is here.
        project.ok("vscode.setup", "--remote")
        tasks = json.loads((project.folder / ".vscode" / "tasks.json").read_text())["tasks"]
        before = project.launch()[f"{FAMILY}: sums"]["preLaunchTask"]
        (f5,) = (task for task in tasks if task["label"] == before)
        assert f5["args"][-5:] == ["experiment.attach", "--snapshot", "--run", "sums", "--remote"]
        pressed = project.ok(*f5["args"][-5:], **{VARIABLE: f"{FAMILY}: sums"})
        assert pressed.out.splitlines()[-1] == READY
        wanted = project.launch()[f"{FAMILY}: sums"]["connect"]
        with opened(project, "experiment.attach", "--remote", "--snapshot") as client:
            # The port that launch.json has had stays.
            seen = (find_holder(wanted["port"]), read_reservation(wanted["port"]))
            assert project.launch()[f"{FAMILY}: sums"]["connect"] == wanted, seen
            stop = client.wait_event("stopped", 10)
            assert stop.body["text"] == "ZeroDivisionError: division by zero"
            frame = read_stack(client, stop.body["threadId"])[0]
            assert (frame.file, frame.line) == (str(project.folder / "train.py"), FAILING_LINE)
            assert evaluate(client, frame, "rows[-1]", 5) == "4"
            client.disconnect()
        project.inv("experiment.attach", "--remote", "--snapshot", "--rank", "7").says("Rank 7", "has left no snapshot")


@ANY_ENGINE
def test_where_there_is_no_snapshot_it_says_why(project: ExperimentProject) -> None:
    project.write("train.py", "print('well')\n")
    project.run("sums", "--script", "train.py")
    project.inv("experiment.snapshot").says("has no snapshot: it is Completed, and nothing in it has failed.")
    project.write("train.py", "raise SystemExit(3)\n")
    fail(project, "experiment.run", "sums", "--follow")
    project.inv("experiment.snapshot").says("its Python did not end with an exception")
    (Path(project.record()["folder"]) / "azureml-logs" / ".snapshot-sums-rank0-1ab.1.partial").write_text("{")
    project.inv("experiment.snapshot").says("was killed while its snapshot was being written")
    project.write("train.py", FAILING)
    project.environ["AML_SNAPSHOT"] = "off"
    assert "its variables" not in fail(project, "experiment.run", "sums", "--follow")
    project.inv("experiment.snapshot").says("AML_SNAPSHOT was off")
    logs = Path(project.record()["folder"]) / "azureml-logs"
    for content, said in ((b"", "is cut off"), (b'{"format": 3}', "is not a snapshot that can be read")):
        (logs / "snapshot-sums-rank0-1.json").write_bytes(content)
        project.inv("experiment.snapshot").says(said)


@ANY_ENGINE
def test_of_several_ranks_the_first_that_failed_is_shown(tmp_path: Path, engine: str) -> None:
    project = make_pipeline_project(tmp_path / "a project", engine)
    ranks = "distribution: {type: pytorch, process_count_per_instance: 3}"
    project.single(RANKS, more=ranks)
    try:
        said = fail(project, "pipeline.submit", "--no-debug", "--follow")
        assert "; its variables: inv pipeline.snapshot --run 1)" in said
        assert "Variables of work when it failed: inv pipeline.snapshot --run 1" in project.ok("pipeline.status").out
        listed = project.ok("pipeline.snapshot", "--list", "--json").json["snapshots"]
        first = project.ok("pipeline.snapshot", "--json", "--eval", "share['rank']").json
        place = f"work/work.py:{first['stopped']['line']}"
        assert place in project.ok("pipeline.snapshot").out
        assert project.ok("pipeline.snapshot", "--list").out.splitlines()[0].endswith(place)
        assert first["exception"]["text"] == "'missing'" and first["values"] == {"share['rank']": "1"}
        assert listed[0]["rank"] == 1
        if len(listed) > 1:
            last = project.ok("pipeline.snapshot", "--json", "--rank", "0", "--step", "work").json
            assert last["exception"]["text"] == "rank 0 was left alone"
        project.inv("pipeline.snapshot", "--rank", "2").says("Rank 2 of the run", "has left no snapshot")
        assert project.inv("pipeline.snapshot", "--rank", "all").code == 2
        project.inv("pipeline.snapshot", "--step", "nowhere").says("There is no step nowhere")
        with opened(project, "pipeline.attach", "--snapshot", "--rank", "1") as client:
            assert client.wait_event("stopped", 10).body["text"] == "KeyError: 'missing'"
            client.disconnect()
        assert f"{FAMILY}: work" in project.launch()
    finally:
        project.clean_up()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[AzureMLServer]:
    if os.geteuid():
        pytest.skip("a container's users are made with mount, which takes root")
    with AzureMLServer(secure=True, python=python_with_sdk_v2(), layout="user_logs") as made:
        yield made
        processes = [number for run in made.state.runs.values() for number in made.runner.processes(run)]
    assert not any(map(psutil.pid_exists, processes)), "processes are left"
    assert made.unknown == []


def test_a_step_that_failed_in_a_workspace_is_looked_at_from_another_machine(
    server: AzureMLServer, tmp_path: Path
) -> None:
    project = make_v2_project(tmp_path / "a project", server, tmp_path / "home")
    other = make_v2_project(tmp_path / "another machine", server, tmp_path / "home 2")
    try:
        project.single(FAILING)
        job = {"type": "command", "command": "python work.py", "code": "./work", "environment": {"image": "python"}}
        job["compute"] = "azureml:cpu"
        project.pipeline.write_text(json.dumps({"type": "pipeline", "jobs": {"work": job}}))
        said = fail(project, "pipeline.submit", "--no-wait", "--follow")
        assert "; its variables: inv pipeline.snapshot --run 1)" in said
        here = project.ok("pipeline.snapshot", "--json", "--eval", "total").json
        assert here["values"] == {"total": "10"} and here["stopped"]["same_source"]
        assert here["stopped"]["file"] == str(project.folder / "work" / "work.py")
        run_id = project.status()["run_id"]
        there = other.ok("pipeline.snapshot", "--run", run_id, "--json", "--eval", "rows[1:3]").json
        assert there["values"] == {"rows[1:3]": "[2, 3]"} and there["stopped"]["line"] == FAILING_LINE
        # A file that was lost here is had again.
        Path(there["snapshot"]).unlink()
        assert other.ok("pipeline.snapshot", "--run", run_id, "--json").json["snapshot"] == there["snapshot"]
    finally:
        project.clean_up()
        other.clean_up()


#: Fails in line 7 for a request without rows, or when it is loaded if a variable says so.
SCORE = """import json
import os

rate = 2

def share(rows):
    return sum(rows) / len(rows)

def init():
    share([1] if "BROKEN" not in os.environ else [])

def run(raw_data):
    rows = json.loads(raw_data)["data"]
    return {"share": share(rows)}
"""


def test_what_a_service_failed_with_is_looked_at(project: ExperimentProject) -> None:
    project.write("service/score.py", SCORE)
    project.environ |= {"AML_SCORE_SCRIPT": "service/score.py", "AML_SCORING_PORT": "0", "AML_DEBUG_PORT": "0"}
    project.environ["AML_CONTAINER_NAME"] = f"snapshots-{os.getpid()}"
    project.inv("deploy.snapshot").says("neither its init() nor its run() has raised")
    try:
        failed = project.inv("deploy.debug", "--env", "BROKEN=1")
        failed.says("service/score.py:7: error: ZeroDivisionError", ". Its variables: inv deploy.snapshot")
        stop = project.ok("deploy.snapshot", "--json", "--eval", "rows").json
        assert stop["values"] == {"rows": "[]"} and stop["stopped"]["file"] == str(project.score)
        url = project.ok("deploy.debug", "--json").json["scoring_url"]
        project.inv("deploy.snapshot").says("neither its init() nor its run() has raised")
        for number in (1, 2):
            with pytest.raises(AssertionError, match="500"):
                post(url, {"data": [], "number": number})
        until(lambda: len(project.ok("deploy.snapshot", "--list", "--json").json["snapshots"]) == 2, "both snapshots")
        stop = project.ok("deploy.snapshot", "--json", "--frame", "1", "--eval", "raw_data").json
        assert '"number": 2' in stop["values"]["raw_data"], "the latest"
        first = project.ok("deploy.snapshot", "--number", "1", "--frame", "1", "--eval", "raw_data").out
        assert '"number": 1' in first
        with opened(project, "deploy.attach-config", "--snapshot") as client:
            assert client.wait_event("stopped", 10).body["text"] == "ZeroDivisionError: division by zero"
            frame = read_stack(client, 1)[0]
            assert (frame.file, frame.line, read_locals(client, frame)) == (str(project.score), 7, {"rows": "[]"})
            client.disconnect()
        project.ok("container.stop")
        assert "ZeroDivisionError" in project.ok("deploy.snapshot").out
        project.environ["AML_SNAPSHOT"] = "off"
        project.ok("deploy.debug")
        del project.environ["AML_SNAPSHOT"]
        project.inv("deploy.snapshot").says("AML_SNAPSHOT was off", "AML_SNAPSHOT=on")
    finally:
        project.inv("container.stop")
