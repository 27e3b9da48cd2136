"""The gate: opening bytes, debuggers that come, go and come again, and want of descriptors."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from debuggee_harness import (
    BOTH,
    CHILD,
    LIMIT,
    Child,
    Mortal,
    evaluate,
    leave,
    line_of,
    reset,
    resume,
    stopped,
    until,
)
from gate_peers import INITIALIZE, abuse, attaches, gate_seconds

from workflows.debuggee.azureml_debuggee.admission import speaks_dap
from workflows.debugger.dap import DapClient, DapError

# Opening bytes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "verdict"),
    [
        (b"", None),
        (b"C", None),
        (b"Content-Length: 12\r\n\r\n", None),
        (b'Content-Length: 12\r\n\r\n{"', True),
        (b"content-length:3\r\n\r\n{", True),
        (b"Content-Length: 3\r\nContent-Type: x\r\n\r\n{", True),
        (b"Content-Length: x\r\n\r\n{", None),
        (b"Content-Length: " + b"1" * 4096, False),
        (b"GET / HTTP/1.1\r\n", False),
        (b"SSH-2.0-OpenSSH", False),
        (b"\x16\x03\x01", False),
        (b"\r\nContent-Length: 3", False),
    ],
)
def test_only_a_debug_adapter_protocol_message_opens_the_gate(data: bytes, verdict: bool | None) -> None:
    assert speaks_dap(data) is verdict


def test_a_first_message_in_single_bytes_is_understood(child: Child) -> None:
    message = b'{"seq":1,"type":"request","command":"initialize","arguments":{"adapterID":"x"}}'
    with child.connect() as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"Content-Length: %d\r\n\r\n%s" % (len(message), message):
            peer.sendall(bytes([byte]))
        peer.settimeout(LIMIT)
        seen = b""
        while b'"initialize"' not in seen:
            data = peer.recv(4096)
            assert data
            seen += data


# Attach, detach, attach -----------------------------------------------------------------------------


@BOTH
def test_attach_stop_detach_and_attach_again_at_full_speed_in_between(python: str, tmp_path: Path) -> None:
    with Child(tmp_path, python) as child:
        assert child.ask("'pydevd' in sys.modules") is False, "debugpy is started before anybody has come"
        child.at_full_speed()
        for _ in range(2):
            with child.attached("tick") as client:
                name, line, thread = stopped(client)
                assert (name, line) == ("tick", line_of("tick"))
                assert int(evaluate(client, thread, "doubled")) == 2 * int(evaluate(client, thread, "number"))
                # In a thread that was started long before, too.
                client.set_breakpoints(str(CHILD), [line_of("spinner")], LIMIT)
                resume(client, thread)
                assert stopped(client)[:2] == ("step", line_of("spinner"))
            child.at_full_speed()
        assert child.errors() == ""


@BOTH
def test_a_thousand_abusive_peers_before_and_during_a_session_do_no_harm(python: str, tmp_path: Path) -> None:
    with Child(tmp_path, python) as child:
        threads, descriptors, megabytes = child.ask("[threads(), descriptors(), megabytes()]")
        abuse(child, 1000)
        assert child.ask("'pydevd' in sys.modules") is False
        with child.attached("tick") as client:
            _name, _line, thread = stopped(client)
            attached = len(os.listdir(f"/proc/{child.process.pid}/task"))
            abuse(child, 1000)
            assert evaluate(client, thread, "number + 1")
            # One may be debugpy's, for the evaluation.
            assert len(os.listdir(f"/proc/{child.process.pid}/task")) <= attached + 1
            client.set_breakpoints(str(CHILD), [])
            resume(client, thread)
            assert child.ask("megabytes()") < megabytes + 60
        with child.attached("tick") as client:
            assert stopped(client)[0] == "tick"
        # debugpy's own are six; none may have been left by 2,000 peers.
        until(lambda: child.ask("threads()") <= threads + 10, "threads end")
        until(lambda: child.ask("descriptors()") <= descriptors + 6, "sockets are closed")
        assert child.errors() == ""


def test_a_bounded_number_of_silent_peers_is_kept_and_the_oldest_goes_first(child: Child) -> None:
    # An eighth of what the program may open, from 32 to 128.
    kept = max(32, min(128, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 8))
    peers = [child.connect() for _ in range(kept + 8)]
    for peer in peers:
        peer.settimeout(LIMIT)
    assert [peer.recv(1) for peer in peers[:8]] == [b""] * 8
    for peer in peers[8:]:
        peer.settimeout(0.01)
        with pytest.raises(TimeoutError):
            peer.recv(1)
    for peer in peers:
        peer.close()


@pytest.mark.parametrize(
    ("stage", "end"),
    [
        ("first bytes", leave),
        ("first bytes", reset),
        ("attaching", reset),
        ("configured", reset),
    ],
)
def test_a_debugger_may_be_gone_at_any_moment(child: Child, end: Callable[[socket.socket], None], stage: str) -> None:
    if stage == "first bytes":
        for _ in range(2):
            peer = child.connect()
            peer.sendall(INITIALIZE)
            end(peer)
    else:
        mortal = Mortal(child.port)
        mortal.client.request("initialize", {"adapterID": "x"}, LIMIT)
        if stage != "answered":
            mortal.client.send("attach", {"subProcess": False})
            mortal.client.wait_event("initialized", LIMIT)
        if stage == "configured":
            mortal.client.request("configurationDone", None, LIMIT)
        mortal.die(end)
    until(lambda: attaches(child), "the adapter has seen that the debugger is gone")
    with child.attached("tick") as client:
        assert stopped(client)[0] == "tick"
    child.at_full_speed()
    assert child.errors() == ""


def test_a_program_paused_for_a_debugger_that_dies_goes_on(child: Child) -> None:
    mortal = Mortal(child.port)
    mortal.client.attach(breakpoints={str(CHILD): [line_of("tick")]}, timeout=LIMIT)
    stopped(mortal.client)
    mortal.die(reset)
    assert child.ask("1 + 1") == 2
    child.at_full_speed()
    with child.attached("tick") as client:
        assert stopped(client)[0] == "tick"


def test_a_second_debugger_is_refused_and_the_first_keeps_its_session(child: Child) -> None:
    with child.attached("tick") as first:
        _name, _line, thread = stopped(first)
        second = DapClient.connect("127.0.0.1", child.port, LIMIT)
        with second, pytest.raises(DapError, match="already being debugged"):
            second.attach(timeout=LIMIT)
        assert evaluate(first, thread, "40 + 2") == "42"
        resume(first, thread)
        assert stopped(first)[0] == "tick"
    child.at_full_speed()


def test_attaching_again_at_once_after_a_detach_works_every_time(child: Child) -> None:
    for _ in range(6):
        with child.attached("tick") as client:
            assert stopped(client)[0] == "tick"
    child.at_full_speed()


def test_a_large_answer_comes_through_whole_to_a_debugger_that_reads_late(child: Child) -> None:
    with child.attached("tick") as client:
        _name, _line, thread = stopped(client)
        assert evaluate(client, thread, "'x' * 3_000_000", "clipboard").count("x") == 3_000_000


def test_a_debugger_that_reads_nothing_costs_no_memory_and_may_die_so(child: Child) -> None:
    mortal = Mortal(child.port)
    mortal.client.attach(breakpoints={str(CHILD): [line_of("tick")]}, timeout=LIMIT)
    _name, _line, thread = stopped(mortal.client)
    before = child_megabytes(child)
    frame = mortal.client.request("stackTrace", {"threadId": thread}, LIMIT)["stackFrames"][0]["id"]
    for _ in range(10):
        mortal.client.send("evaluate", {"expression": "'x' * 1_000_000", "frameId": frame, "context": "clipboard"})
    time.sleep(0.05)  # They may be on their way or not: either must do.
    mortal.stop_reading()
    time.sleep(0.5)
    assert child_megabytes(child) < before + 60
    mortal.die(reset)
    assert child.ask("1 + 1") == 2
    # The adapter may have ended of it (see Gate._desert), or may be about to.
    until(lambda: attaches(child), "the next debugger is let in")
    child.at_full_speed()


def child_megabytes(child: Child) -> float:
    return int(Path(f"/proc/{child.process.pid}/statm").read_text().split()[1]) * 4096 / 1e6


# Descriptors ----------------------------------------------------------------------------------------


def test_without_a_free_descriptor_the_gate_takes_no_processor_and_works_again_afterwards(child: Child) -> None:
    port = child.port
    child.ask("import resource, socket; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)); hoard = []")
    child.ask(
        "exec('try:\\n  while True: hoard.append(socket.socket())\\nexcept OSError as error: print(error.errno)')"
    )
    child.said(str(errno.EMFILE))
    peers = [socket.create_connection(("127.0.0.1", port), LIMIT) for _ in range(3)]
    used = child.ask("time.thread_time()"), gate_seconds(child)
    time.sleep(1.0)
    assert gate_seconds(child) - used[1] < 0.5, "the gate spins"
    child.ask("[end.close() for end in hoard]")
    for peer in peers:
        peer.close()
    with child.attached("tick") as client:
        assert stopped(client)[0] == "tick"


def test_an_attach_that_fails_for_want_of_descriptors_does_not_spoil_the_next(child: Child) -> None:
    child.ask("import resource, socket; limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]")
    child.ask("resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors() + 1, limit))")
    with child.connect() as peer:
        peer.sendall(INITIALIZE)
        assert "Too many open files" in child.event("attach-failed")["message"]
        peer.settimeout(LIMIT)
        assert peer.recv(1) == b""
    child.ask("resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))")
    assert child.events("gate-failed") == []
    with child.attached("tick") as client:
        assert stopped(client)[0] == "tick"


def test_a_program_that_closes_every_descriptor_gets_its_gate_back(child: Child) -> None:
    port = child.port
    child.ask("sys.modules['azureml_debuggee.gate'].HEARTBEAT_SECONDS = 0.1")
    child.connect().close()  # It looks up, and from now on that often.
    child.ask("os.closerange(3, 256)")
    # What gets the gate's old numbers is the program's, and stays open.
    child.ask("import tempfile; own = [tempfile.TemporaryFile() for _ in range(12)]")
    until(lambda: len(child.events("listening")) == 2, "the gate listens anew")
    assert child.port == port
    with child.attached("tick") as client:
        assert stopped(client)[0] == "tick"
    assert child.ask("[file.write(b'x') for file in own]") == [1] * 12


@BOTH
def test_a_program_that_closes_every_descriptor_after_a_debugger_was_there_keeps_its_later_files(
    python: str, tmp_path: Path
) -> None:
    with Child(tmp_path, python) as child:
        child.ask("import tempfile, socket; sys.modules['azureml_debuggee.gate'].HEARTBEAT_SECONDS = 0.1")
        with child.attached("tick") as client:
            assert stopped(client)[0] == "tick"
        # Its own get all the numbers: that of pydevd's connection, too.
        opening = "[tempfile.TemporaryFile() for _ in range(4)], [socket.socketpair() for _ in range(8)]"
        child.ask(f"os.closerange(3, 256); files, pairs = {opening}")
        until(lambda: len(child.events("listening")) == 2, "the gate listens anew")
        with child.attached("tick") as client:
            assert stopped(client)[0] == "tick"
        assert child.ask("[file.write(b'x') for file in files]") == [1] * 4
        child.ask("[end.settimeout(5) for pair in pairs for end in pair]")
        child.ask("[(one.sendall(b'one'), two.sendall(b'two')) for one, two in pairs]")
        assert child.ask("[(one.recv(9), two.recv(9)) for one, two in pairs]") == [(b"two", b"one")] * 8


# Bugs of our own ------------------------------------------------------------------------------------


def test_an_error_in_the_gate_is_shown_and_the_gate_stays_open(child: Child) -> None:
    child.ask("gate = session.gate; listener = gate._listener; on_first_bytes = listener._on_first_bytes")
    child.ask("listener._on_first_bytes = lambda *_: 1 / 0")
    with child.connect() as peer:
        peer.sendall(b"x")
        peer.settimeout(LIMIT)
        # With a reset, since what it sent was never read.
        with contextlib.suppress(ConnectionResetError):
            assert peer.recv(1) == b""
    until(lambda: "ZeroDivisionError" in child.errors(), "the traceback")
    child.ask("listener._on_first_bytes = on_first_bytes")
    tidy = "gate._handle_deadlines"
    child.ask(f"tidy = {tidy}; calls = []")
    child.ask("gate._handle_deadlines = lambda now: calls.append(1) or [][0]")
    child.connect().close()
    until(lambda: "IndexError" in child.errors(), "the traceback")
    child.ask("gate._handle_deadlines = tidy")
    child.ask("restore = session.debugger.restore_full_speed; session.debugger.restore_full_speed = lambda: {}['rest']")
    with child.attached("tick") as client:
        assert stopped(client)[0] == "tick"
    until(lambda: "KeyError: 'rest'" in child.errors(), "the traceback")
    child.ask("session.debugger.restore_full_speed = restore")
    with child.attached("tick") as client:
        assert stopped(client)[0] == "tick"
    child.at_full_speed()
