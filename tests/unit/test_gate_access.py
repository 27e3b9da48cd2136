"""The gate: who gets in, and that peers who keep others waiting make room."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import missing
from debuggee_harness import BOTH, CHILD, LIMIT, Child, free_port, line_of, stopped
from gate_peers import ASKS, INITIALIZE, TOKEN, abuse, adapters, forwarded, silent

from workflows.debugger.dap import DapClient, DapError


@BOTH
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
        first = free_port(3)
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
    assert told == ["azureml_debuggee: refused a debugger of the user 65534: this process belongs to the user 0"]
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


@BOTH
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
