"""What comes to the gate of a debuggee in the tests, and what is seen of it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import socket
from collections.abc import Callable
from pathlib import Path

from debuggee_harness import LIMIT, Child, leave, reset, stopped

from workflows.debugger.dap import DapClient, DapClosed, DapError

INITIALIZE = b'Content-Length: 119\r\n\r\n{"seq":1,"type":"request","command":"initialize","arguments":{'


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


def gate_seconds(child: Child) -> float:
    """Processor time of the gate's thread."""
    folder = Path(f"/proc/{child.process.pid}/task")
    identity = child.ask("[t.native_id for t in threading._active.values() if t.name == 'azureml-debuggee-gate'][0]")
    fields = (folder / str(identity) / "stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free(port: int) -> bool:
    with socket.socket() as end:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return end.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


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


# A gate that asks for a token ------------------------------------------------------------------------

TOKEN = "t0ken-of-this-run"
ASKS = {"AZUREML_DEBUGGEE_TOKEN": hashlib.sha256(TOKEN.encode()).hexdigest()}


def forwarded(port: int, first: bytes) -> DapClient:
    """A debugger behind somebody who sends something first, as the forwarder on a developer's machine does."""
    connection = socket.create_connection(("127.0.0.1", port), LIMIT)
    connection.sendall(first)
    assert connection.recv(3) == b"OK\n"
    return DapClient(connection)


# Peers that keep others waiting ------------------------------------------------------------------------


def silent(child: Child) -> socket.socket:
    """A peer that begins as a debugger does, and then says nothing."""
    body = b'{"seq":1,"type":"request","command":"initialize","arguments":{"adapterID":"debugpy"}}'
    peer = child.connect()
    peer.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body)
    return peer
