"""The gate in front of debugpy: whoever knocks, the program runs on and the next debugger gets in."""

from __future__ import annotations

import ast
import contextlib
import errno
import hashlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import missing
from debuggee_harness import (
    CHILD,
    LIMIT,
    Child,
    Mortal,
    evaluate,
    interpreters,
    leave,
    line_of,
    name_of,
    reset,
    resume,
    stopped,
    until,
)

from workflows.debuggee.azureml_debuggee.admission import speaks_dap
from workflows.debugger.dap import DapClient, DapClosed, DapError

EVERY = pytest.mark.parametrize("python", interpreters(), ids=name_of)
BOTH = pytest.mark.parametrize("python", sorted({interpreters()[0], interpreters()[-1]}), ids=name_of)
INITIALIZE = b'Content-Length: 119\r\n\r\n{"seq":1,"type":"request","command":"initialize","arguments":{'


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    with Child(tmp_path) as child:
        yield child


# What a peer may do ---------------------------------------------------------------------------------


def garbage(peer: socket.socket) -> None:
    peer.sendall(b"\x16\x03\x01\x02\x00" + bytes(range(256)) * 20)


def web(peer: socket.socket) -> None:
    peer.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")


def half_a_header(peer: socket.socket) -> None:
    peer.sendall(b"Content-Len")


def an_endless_header(peer: socket.socket) -> None:
    peer.sendall(b"Content-Length: " + b"1" * 8000)


def nothing(peer: socket.socket) -> None:
    pass


ABUSES: list[Callable[[socket.socket], None]] = [
    leave,
    reset,
    garbage,
    web,
    half_a_header,
    an_endless_header,
    nothing,
]


def abuse(child: Child, times: int) -> None:
    """So many peers, all kept as long as they can be."""
    peers = []
    for number in range(times):
        peer = child.connect()
        peers.append(peer)
        with contextlib.suppress(OSError):  # The gate was quicker.
            ABUSES[number % len(ABUSES)](peer)
    for peer in peers:
        peer.close()


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


@EVERY
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


@EVERY
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


def attaches(child: Child) -> bool:
    """Whether a debugger is let in, and not refused or cut off for the sake of the one before."""
    try:
        with child.attached("tick") as client:
            return stopped(client)[0] == "tick"
    except DapClosed:
        return False
    except DapError as error:
        if "already being debugged" not in str(error):
            raise
        return False


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


def gate_seconds(child: Child) -> float:
    """Processor time of the gate's thread."""
    folder = Path(f"/proc/{child.process.pid}/task")
    identity = child.ask("[t.native_id for t in threading._active.values() if t.name == 'azureml-debuggee-gate'][0]")
    fields = (folder / str(identity) / "stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


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
    tidy = "gate._tidy"
    child.ask(f"tidy = {tidy}; calls = []")
    child.ask("gate._tidy = lambda now: calls.append(1) or [][0]")
    child.connect().close()
    until(lambda: "IndexError" in child.errors(), "the traceback")
    child.ask("gate._tidy = tidy")
    child.ask("rest = session.debugger.rest; session.debugger.rest = lambda: {}['rest']")
    with child.attached("tick") as client:
        assert stopped(client)[0] == "tick"
    until(lambda: "KeyError: 'rest'" in child.errors(), "the traceback")
    child.ask("session.debugger.rest = rest")
    with child.attached("tick") as client:
        assert stopped(client)[0] == "tick"
    child.at_full_speed()


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


def free(port: int) -> bool:
    with socket.socket() as end:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return end.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


@BOTH
def test_no_adapter_outlives_the_program(python: str, tmp_path: Path) -> None:
    with Child(tmp_path, python) as child, DapClient.connect("127.0.0.1", child.port, LIMIT) as client:
        client.attach(timeout=LIMIT)
        assert adapters(child)
        child.process.kill()
        child.ended()
        until(lambda: not adapters(child), "the adapter ends")


def adapters(child: Child) -> list[str]:
    """Process ids of the child's debug adapters, told by what they have inherited."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            ours = os.fsencode(child.events_file) in (process / "environ").read_bytes()
            if ours and b"azureml_debuggee/adapter" in (process / "cmdline").read_bytes():
                found.append(process.name)
        except (OSError, ValueError):
            continue
    return found


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


# A gate that asks for a token ------------------------------------------------------------------------

TOKEN = "t0ken-of-this-run"
ASKS = {"AZUREML_DEBUGGEE_TOKEN": hashlib.sha256(TOKEN.encode()).hexdigest()}


def forwarded(port: int, first: bytes) -> DapClient:
    """A debugger behind somebody who sends something first, as the forwarder on a developer's machine does."""
    connection = socket.create_connection(("127.0.0.1", port), LIMIT)
    connection.sendall(first)
    assert connection.recv(3) == b"OK\n"
    return DapClient(connection)


@EVERY
def test_with_the_token_a_debugger_gets_in_and_without_it_nobody(python: str, tmp_path: Path) -> None:
    with Child(tmp_path, python, variables=ASKS) as child:
        wrong = [INITIALIZE, b"AUTH wrong\n" + INITIALIZE, f"AUTH {TOKEN[:-1]}x\n".encode() + INITIALIZE]
        wrong += [f"AUTH {TOKEN}{INITIALIZE.decode()}".encode(), f"auth {TOKEN}\n".encode() + INITIALIZE]
        for first in wrong:
            with socket.create_connection(("127.0.0.1", child.port), LIMIT) as peer:
                peer.sendall(first)
                assert peer.recv(1) == b"", first
        assert child.ask("'pydevd' in sys.modules") is False
        client = forwarded(child.port, f"AUTH {TOKEN}\n".encode())
        client.attach(breakpoints={str(CHILD): [line_of("tick")]}, timeout=LIMIT)
        assert stopped(client)[:2] == ("tick", line_of("tick"))
        client.disconnect()
        # It is told to nobody.
        assert TOKEN not in child.errors() + child.events_file.read_text()


@BOTH
def test_the_token_may_come_in_pieces(python: str, tmp_path: Path) -> None:
    with Child(tmp_path, python, variables=ASKS) as child:
        connection = socket.create_connection(("127.0.0.1", child.port), LIMIT)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in f"AUTH {TOKEN}\n".encode():
            connection.sendall(bytes([byte]))
            time.sleep(0.002)
        assert connection.recv(3) == b"OK\n"
        client = DapClient(connection)
        client.attach(breakpoints={str(CHILD): [line_of("tick")]}, timeout=LIMIT)
        assert stopped(client)[:2] == ("tick", line_of("tick"))
        client.disconnect()


def test_peers_without_the_token_do_no_harm(tmp_path: Path) -> None:
    with Child(tmp_path, variables=ASKS) as child:
        abuse(child, 300)
        assert child.ask("'pydevd' in sys.modules") is False
        client = forwarded(child.port, f"AUTH {TOKEN}\n".encode())
        client.attach(breakpoints={str(CHILD): [line_of("tick")]}, timeout=LIMIT)
        assert stopped(client)[:2] == ("tick", line_of("tick"))
        client.disconnect()


def test_the_next_port_is_taken_where_others_listen_and_it_is_told_which(tmp_path: Path) -> None:
    with contextlib.ExitStack() as held:
        first = free_ports(3)
        for port in (first, first + 1):
            held.enter_context(socket.create_server(("127.0.0.1", port)))
        variables = {"AZUREML_DEBUGGEE_PORT": str(first), "AZUREML_DEBUGGEE_PORTS": "3"}
        with Child(tmp_path, variables=variables) as child:
            listening = child.event("listening")
            assert listening["port"] == first + 2
            client = DapClient(socket.create_connection(("127.0.0.1", first + 2), LIMIT))
            client.attach(breakpoints={str(CHILD): [line_of("tick")]}, timeout=LIMIT)
            assert stopped(client)[:2] == ("tick", line_of("tick"))
            client.disconnect()


def free_ports(count: int) -> int:
    """The first of so many ports in a row on which nobody listens."""
    for first in range(20000, 30000, count):
        with contextlib.ExitStack() as probes, contextlib.suppress(OSError):
            for port in range(first, first + count):
                probes.enter_context(socket.create_server(("127.0.0.1", port)))
            return first
    raise AssertionError("no ports are free")


# Who gets in -----------------------------------------------------------------------------------------

#: Connects as another user and says what a debugger says, then shows what it was answered.
STRANGER = """
import encodings.idna, os, socket, sys
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[2]))
peer = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10)
body = b'{"seq":1,"type":"request","command":"initialize","arguments":{"adapterID":"debugpy"}}'
peer.settimeout(10)
answer = b""
try:
    peer.sendall(b"Content-Length: %d\\r\\n\\r\\n" % len(body) + body)
    if sys.argv[3] == "close":
        peer.close()
    else:
        answer = peer.recv(4096)
except ConnectionError:
    pass
print(answer)
"""


def as_user(uid: int, port: int, how: str = "wait") -> bytes:
    """What a process of another user is answered at a port."""
    if os.getuid() != 0:
        missing("only root can be another user")
    command = [sys.executable, "-c", STRANGER, str(port), str(uid), how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=True)
    answer = ast.literal_eval(done.stdout)
    assert isinstance(answer, bytes)
    return answer


def test_another_user_of_the_machine_gets_no_answer_and_the_log_says_who_it_was(child: Child) -> None:
    assert as_user(0, child.port)
    assert as_user(65534, child.port) == b""
    assert as_user(65534, child.port) == b""
    told = [line for line in child.errors().splitlines() if "65534" in line]
    assert told == ["azureml_debuggee: refused a debugger of the user 65534: this process is of the user 0"]
    with child.attached("tick") as client:
        assert stopped(client)[0] == "tick"


def test_what_another_user_has_sent_is_not_done_when_it_has_closed_already(child: Child) -> None:
    for _ in range(20):
        as_user(65534, child.port, "close")
    assert child.ask("'pydevd' in sys.modules") is False
    assert not child.events("client")


def test_with_a_token_the_owner_on_this_machine_may_be_let_in_without_it(tmp_path: Path) -> None:
    token = hashlib.sha256(b"secret").hexdigest()
    variables = {"AZUREML_DEBUGGEE_TOKEN": token, "AZUREML_DEBUGGEE_LOOPBACK": "1"}
    with Child(tmp_path, variables=variables) as child:
        assert as_user(65534, child.port) == b""
        with child.attached("tick") as client:
            assert stopped(client)[0] == "tick"
        with child.connect() as peer:
            peer.sendall(b"AUTH secret\n")
            peer.settimeout(LIMIT)
            assert peer.recv(3) == b"OK\n"


def listeners(pids: list[str]) -> set[int]:
    """The ports of this machine at which processes listen."""
    inodes = set()
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                inodes.add(os.readlink(entry))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = [row for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes]
    return {int(row[1].rpartition(":")[2], 16) for row in listening}


@EVERY
def test_debugpys_own_ports_are_no_way_around_the_gate(python: str, tmp_path: Path) -> None:
    body = b'{"seq":1,"type":"request","command":"initialize","arguments":{"adapterID":"debugpy"}}'
    message = b"Content-Length: %d\r\n\r\n" % len(body) + body
    post = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + message
    with Child(tmp_path, python) as child, child.attached("tick") as client:
        stopped(client)
        ports = listeners([*adapters(child), str(child.process.pid)]) - {child.port}
        # Where pydevd itself has connected.
        assert len(ports) == 1
        for port in ports:
            assert as_user(65534, port) == b""
        for port in [*ports, child.port]:
            for said in (message, post) if port != child.port else (post,):
                with socket.create_connection(("127.0.0.1", port), LIMIT) as peer:
                    peer.sendall(said)
                    peer.settimeout(2)
                    answer = b""
                    with contextlib.suppress(OSError):
                        while data := peer.recv(4096):
                            answer += data
                # The adapter takes whoever connects for a pydevd, which has to prove itself, and does nothing for it.
                assert b'"success": true' not in answer
        client.request("threads", None, LIMIT)


# Peers that keep others waiting ------------------------------------------------------------------------


def silent(child: Child) -> socket.socket:
    """A peer that begins as a debugger does, and then says nothing."""
    body = b'{"seq":1,"type":"request","command":"initialize","arguments":{"adapterID":"debugpy"}}'
    peer = child.connect()
    peer.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body)
    return peer


def test_a_debugger_gets_in_beside_a_hundred_silent_peers_and_a_crowd(child: Child) -> None:
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(silent(child)) for _ in range(100)]
        # Until those that there is room for have been let in.
        peers[0].settimeout(LIMIT)
        assert peers[0].recv(1)
        over = threading.Event()
        crowd = threading.Thread(target=abuse_until, args=(child, over))
        crowd.start()
        try:
            for _ in range(3):
                with child.attached("tick") as client:
                    assert stopped(client)[0] == "tick"
        finally:
            over.set()
            crowd.join(LIMIT)
    assert child.errors() == ""


def abuse_until(child: Child, over: threading.Event) -> None:
    for _ in range(200):
        if over.is_set():
            return
        # The gate may be full of them.
        with contextlib.suppress(OSError):
            abuse(child, 50)


def test_a_debugger_that_stops_half_way_makes_room_for_the_next(child: Child) -> None:
    with silent(child) as peer:
        body = b'{"seq":2,"type":"request","command":"attach","arguments":{}}'
        peer.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        peer.settimeout(LIMIT)
        received = b""
        while b'"initialized"' not in received and b'"attach"' not in received:
            received += peer.recv(65536)
        with child.attached("tick") as client:
            assert stopped(client)[0] == "tick"


def drip(peers: list[socket.socket], over: threading.Event) -> threading.Thread:
    """Have peers send a large message byte by byte, each well before anybody's patience is over."""

    def run() -> None:
        message = b"Content-Length: 90000\r\n\r\n{" + b" " * 2000
        for at in range(len(message)):
            if over.wait(0.2):
                return
            for peer in peers:
                with contextlib.suppress(OSError):
                    peer.sendall(message[at : at + 1])

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("peers", "second"),
    [(70, None), (1, {"command": "threads"}), (1, {"command": "attach", "arguments": {}})],
    ids=["let in", "released", "attaching"],
)
def test_peers_that_send_without_end_but_never_a_message_make_room(
    peers: int, second: dict[str, object] | None, child: Child
) -> None:
    with contextlib.ExitStack() as stack:
        dripping = [stack.enter_context(silent(child)) for _ in range(peers)]
        if second is not None:
            body = json.dumps({"seq": 2, "type": "request", **second}).encode()
            dripping[0].sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        dripping[0].settimeout(LIMIT)
        assert dripping[0].recv(1)
        over = threading.Event()
        thread = drip(dripping, over)
        try:
            with child.attached("tick") as client:
                assert stopped(client)[0] == "tick"
        finally:
            over.set()
            thread.join(LIMIT)


def test_one_who_asks_without_end_but_never_attaches_makes_room(child: Child) -> None:
    over = threading.Event()
    asks = b'{"seq":2,"type":"request","command":"threads"}'
    with silent(child) as peer:

        def ask() -> None:
            with contextlib.suppress(OSError):
                while not over.wait(0.2):
                    peer.sendall(b"Content-Length: %d\r\n\r\n" % len(asks) + asks)

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            with child.attached("tick") as client:
                assert stopped(client)[0] == "tick"
        finally:
            over.set()
            thread.join(LIMIT)


def test_the_gate_takes_no_processor_beside_peers_that_wait_for_nothing(child: Child) -> None:
    with silent(child) as quiet, silent(child) as half:
        half.sendall(b"Content-Length: 1000\r\n\r\n{")
        quiet.settimeout(LIMIT)
        assert quiet.recv(1)
        # Longer than the grace that one has who keeps others waiting.
        child.ask("time.sleep(2.5)")
        child.ask("used = time.process_time()")
        child.ask("time.sleep(2)")
        assert child.ask("time.process_time() - used") < 1.0


def test_of_two_that_attach_at_once_one_is_attached_and_the_other_is_told(child: Child) -> None:
    with child.attached() as first, DapClient.connect("127.0.0.1", child.port, LIMIT) as second:
        with pytest.raises(DapError, match="already being debugged"):
            second.attach(timeout=LIMIT)
        second.disconnect(timeout=LIMIT)
        assert first.request("threads", None, LIMIT)


@BOTH
def test_where_sockets_cannot_be_handed_over_debugpys_own_adapter_serves(python: str, tmp_path: Path) -> None:
    with Child(tmp_path, python) as child:
        # As on Windows.
        child.ask("setattr(session.debugger, '_start_adapter', lambda: None)")
        for _ in range(2):
            with child.attached("tick") as client:
                assert stopped(client)[0] == "tick"
        with silent(child) as peer:
            body = b'{"seq":2,"type":"request","command":"attach","arguments":{"pathMappings":[{"localRoot":null}]}}'
            peer.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        with child.attached("tick") as client:
            assert stopped(client)[0] == "tick"
