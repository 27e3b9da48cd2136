"""Whatever a peer sends to a gate, the next debugger gets in, and a hold stays a hold."""

from __future__ import annotations

import contextlib
import random
import socket
from pathlib import Path

import dap_sessions
import pytest
from conftest import Hostile
from debuggee_harness import BOTH, CHILD, LIMIT, Child, line_of, resume, stopped, until

from workflows.debugger.dap import DapClient


def attach_and_stop(child: Child) -> None:
    """What a person does: attach, stop at a line, go on, leave."""
    with child.attached("tick") as client:
        name, line, thread = stopped(client)
        assert (name, line) == ("tick", line_of("tick"))
        client.set_breakpoints(str(CHILD), [])
        resume(client, thread)


def send(peer: socket.socket, number: int, command: str, arguments: object) -> None:
    peer.sendall(dap_sessions.framed({"seq": number, "type": "request", "command": command, "arguments": arguments}))


def spoil(child: Child, mappings: object) -> None:
    """A debugger whose `attach` ends pydevd's session, as of debugpy 1.8.22."""
    with child.connect() as peer:
        send(peer, 1, "initialize", {"adapterID": "debugpy"})
        send(peer, 2, "attach", {"pathMappings": mappings})
        peer.settimeout(1)
        # Until it is closed on, or has been answered for long enough.
        with contextlib.suppress(OSError):
            while peer.recv(65536):
                pass


@pytest.mark.timeout(3600 * 4)
def test_after_each_of_many_spoilt_sessions_the_next_debugger_gets_in(tmp_path: Path, hostile: Hostile) -> None:
    # Each takes longer than a case of the other tests: a quarter as many.
    count = (hostile.count + 3) // 4
    # A new debuggee now and then: what one session spoils for a later one is in there, and a failure is found again.
    for first in range(0, count, 50):
        with Child(tmp_path / str(first)) as child:
            for number in range(first, min(first + 50, count)):
                dap_sessions.play(hostile.random(number), ("127.0.0.1", child.port), str(CHILD))
                try:
                    attach_and_stop(child)
                except Exception as error:
                    said = f"{child.events('attach-failed')} {child.errors()}"
                    raise AssertionError(f"session {number} of --hostile-seed {hostile.seed}: {said}") from error
            assert child.process.poll() is None


MALFORMED: list[object] = [
    [{"localRoot": None, "remoteRoot": "/x"}],
    [{"localRoot": 3, "remoteRoot": []}],
    {"": 1},
    [[]],
    "x",
]


@BOTH
def test_a_malformed_attach_does_not_keep_the_next_debugger_out(python: str, tmp_path: Path) -> None:
    with Child(tmp_path, python) as child:
        attach_and_stop(child)
        for mappings in MALFORMED:
            spoil(child, mappings)
            attach_and_stop(child)
            # And the program has its full speed back.
            child.at_full_speed()


def test_a_debugger_that_comes_while_another_ones_last_word_ends_the_adapter_gets_in(tmp_path: Path) -> None:
    # Its `disconnect` has a list for arguments, of which the adapter ends, as of debugpy 1.8.22. How it is cut into
    # pieces matters, and every fifth time the next debugger was not let in.
    with Child(tmp_path) as child:
        for number in range(10):
            dap_sessions.play(Hostile(10000, 1301).random(250), ("127.0.0.1", child.port), str(CHILD))
            attach_and_stop(child)
            assert child.events("attach-failed") == [], number


@BOTH
def test_a_thread_that_a_lost_session_was_about_to_trace_is_traced_for_the_next_one(
    python: str, tmp_path: Path
) -> None:
    late = tmp_path / "late.py"
    late.write_text("def call():\n    return 1\n")
    with Child(tmp_path, python, variables={"PYTHONPATH": f"{CHILD.parent}:{tmp_path}"}) as child:
        attach_and_stop(child)
        child.ask(
            "import late, pydevd; vars(__import__('builtins')).update(lost=pydevd.get_global_debugger(), late=late)"
        )
        spoil(child, [{"localRoot": None, "remoteRoot": "/x"}])
        with DapClient.connect("127.0.0.1", child.port, LIMIT) as client:
            client.attach(breakpoints={str(late): [2]}, timeout=LIMIT)
            assert child.ask("lost is not __import__('pydevd').get_global_debugger()")
            # What pydevd does at a thread's first call, where another session begins in the middle of it.
            child.ask("lost.enable_tracing(lost.trace_dispatch)")
            child.tell("late.call()")
            name, _line, thread = stopped(client)
            assert name == "call"
            resume(client, thread)
            assert child.answer() == 1
            client.disconnect(timeout=LIMIT)


@BOTH
def test_a_hold_stays_a_hold_whatever_peers_send(python: str, tmp_path: Path) -> None:
    variables = {"AZUREML_DEBUGGEE_WAIT": "1", "AZUREML_DEBUGGEE_TIMEOUT": "600"}
    with Child(tmp_path, python, variables=variables) as child:
        child.said("Timeout for debug connection: 600")
        spoil(child, [{"localRoot": None, "remoteRoot": "/x"}])
        for number in range(20):
            dap_sessions.play(random.Random(number), ("127.0.0.1", child.port), str(CHILD), without="configurationDone")
        assert not [line for line in child.lines if line.startswith("Debugger attached")]
        with DapClient.connect("127.0.0.1", child.port, LIMIT) as client:
            client.attach(timeout=LIMIT)
            child.said("Debugger attached = True")
            client.disconnect(timeout=LIMIT)


def test_what_a_peer_had_sent_before_it_left_does_not_harm_those_who_are_attached(child: Child) -> None:
    with child.attached("tick") as client:
        _name, _line, thread = stopped(client)
        for number in range(10):
            dap_sessions.play(random.Random(number), ("127.0.0.1", child.port), str(CHILD))
        client.set_breakpoints(str(CHILD), [])
        resume(client, thread)
        assert child.ask("1 + 1") == 2
    until(lambda: child.ask("1 + 1") == 2, "the program goes on")
    attach_and_stop(child)
