"""A tunnel keeps no small message back: neither for itself nor for a peer that waits to be confirmed."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from workflows.azureml.forwarding import NetworkTransport
from workflows.remote import forwarding
from workflows.remote.forwarding import Forward

LIMIT = 60.0


@contextlib.contextmanager
def tunnel(transport: Any) -> Any:
    """A connection through a tunnel to a socket of ours."""
    with socket.create_server(("127.0.0.1", 0)) as there:
        there.settimeout(LIMIT)
        forward = Forward("test", "127.0.0.1", there.getsockname()[1], 0, transport)
        try:
            with socket.create_connection(("127.0.0.1", forward.local), LIMIT) as near:
                far, _address = there.accept()
                far.settimeout(LIMIT)
                with far:
                    yield near, far
        finally:
            forward.close()


class Wired(NetworkTransport):
    """A way to the other side that has a connection of its own, as an SSH transport has."""

    def __init__(self, sock: Any) -> None:
        super().__init__("")
        self.sock = sock


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="a matter of Linux")
@pytest.mark.parametrize("through_gateway", [False, True])
def test_what_comes_through_an_ssh_connection_is_confirmed_on_its_socket(
    through_gateway: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    confirmed: list[socket.socket] = []
    done = threading.Event()
    confirm = forwarding._acknowledge

    def acknowledge(end: socket.socket) -> None:
        confirm(end)
        confirmed.append(end)
        done.set()

    monkeypatch.setattr(forwarding, "_acknowledge", acknowledge)
    with socket.socket() as wire:
        # A channel of the gateway's connection, or the socket itself.
        sock = SimpleNamespace(transport=SimpleNamespace(sock=wire)) if through_gateway else wire
        with tunnel(Wired(sock)) as (near, far):
            far.sendall(b"stopped")
            assert near.recv(100) == b"stopped"
            assert done.wait(LIMIT)
            assert confirmed == [wire]
            near.sendall(b"threads")
            assert far.recv(100) == b"threads"
            assert confirmed[1:2] != [wire]


def test_a_way_without_a_socket_of_its_own_needs_no_confirmation() -> None:
    with tunnel(NetworkTransport("")) as (near, far):
        far.sendall(b"stopped")
        assert near.recv(100) == b"stopped"
