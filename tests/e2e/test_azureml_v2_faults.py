"""What goes wrong while a job of SDK v2 is debugged: the laptop, the relay, the token, the node, the job itself."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azureml_server import AzureMLServer
from pipelines import PipelineProject, go_on, session, stop_of, value_of
from projects import until
from ready import PLAIN
from workspaces import make_v2_project, workspace_of_v2

from workflows.debugger.dap import DapClosed, DapError

LOOP = "import time\ncount = 0\nwhile True:\n    count += 1\n    time.sleep(0.05)\n"
#: The line of LOOP that it comes to again and again.
LOOP_LINE = 5
#: Seconds after which a silent link is given up in these tests.
SILENT = 6.0


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[AzureMLServer]:
    """The workspace, with the behaviour that a test's parameter says."""
    with workspace_of_v2(**getattr(request, "param", {})) as made:
        yield made


@pytest.fixture
def project(server: AzureMLServer, tmp_path: Path) -> Iterator[PipelineProject]:
    made = make_v2_project(tmp_path / "a project", server, tmp_path / "home")
    made.single(LOOP)
    made.pipeline.write_text(made.pipeline.read_text().replace("azureml:any@latest", "{image: python}"))
    yield made
    made.clean_up()


def script(project: PipelineProject) -> Path:
    return project.folder / "work" / "work.py"


def follower(project: PipelineProject) -> int:
    """The process that follows the run."""
    found: int = json.loads(next(project.runs.glob("*/runner.json")).read_text())["pid"]
    return found


def stops(project: PipelineProject, endpoint: dict[str, Any]) -> int:
    """Attach, stop in the loop, go on; how often the loop has been gone through."""
    with session(endpoint, {script(project): [LOOP_LINE]}) as client:
        frame = stop_of(client)
        count = int(value_of(client, frame, "count"))
        client.request("setBreakpoints", {"source": {"path": str(script(project))}, "breakpoints": []}, 20)
        go_on(client, frame)
    return count


def attached_until_it_ends(project: PipelineProject, endpoint: dict[str, Any], end: Any) -> None:
    """A session that stands at a breakpoint when something ends it: the editor is told."""
    with session(endpoint, {script(project): [LOOP_LINE]}) as client:
        stop_of(client)
        end()
        with contextlib.suppress(DapClosed, DapError):
            client.wait_event("terminated", 60)
            return
    # It has seen the end of its connection.


def test_the_same_port_leads_to_the_step_after_sleep_a_lost_relay_and_the_end_of_the_token(
    server: AzureMLServer, project: PipelineProject
) -> None:
    # Whatever follows the run reads it as its Python starts.
    project.environ |= {"AZUREML_DEBUG_TEST_SILENT_SECONDS": str(SILENT), PLAIN: "1"}
    project.environ["AZUREML_DEBUG_TEST_TOKEN_SECONDS"] = "10"
    (endpoint,) = project.ok("pipeline.debug", "--json").json["endpoints"]
    counts = [stops(project, endpoint)]
    # The laptop sleeps for longer than a silent link is waited for, so that there is another one afterwards.
    links = len(server.relay.shown)
    os.kill(follower(project), signal.SIGSTOP)
    time.sleep(SILENT + 3)
    os.kill(follower(project), signal.SIGCONT)
    counts.append(until(lambda: attempt(project, endpoint), "the port to lead there after the sleep"))
    assert len(server.relay.shown) > links

    def lose() -> None:
        server.relay.answer = 503
        server.services.drop()

    attached_until_it_ends(project, endpoint, lose)
    time.sleep(2)
    server.relay.answer = 0
    counts.append(until(lambda: attempt(project, endpoint), "the port to lead there after the relay was gone"))
    assert counts == sorted(counts) and len(set(counts)) == 3
    # By now the first token has ended, and the relay has been shown another one.
    assert len(set(server.relay.shown)) > 1 and min(server.relay.shown) < time.time()
    assert project.status()["steps"][0]["endpoints"][0]["port"] == endpoint["port"]
    project.ok("pipeline.cancel")


def attempt(project: PipelineProject, endpoint: dict[str, Any]) -> int:
    """As :func:`stops`; 0 where the port does not lead there."""
    with contextlib.suppress(DapClosed, DapError, OSError, TimeoutError):
        return stops(project, endpoint)
    return 0


def test_a_job_that_loses_its_node_ends_the_session_and_is_told(
    server: AzureMLServer, project: PipelineProject
) -> None:
    (endpoint,) = project.ok("pipeline.debug", "--json").json["endpoints"]
    (step,) = server.steps("work")
    attached_until_it_ends(project, endpoint, lambda: server.preempt(step))
    status = project.until_final()
    result = project.inv("pipeline.tail-log", "--follow")
    assert result.code == 1 and "Traceback" not in result.err
    assert status["status"] == "Failed" and "lost its node" in result.err and "preempted" in result.err


@pytest.mark.parametrize("server", [{"build_seconds": 0.5, "build_fails": True}], indirect=True, ids=["broken"])
def test_what_keeps_a_job_from_running_is_said_while_it_waits_and_where_its_image_is_not_built(
    server: AzureMLServer, project: PipelineProject
) -> None:
    server.add_compute("empty", nodes=0)
    child = project.start("pipeline.debug", "--compute-target", "empty")
    until(lambda: project.runs.exists() and list(project.runs.glob("*/run.json")), "the run")
    until(lambda: project.record()["steps"] and project.record()["steps"][0].get("waits_for"), "what it waits for")
    assert "compute empty: 0 of 0 nodes" in project.ok("pipeline.status").out
    server.state.computes["empty"].nodes = 1
    result = project.finish(child)
    assert result.code == 1 and "Traceback" not in result.err
    assert "compute empty: 0 of 0 nodes" in result.err + result.out
    assert "ERROR: No matching distribution found for no-such-package" in result.err


def test_a_relay_that_answers_something_else_is_said_while_it_is_waited_for(
    server: AzureMLServer, project: PipelineProject
) -> None:
    server.relay.answer = 403

    def let_in() -> None:
        until(lambda: len([one for one in server.requests if one.status == 403]) > 3, "the relay to be asked")
        server.relay.answer = 0

    asked = threading.Thread(target=let_in)
    asked.start()
    result = project.ok("pipeline.debug", "--json")
    asked.join()
    assert "relay: 127.0.0.1 answers 403" in result.err
    assert stops(project, result.json["endpoints"][0]) > 0
    project.ok("pipeline.cancel")


def test_a_second_laptop_sees_a_job_and_ends_it_and_the_firsts_session_ends_and_it_is_told(
    server: AzureMLServer, project: PipelineProject, tmp_path: Path
) -> None:
    (project.folder / "job.yml").write_text(
        "type: command\ndisplay_name: loop\ncommand: echo begun && python work.py\ncode: ./work\n"
        "environment: {image: python}\ncompute: azureml:cpu\n"
    )
    first = project.ok("pipeline.debug", "--json", "--file", str(project.folder / "job.yml")).json
    other = make_v2_project(tmp_path / "other", server, tmp_path / "home 2")
    try:
        refused = other.inv("pipeline.attach", "--run", first["run_id"])
        refused.says("was submitted from elsewhere, where its token and key are", "Attach there")

        def seen() -> dict[str, Any]:
            (found,) = other.status(first["run_id"])["steps"]
            assert found["name"] == "loop"
            return found if found["status"] == "Running" else {}

        # What it has adopted it knows once its follower has asked.
        step = until(seen, "the job running")
        until(lambda: Path(step["log"]).exists() and "begun" in Path(step["log"]).read_text(), "the log")
        # The first one's session is none of the second's business.
        assert stops(project, first["endpoints"][0]) > 0

        def cancel() -> None:
            assert other.ok("pipeline.cancel", "--json", "--run", first["run_id"]).json["status"] == "Canceled"

        attached_until_it_ends(project, first["endpoints"][0], cancel)
    finally:
        other.clean_up()
    status = project.until_final()
    assert status["status"] == "Canceled" and "it was canceled in the workspace" in status["reason"]
    result = project.inv("pipeline.tail-log")
    assert result.code == 1 and "Traceback" not in result.err and "it was canceled in the workspace" in result.err
