"""The gate: its port, and the end of the program."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest
from debuggee_harness import BOTH, CHILD, LIMIT, Child, line_of, stopped, until
from gate_peers import adapters, free

from workflows.debugger.dap import DapClient

# The port -------------------------------------------------------------------------------------------


def test_a_port_that_becomes_free_within_a_moment_is_waited_for(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as owner:
        port = owner.getsockname()[1]
        held = {"AZUREML_DEBUGGEE_PORT": str(port), "AZUREML_DEBUGGEE_WAIT": "1"}
        with Child(tmp_path, variables=held) as child:
            # It holds, but says so only once it can be attached to.
            until(lambda: held_back(child), "the child tries")
            assert child.events("waiting") == []
            owner.close()
            waiting = child.event("waiting")
            assert waiting["time"] >= child.event("listening")["time"]
            with child.attached():
                child.said("Debugger attached = True")


def held_back(child: Child) -> bool:
    """Whether it tries to get the port: the thread of the gate is there."""
    return len(os.listdir(f"/proc/{child.process.pid}/task")) > 1


def test_a_port_held_for_good_is_announced_and_the_program_goes_on(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as owner:
        port = owner.getsockname()[1]
        script = tmp_path / "impatient.py"
        script.write_text(
            "import debuggee_child\nsession = debuggee_child.load()\n"
            "import azureml_debuggee.gate\nazureml_debuggee.gate.BIND_SECONDS = 0.5\n"
            "debuggee_child.session = session.start()\ndebuggee_child.session.hold()\ndebuggee_child.obey()\n"
        )
        with Child(tmp_path, script=script, variables={"AZUREML_DEBUGGEE_PORT": str(port)}) as child:
            assert child.event("gate-failed")["message"] == f"port {port} is held by another program"
            assert child.ask("1 + 1") == 2
            assert "Debugger attached = False" in child.lines
            assert child.ask("__import__('debugpy').wait_for_client()") is None


@pytest.mark.parametrize(
    "variables",
    [{"AZUREML_DEBUGGEE_PORT": "70000"}, {"AZUREML_DEBUGGEE_HOST": "192.0.2.1"}, {"AZUREML_DEBUGGEE_HOST": "x..y"}],
    ids=["port", "address", "name"],
)
def test_an_address_that_cannot_be_had_is_announced_and_the_program_goes_on(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    with Child(tmp_path, variables=variables) as child:
        assert child.event("gate-failed")["message"].startswith("cannot listen on ")
        assert child.ask("1 + 1") == 2


# The end of the program -----------------------------------------------------------------------------


@BOTH
def test_a_program_ends_with_its_own_exit_code_while_a_debugger_is_attached(python: str, tmp_path: Path) -> None:
    with Child(tmp_path, python) as child:
        with DapClient.connect("127.0.0.1", child.port, LIMIT) as client:
            client.attach(timeout=LIMIT)
            child.tell("sys.exit(7)")
            assert child.ended() == 7
        assert child.errors() == ""


def test_a_signal_ends_a_paused_program(child: Child) -> None:
    with DapClient.connect("127.0.0.1", child.port, LIMIT) as client:
        client.attach(breakpoints={str(CHILD): [line_of("tick")]}, timeout=LIMIT)
        stopped(client)
        child.process.send_signal(signal.SIGTERM)
        assert child.ended() == -signal.SIGTERM


def test_an_exec_frees_the_port_for_the_next_program(child: Child) -> None:
    port = child.port
    with DapClient.connect("127.0.0.1", port, LIMIT) as client:
        client.attach(timeout=LIMIT)
        child.tell("os.execv(sys.executable, [sys.executable, '-c', 'import time; print(\"new\"); time.sleep(60)'])")
        # A buffer that is lost with the old program would hide the line, so it is not waited for.
        until(lambda: free(port), "the port is free")
    assert child.process.poll() is None


@BOTH
def test_no_adapter_outlives_the_program(python: str, tmp_path: Path) -> None:
    with Child(tmp_path, python) as child, DapClient.connect("127.0.0.1", child.port, LIMIT) as client:
        client.attach(timeout=LIMIT)
        assert adapters(child)
        child.process.kill()
        child.ended()
        until(lambda: not adapters(child), "the adapter ends")


@BOTH
def test_an_adapter_that_is_killed_is_replaced_for_the_next_debugger(python: str, tmp_path: Path) -> None:
    with Child(tmp_path, python) as child:
        with DapClient.connect("127.0.0.1", child.port, LIMIT) as client:
            client.attach(breakpoints={str(CHILD): [line_of("tick")]}, timeout=LIMIT)
            stopped(client)
            (adapter,) = adapters(child)
            os.kill(int(adapter), signal.SIGKILL)
            # Paused as it was, it goes on, at full speed.
            assert child.ask("1 + 1") == 2
        child.at_full_speed()
        with child.attached("tick") as client:
            assert stopped(client)[0] == "tick"
        child.at_full_speed()


@BOTH
def test_an_evaluation_that_outlasts_its_session_leaves_the_adapter_to_the_next_debugger(
    python: str, tmp_path: Path
) -> None:
    with Child(tmp_path, python) as child:
        child.ask("evaluated = []")
        seen = set()
        for number in range(3):
            with child.attached("tick") as client:
                _name, _line, thread = stopped(client)
                seen.update(adapters(child))
                frame = client.request("stackTrace", {"threadId": thread, "levels": 1}, LIMIT)["stackFrames"][0]["id"]
                slow = f"[print('at work on', {number}, flush=True), time.sleep(0.3), evaluated.append(1)]"
                client.send("evaluate", {"expression": slow, "frameId": frame, "context": "watch"})
                child.said(f"at work on {number}")
            until(lambda: child.ask("evaluated and evaluated.pop()"), "it has been evaluated")
        with child.attached("tick") as client:
            assert stopped(client)[0] == "tick"
            assert seen == set(adapters(child))
        child.at_full_speed()
        assert child.events("attach-failed") == [] and child.errors() == ""


@BOTH
def test_a_debugger_that_comes_before_it_is_noticed_that_the_adapter_has_ended_gets_in(
    python: str, tmp_path: Path
) -> None:
    with Child(tmp_path, python) as child:
        child.ask("session.gate._sessions._link._on_event = lambda *_: time.sleep(0.1)")
        with child.attached("tick") as client:
            stopped(client)
        (adapter,) = adapters(child)
        os.kill(int(adapter), signal.SIGKILL)
        with child.attached("tick") as client:
            assert stopped(client)[0] == "tick"
        assert child.events("attach-failed") == [] and child.errors() == ""
