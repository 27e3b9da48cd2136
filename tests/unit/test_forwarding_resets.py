"""Peers that reset their connections at any moment: a forwarder goes on, and says nothing about it."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from conftest import Hostile

from workflows.azureml.forwarding import NetworkTransport
from workflows.remote.forwarding import Forward


def reset(connection: socket.socket) -> None:
    """Close as a program does that was killed in the middle: with RST."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.fixture
def complaints(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What threads would print."""
    found: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", found.append)
    yield found
    assert not found, found


@pytest.fixture
def gate(hostile: Hostile) -> Iterator[socket.socket]:
    """Whom the forwarder leads to: answers, is silent, or resets, as chance will have it; after that always answers."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve(connection: socket.socket, number: int) -> None:
        source = hostile.random(number)
        with suppress(OSError), connection:
            kind = source.randrange(4) if number < hostile.count else 0
            if kind == 1:
                reset(connection)
                return
            while data := connection.recv(65536):
                connection.sendall(data)
                if kind == 2:
                    reset(connection)
                    return

    def accept() -> None:
        number = 0
        while not over.is_set():
            with suppress(OSError):
                connection, _peer = listener.accept()
                threading.Thread(target=serve, args=(connection, number), daemon=True).start()
                number += 1

    threading.Thread(target=accept, daemon=True).start()
    yield listener
    over.set()
    listener.close()


def test_resets_at_any_moment_leave_the_forwarder_open_and_silent(
    complaints: list[Any], gate: socket.socket, hostile: Hostile, capfd: pytest.CaptureFixture[str]
) -> None:
    forward = Forward("test", "127.0.0.1", gate.getsockname()[1], 0, NetworkTransport(""), frozenset())
    for index in range(hostile.count):
        source = hostile.random(index)
        client = socket.create_connection(("127.0.0.1", forward.local), 10)
        with suppress(OSError):
            for _ in range(source.randrange(3)):
                client.sendall(source.randbytes(source.choice([1, 100, 200_000])))
            if source.random() < 0.3:
                client.settimeout(0.02)
                client.recv(10)
            if source.random() < 0.2:
                client.shutdown(socket.SHUT_WR)
        reset(client)
    # The gate counts those that reached it; what is left of the count goes to it here.
    deadline = time.monotonic() + 30
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", forward.local), 10) as client:
            client.settimeout(5)
            client.sendall(b"still there?")
            if client.recv(100) == b"still there?":
                break
        assert time.monotonic() < deadline
    while forward.clients:
        assert time.monotonic() < deadline, forward.clients
        time.sleep(0.01)
    forward.close()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "failure", [OSError("gone"), EOFError(), RuntimeError("can't start new thread"), KeyError("x")]
)
def test_whatever_the_connection_to_the_other_side_says_is_not_printed(
    complaints: list[Any], failure: Exception, capfd: pytest.CaptureFixture[str]
) -> None:
    def transport(patience: float) -> Any:
        raise failure

    forward = Forward("test", "127.0.0.1", 1, 0, transport, frozenset())
    with socket.create_connection(("127.0.0.1", forward.local), 10) as client:
        client.settimeout(10)
        assert client.recv(10) == b""
    forward.close()
    assert capfd.readouterr().err == ""
