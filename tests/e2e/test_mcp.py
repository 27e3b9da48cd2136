"""An agent debugs: `inv mcp.serve`, the SDK's own client, real runs, the real debugger."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
from agents import Agent, agent
from conftest import missing
from experiments import ExperimentProject
from pages import ROOT, blocks
from pipelines import PipelineProject
from projects import ANY_ENGINE, PLAIN_LINE, Project, until

PAGE = ROOT / "docs" / "agents.md"


def is_part(shown: Any, given: Any, place: str = "") -> None:
    """Assert that what a page shows of an answer is so, however much more there is."""
    if isinstance(shown, dict):
        for key, value in shown.items():
            assert key in given, f"{place}.{key}"
            is_part(value, given[key], f"{place}.{key}")
    elif isinstance(shown, list):
        assert len(shown) == len(given), place
        for number, value in enumerate(shown):
            is_part(value, given[number], f"{place}[{number}]")
    else:
        assert shown == given, place


@ANY_ENGINE
def test_the_five_calls_of_the_page_lead_from_a_failing_pipeline_to_the_line(pipelines: PipelineProject) -> None:
    for block in blocks(PAGE):
        if block.language in ("python", "yaml"):
            file = pipelines.folder / block.file
            file.parent.mkdir(exist_ok=True)
            file.write_text(block.text)
    text = PAGE.read_text()
    names = re.findall(r"^\*\*\d\.\*\* .*: `(\w+)`$", text, re.MULTILINE)
    shown = [json.loads(block.text) for block in blocks(PAGE) if block.language == "json" and not block.file]
    assert len(names) == 5 and len(shown) == 10
    with agent(pipelines) as one:
        for name, arguments, answer in zip(names, shown[::2], shown[1::2], strict=True):
            is_part(answer, one.ask(name, **arguments), name)


#: Runs a line many times, the first of them once the debugger is there.
LOOP = """\
import time

api_key = "sk-1234567890abcdef"


def work(number):
    squared = number * number
    return squared


for number in range(2000):
    work(number)
    time.sleep(0.02)
print("worked")
"""
#: The line of LOOP at which `squared` is known.
LOOP_LINE = 8


def attached(one: Agent, **more: Any) -> dict[str, Any]:
    """A session that has stopped in LOOP; the run is begun for it."""
    started = one.ask("start", story="pipeline", timeout=50)
    assert started["state"] == "holds"
    place = {"file": "work.py", "line": LOOP_LINE, **more}
    found = one.ask("attach", run=str(started["run"]["run"]), breakpoints=[place])
    assert found["state"] == "stopped" and found["stopped"]["function"] == "work", found
    return found


@ANY_ENGINE
def test_a_session_stops_steps_reads_sets_and_goes_on(pipelines: PipelineProject) -> None:
    pipelines.single(LOOP)
    with agent(pipelines, mode="legacy") as one:
        started = one.ask("start", story="pipeline", timeout=50)
        assert "holds before its first line" in one.refused("attach")
        assert "holds no code" in one.refused("attach", breakpoints=[{"file": "work.py", "line": 5}])
        place = {"file": "work.py", "line": LOOP_LINE, "condition": "number == 3"}
        found = one.ask("attach", breakpoints=[place])
        session = found["session"]
        assert found["run"] == started["run"]["run"] and found["stopped"]["breakpoint"] == 1
        told = one.ask("evaluate", session=session, expression="number, squared")
        assert told["value"] == "(3, 9)"
        assert one.ask("set_variable", session=session, name="squared", expression="[1, {'a': 2}]")["value"]
        opened = one.ask("variables", session=session, path=["squared"], depth=1)["variables"]
        assert [(entry["name"], entry["value"]) for entry in opened] == [("0", "1"), ("1", "{'a': 2}")]
        assert "There is no nothing" in one.refused("variables", session=session, path=["nothing"])
        page = one.ask("variables", session=session, start=1, count=1)
        assert [entry["name"] for entry in page["variables"]] == ["squared"] and not page["more"]
        frames = one.ask("stack", session=session)["frames"]
        assert [frame["function"] for frame in frames[:2]] == ["work", "<module>"]
        assert frames[0]["text"] == "return squared"
        assert 'api_key = "***"' in one.ask("source", session=session, file="work.py", line=3)["source"]
        assert "is not part" in one.refused("source", session=session, file=str(ROOT / "README.md"))
        stepped = one.ask("resume", session=session, how="out")
        assert stepped["state"] == "stopped" and stepped["stopped"]["function"] == "<module>"
        # What is set while it stands, counted and logged while it runs.
        one.ask("clear_breakpoints", session=session)
        log = {"file": "work.py", "line": LOOP_LINE, "log": "number * 1000"}
        last = {"file": "work.py", "line": LOOP_LINE - 1, "hits": 4}
        assert len(one.ask("set_breakpoints", session=session, breakpoints=[log, last])["breakpoints"]) == 2
        found = one.ask("resume", session=session)
        assert found["stopped"]["line"] == LOOP_LINE - 1
        assert [entry["text"] for entry in found["happened"]][:3] == ["4000", "5000", "6000"]
        one.ask("clear_breakpoints", session=session)
        running = one.ask("resume", session=session, timeout=0.5)
        assert running["state"] == "running" and "waits_for" in running
        assert one.ask("pause", session=session)["state"] == "stopped"
        one.ask("detach", session=session)
        assert "There is no session" in one.refused("stack", session=session)
        assert pipelines.status()["status"] == "Running"
        one.ask("end", run="1")


@ANY_ENGINE
def test_what_happens_while_a_call_is_given_up_is_told_by_the_next(pipelines: PipelineProject) -> None:
    pipelines.single(LOOP)
    with agent(pipelines) as one:
        session = attached(one)["session"]
        one.ask("clear_breakpoints", session=session)
        log = {"file": "work.py", "line": LOOP_LINE, "log": "number"}
        one.ask("set_breakpoints", session=session, breakpoints=[log])
        told = one.ask("resume", session=session, timeout=1)["happened"]
        given_up = one.begin("wait", session=session, timeout=1.5)
        time.sleep(0.5)
        given_up.cancel()
        # It would have told what happened by now.
        time.sleep(2)
        told += one.ask("wait", session=session, timeout=0.2)["happened"]
        numbers = [int(entry["text"]) for entry in told]
        assert len(numbers) > 10 and numbers == [*range(numbers[0], numbers[-1] + 1)]
        one.ask("end", run="1")


@ANY_ENGINE
def test_what_names_a_secret_has_no_value_and_what_never_ends_is_interrupted(pipelines: PipelineProject) -> None:
    pipelines.single(LOOP)
    with agent(pipelines) as one:
        session = attached(one)["session"]
        told = json.dumps([
            one.ask("evaluate", session=session, expression="api_key"),
            one.ask("evaluate", session=session, expression="globals()"),
            one.ask("variables", session=session, frame=1, count=200),
            one.ask("set_variable", session=session, name="squared", expression="api_key"),
        ])  # fmt: skip
        assert "sk-1234567890" not in told and "left out" in told
        assert "did not end within 1 s" in one.refused(
            "evaluate", session=session, expression="all(True for _ in iter(int, 1))", timeout=1
        )
        assert one.ask("evaluate", session=session, expression="1 + 1")["value"] == "2"
        secret = {"file": "work.py", "line": LOOP_LINE, "log": "api_key"}
        assert "names api_key" in one.refused("set_breakpoints", session=session, breakpoints=[secret])
        wrong = {"file": "work.py", "line": LOOP_LINE, "condition": "n ="}
        assert "`condition` must be" in one.refused("set_breakpoints", session=session, breakpoints=[wrong])
        raised = one.ask("evaluate", session=session, expression="1 / 0")["value"]
        assert raised.startswith("ZeroDivisionError")
        broken = {"file": "work.py", "line": LOOP_LINE, "condition": "nobody > 1"}
        one.ask("clear_breakpoints", session=session)
        one.ask("set_breakpoints", session=session, breakpoints=[broken])
        found = one.ask("resume", session=session, timeout=3)
        assert [entry["what"] for entry in found["happened"]] == ["condition"] and "nobody" in json.dumps(found)
        assert found["state"] == "running"
        one.ask("end", run="1")


@ANY_ENGINE
def test_a_person_takes_over_and_the_agent_is_told(pipelines: PipelineProject) -> None:
    pipelines.single(LOOP)
    with agent(pipelines, name="copilot") as one:
        session = attached(one)["session"]
        shown = pipelines.ok("pipeline.status")
        assert "An agent (copilot 1) is attached to work" in shown.out
        assert pipelines.status()["agents"][0]["step"] == "work"
        refused = pipelines.inv("pipeline.inspect", f"work.py:{LOOP_LINE}")
        refused.says("An agent (copilot 1) is attached", "inv pipeline.attach --take-over --run 1")
        with agent(pipelines, name="other") as two:
            said = two.refused("attach", breakpoints=[{"file": "work.py", "line": LOOP_LINE}])
            assert "Another agent's session (copilot 1) is attached" in said
        assert "is debugged in the session" in one.refused("attach", go=True)
        taken = pipelines.ok("pipeline.attach", "--take-over", "--json").json
        assert taken["endpoints"][0]["step"] == "work"
        assert "is over: a person has taken over" in one.refused("stack", session=session)
        over = one.ask("wait", session=session)
        assert (over["state"], over["why"]) == ("over", "a person has taken over")
        assert pipelines.status()["agents"] == []
        # The run goes on, and a person's debugger is welcome.
        pipelines.ok("pipeline.inspect", f"work.py:{LOOP_LINE}")
        assert pipelines.status()["status"] == "Running"
        one.ask("end", run="1")


@ANY_ENGINE
def test_what_holds_at_an_exception_holds_again_for_the_person(pipelines: PipelineProject) -> None:
    pipelines.single("def fail(number):\n    return 1 / number\n\n\nfail(0)\n")
    with agent(pipelines) as one:
        one.ask("start", story="pipeline", on_error=True, timeout=50)
        session = one.ask("attach")["session"]
        one.ask("detach", session=session, hold=True)
        session = one.ask("attach")["session"]
        pipelines.ok("pipeline.attach", "--take-over")
        assert one.ask("wait", session=session)["state"] == "over"
    seen = pipelines.ok("pipeline.inspect", "--json").json
    assert seen["exception"]["type"] == "ZeroDivisionError" and seen["holds"]
    pipelines.ok("pipeline.cancel")


@ANY_ENGINE
def test_a_client_that_goes_away_in_mid_call_leaves_the_program_running(pipelines: PipelineProject) -> None:
    pipelines.single(LOOP.replace("2000", "150"))
    with agent(pipelines) as one:
        found = attached(one, condition="number == 3")
        one.ask("clear_breakpoints", session=found["session"])
        one.begin("resume", session=found["session"], timeout=50)
        server = pipelines.status()["agents"][0]["pid"]
    assert pipelines.until_final()["status"] == "Completed"
    assert pipelines.status()["agents"] == []
    until(lambda: not psutil.pid_exists(server), "the server to end")
    # One that is killed while the program stands leaves no more than one that leaves.
    with contextlib.suppress(Exception), agent(pipelines, name="killed") as one:
        attached(one)
        os.kill(pipelines.status()["agents"][0]["pid"], signal.SIGKILL)
        one.ask("status")
    assert pipelines.status()["agents"] == []
    assert pipelines.until_final()["status"] == "Completed"


@ANY_ENGINE
def test_a_session_ends_with_its_program_and_says_so_once(pipelines: PipelineProject) -> None:
    pipelines.single(LOOP.replace("2000", "5"))
    with agent(pipelines) as one:
        found = attached(one, condition="number == 4")
        over = one.ask("resume", session=found["session"], timeout=50)
        assert over["state"] == "over" and "program" in over["why"]
        assert "There is no session" in one.refused("resume", session=found["session"])
        assert one.ask("wait", run="1")["state"] == "over"
        assert one.ask("logs", run="1")["lines"][-1] == "worked"
        assert "is over: Completed" in one.refused("attach", run="1")


@ANY_ENGINE
def test_ranks_are_debugged_side_by_side_and_one_that_is_not_there_is_refused(pipelines: PipelineProject) -> None:
    pipelines.single(LOOP, more="distribution:\n  type: pytorch\n  process_count_per_instance: 2")
    with agent(pipelines) as one:
        one.ask("start", story="pipeline", rank="all", timeout=50)
        place = {"file": "work.py", "line": LOOP_LINE}
        assert "Rank 7 of work is not debugged in this run; debugged: 0, 1" in one.refused("attach", rank=7)
        first, second = (one.ask("attach", rank=rank, breakpoints=[place]) for rank in (0, 1))
        assert first["session"] != second["session"] and second["rank"] == 1
        value = {"expression": "__import__('os').environ['RANK']"}
        assert one.ask("evaluate", session=first["session"], **value)["value"] == "'0'"
        assert one.ask("evaluate", session=second["session"], **value)["value"] == "'1'"
        standing = one.ask("stacks", run="1")
        assert standing["groups"][0]["count"] == 2
        assert len(one.ask("status")["sessions"]) == 2
        one.ask("end", run="1")


@ANY_ENGINE
def test_with_read_only_nothing_that_runs_code_is_there(pipelines: PipelineProject) -> None:
    pipelines.single(LOOP)
    with agent(pipelines) as free:
        every = free.tools()
        assert every["evaluate"].annotations.destructive_hint and not every["evaluate"].annotations.read_only_hint
        assert every["variables"].annotations.read_only_hint and "RUNS CODE" in every["start"].description
    with agent(pipelines, "--read-only") as one:
        gone = {"start", "end", "evaluate", "set_variable", "post_request"}
        assert set(every) - set(one.tools()) == gone
        assert "There is no tool 'evaluate'" in one.refused("evaluate", session="s1", expression="1")
        pipelines.ok("pipeline.debug")
        place = {"file": "work.py", "line": LOOP_LINE}
        for code in ({"condition": "number"}, {"log": "number"}):
            assert "--read-only" in one.refused("attach", breakpoints=[{**place, **code}])
        assert "expressions" in one.refused("stacks", expressions=["1"])
        found = one.ask("attach", breakpoints=[{**place, "hits": 2}])
        assert one.ask("variables", session=found["session"])["variables"][0] == {
            "name": "number",
            "type": "int",
            "value": "1",
        }
        one.ask("detach", session=found["session"])
    pipelines.ok("pipeline.cancel")


@ANY_ENGINE
def test_a_service_is_stopped_by_a_request_and_answers_it_afterwards(project: Project) -> None:
    with agent(project) as one:
        started = one.ask("start", story="deploy", hold=False, timeout=50)
        while started["state"] == "starting":
            started = one.ask("wait", start=started["start"], timeout=50)
        assert started["state"] == "serves"
        found = one.ask("attach", story="deploy", breakpoints=[{"file": "score.py", "line": PLAIN_LINE}], timeout=2)
        assert found["state"] == "running"
        posted = one.ask("post_request", body={"data": [1, 2]}, timeout=10)
        assert found["session"] in posted["waits_for"]
        stopped = one.ask("wait", session=found["session"])
        assert stopped["stopped"]["function"] == "run"
        assert "An agent (test-agent 1) is attached to" in project.ok("deploy.status").out
        one.ask("set_variable", session=found["session"], name="total", expression="4")
        one.ask("resume", session=found["session"], timeout=1)
        answer = one.ask("wait", request=posted["request"])
        assert (answer["status"], answer["body"]) == (200, {"answer": 40})
        project.ok("deploy.attach-config", "--take-over")
        assert one.ask("wait", session=found["session"])["state"] == "over"
        assert one.ask("logs", story="deploy")["lines"]
        assert one.ask("end", story="deploy") == {"story": "deploy", "stopped": True}


@ANY_ENGINE
def test_an_experiment_is_started_debugged_and_ended(experiment: ExperimentProject) -> None:
    (experiment.folder / "loop.py").write_text(LOOP)
    with agent(experiment) as one:
        assert "has a name" in one.refused("start", story="experiment")
        started = one.ask("start", story="experiment", name="loops", file="loop.py", timeout=50)
        while started["state"] == "starting":
            started = one.ask("wait", start=started["start"], timeout=50)
        found = one.ask("attach", story="experiment", breakpoints=[{"file": "loop.py", "line": LOOP_LINE}])
        assert found["state"] == "stopped"
        assert "An agent (test-agent 1) is attached to loops" in experiment.ok("experiment.status").out
        assert experiment.ok("experiment.attach", "--take-over", "--json").json["status"] == "Running"
        ended = one.ask("end", run=str(found["run"]))
        assert ended["canceled"] and one.ask("wait", session=found["session"])["state"] == "over"


@ANY_ENGINE
def test_nonsense_is_refused_and_the_server_goes_on(pipelines: PipelineProject) -> None:
    with agent(pipelines) as one:
        assert "There is no tool 'shell'" in one.refused("shell", command="rm")
        assert "is not of type" in one.refused("status", run=7)
        assert "Its arguments: run" in one.refused("status", pid=1)
        assert "is greater than the maximum" in one.refused("wait", run="1", timeout=1e9)
        assert "There is no session 's9'" in one.refused("resume", session="s9")
        assert "There is no start" in one.refused("wait", start="a9")
        assert "Name one thing to wait for" in one.refused("wait")
        assert "Nothing of this project has been run yet" in one.refused("attach")
        assert "No service" in one.refused("post_request", body={})
        assert "Which run" in one.refused("end")
        failed = one.ask("start", story="pipeline", file="nowhere.yml", timeout=0)
        assert "nowhere.yml" in one.refused("wait", start=failed["start"], timeout=50)
    server = subprocess.Popen(
        [sys.executable, "-m", "invoke", "mcp.serve"],
        cwd=pipelines.folder,
        env={**os.environ, **pipelines.environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    lines = [
        b"\xff\xfe nonsense",
        b"{}",
        b"[1, 2",
        json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}).encode(),
        json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}).encode(),
        json.dumps({"jsonrpc": "2.0", "id": 2, "method": "no/such", "params": {}}).encode(),
        json.dumps({"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": ["x"]}}).encode(),
        b'{"jsonrpc": "2.0", "id": 4, "method": "tools/call", "params": {"name": "status", "arguments": "x"}}',
        json.dumps({"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": {"name": "status"}}).encode(),
    ]
    assert server.stdin and server.stdout
    server.stdin.write(b"\n".join(lines) + b"\n")
    server.stdin.flush()
    answers = {}
    while 5 not in answers:
        answer = json.loads(server.stdout.readline())
        answers[answer.get("id")] = answer
    assert "error" in answers[2] and "error" in answers[3] and "error" in answers[4]
    assert not answers[5]["result"].get("isError")
    _out, err = server.communicate(timeout=30)
    assert server.returncode == 0 and b"Traceback" not in err, err


@ANY_ENGINE
def test_the_inspector_of_the_protocols_makers_finds_the_tools_and_calls_one(pipelines: PipelineProject) -> None:
    folder = os.environ.get("AZUREML_DEBUG_TEST_INSPECTOR", "")
    if not folder:
        missing("AZUREML_DEBUG_TEST_INSPECTOR names no folder with the protocol's inspector")
    program = Path(folder, "node_modules", ".bin", "mcp-inspector")
    path = os.pathsep.join([str(Path(folder, "node_modules", "node", "bin")), os.environ["PATH"]])

    def ask(*arguments: str) -> dict[str, Any]:
        done = subprocess.run(
            [program, "--cli", sys.executable, "-m", "invoke", "mcp.serve", *arguments],
            cwd=pipelines.folder,
            env={**os.environ, **pipelines.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    listed = {tool["name"]: tool for tool in ask("--method", "tools/list")["tools"]}
    assert listed["variables"]["annotations"]["readOnlyHint"] and listed["evaluate"]["annotations"]["destructiveHint"]
    pipelines.single(LOOP)
    pipelines.ok("pipeline.debug")
    told = ask("--method", "tools/call", "--tool-name", "status", "--tool-arg", "run=1")
    assert told["structuredContent"]["run"]["steps"][0]["endpoints"][0]["state"] == "waiting"
    wrong = ask("--method", "tools/call", "--tool-name", "resume", "--tool-arg", "session=s1")
    assert wrong["isError"] and "There is no session" in wrong["content"][0]["text"]
    pipelines.ok("pipeline.cancel")


@ANY_ENGINE
def test_at_a_terminal_it_says_who_starts_it(pipelines: PipelineProject) -> None:
    ours, theirs = os.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "invoke", "mcp.serve"],
        cwd=pipelines.folder,
        env={**os.environ, **pipelines.environ},
        stdin=theirs,
        capture_output=True,
        text=True,
        timeout=60,
    )
    for end in (ours, theirs):
        os.close(end)
    assert done.returncode == 1 and "inv vscode.setup --mcp" in done.stderr.splitlines()[-1]
