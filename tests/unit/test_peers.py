"""Whose process is at the other end of a connection, and that listeners which lead to a debug port ask."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from multiprocessing.connection import Client
from pathlib import Path

import pytest
from users import OTHER, Dialer, dial, needs_users

from workflows.debuggee import FOLDER
from workflows.debuggee.azureml_debuggee import peers
from workflows.remote.address import Address
from workflows.remote.forwarding import Forward
from workflows.remote.keeper import Keeper

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells whose a peer is")

#: As a user of its own: says of each peer whether it is allowed.
OWNER = """\
import os, socket, sys
sys.path.insert(0, sys.argv[1])
from azureml_debuggee import peers
os.setuid(int(sys.argv[2]))
with socket.create_server(("127.0.0.1", 0)) as listener:
    print(listener.getsockname()[1], flush=True)
    while True:
        with listener.accept()[0] as peer:
            print(peers.uid_of_peer(peer), peers.is_allowed(peer), flush=True)
"""


@pytest.fixture(params=["sock_diag", "/proc/net"])
def source(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(peers, "_diag_answers", None if request.param == "sock_diag" else False)
    return str(request.param)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.settimeout(20)
        yield made


def test_the_source_in_use_is_the_one_that_is_tried_here(source: str, listener: socket.socket) -> None:
    with socket.create_connection(listener.getsockname()), listener.accept()[0] as peer:
        assert peers.uid_of_peer(peer) == os.geteuid()
    assert peers._diag_answers is (source == "sock_diag")


@needs_users
@pytest.mark.parametrize("address", ["127.0.0.1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("then", ["hold", "half-close"])
def test_another_user_is_told_from_this_one(source: str, listener: socket.socket, address: str, then: str) -> None:
    with dial(listener.getsockname()[1], OTHER, address=address, then=then) as other, listener.accept()[0] as peer:
        assert other.said("connected")
        assert peers.uid_of_peer(peer) == OTHER and not peers.is_allowed(peer)


@needs_users
def test_who_has_closed_is_nobody_and_not_root(source: str, listener: socket.socket) -> None:
    dialed = dial(listener.getsockname()[1], OTHER, then="close", first=b"Content-Length: 2\r\n\r\n{}")
    with dialed as other, listener.accept()[0] as peer:
        assert other.said("closed")
        assert peers.uid_of_peer(peer) == peers.NOBODY and not peers.is_allowed(peer)
        # What it has sent is there to be read all the same.
        assert peer.recv(100)


def test_who_listens_on_the_port_of_a_peer_that_is_gone_is_not_taken_for_it(
    source: str, listener: socket.socket
) -> None:
    address = listener.getsockname()
    assert peers._look_up(socket.AF_INET, address, ("127.0.0.1", 1)) is None


def test_a_peer_of_ipv6_is_found(source: str) -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 here")
    with listener, socket.create_connection(listener.getsockname()[:2]), listener.accept()[0] as peer:
        assert peers.uid_of_peer(peer) == os.geteuid() and peers.is_allowed(peer)


def test_without_a_descriptor_left_nobody_is_let_in(
    source: str, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(peers, "_query_sock_diag", refuse)
    monkeypatch.setattr(peers, "_read_tables", refuse)
    with socket.create_connection(listener.getsockname()), listener.accept()[0] as peer:
        assert not peers.is_allowed(peer)


def test_where_the_system_does_not_tell_everybody_is_allowed(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "_diag_answers", False)
    monkeypatch.setattr(peers, "_TABLES", {socket.AF_INET: "/proc/net/none", socket.AF_INET6: "/proc/net/none"})
    with socket.create_connection(listener.getsockname()), listener.accept()[0] as peer:
        assert peers.uid_of_peer(peer) is None and peers.is_allowed(peer)


@needs_users
def test_an_owner_who_is_not_root_lets_in_itself_and_root_only() -> None:
    owner = 1234567
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, FOLDER, str(owner)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        port = int(child.stdout.readline())
        for user, allowed in ((owner, True), (0, True), (OTHER, False), (owner + 1, False)):
            with dial(port, user):
                assert child.stdout.readline().split() == [str(user), str(allowed)]
        child.kill()


def arrived(target: socket.socket) -> bool:
    target.settimeout(0.3)
    try:
        target.accept()[0].close()
    except TimeoutError:
        return False
    return True


class Direct:
    """Connects straight away, in the place of an SSH transport."""

    def open_channel(self, kind: str, address: tuple[str, int], peer: object, timeout: float) -> socket.socket:
        made = Channel(socket.AF_INET, socket.SOCK_STREAM)
        made.connect(address)
        return made


class Channel(socket.socket):
    def shutdown_write(self) -> None:
        self.shutdown(socket.SHUT_WR)


@needs_users
def test_a_tunnel_lets_another_user_in_nowhere_and_goes_on_for_its_owner(
    source: str, listener: socket.socket, tmp_path: Path
) -> None:
    forward = Forward("test", "127.0.0.1", listener.getsockname()[1], 0, lambda patience: Direct())
    try:
        with dial(forward.local, OTHER, first=b"hello") as other:
            assert other.said("end")
        assert not arrived(listener)
        with socket.create_connection(("127.0.0.1", forward.local)) as own:
            listener.settimeout(20)
            with listener.accept()[0] as reached:
                own.sendall(b"hello")
                assert reached.recv(10) == b"hello"
                reached.sendall(b"back")
                assert own.recv(10) == b"back"
        with dial(forward.local, 0, first=b"of root") as root:
            assert isinstance(root, Dialer)
            with listener.accept()[0] as reached:
                assert reached.recv(10) == b"of root"
    finally:
        forward.close()


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[int]:
    """The port at which the keeper of a project's tunnels takes commands; its key is ``key``."""
    made = Keeper(tmp_path, Address("box", "box", 22, "azureuser"), {}, b"key")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=made.serve, args=(listener,))
        thread.start()
        yield port
        made._stopped.set()
        socket.create_connection(("127.0.0.1", port)).close()
        thread.join(20)


@needs_users
def test_the_keeper_of_tunnels_says_nothing_to_another_user(keeper: int) -> None:
    for first in (b"", b"\0\0\0\4spam", b"\xff" * 40):
        with dial(keeper, OTHER, first=first) as stranger:
            assert not stranger.said("data"), stranger.received
    with Client(("127.0.0.1", keeper), authkey=b"key") as own:
        own.send_bytes(b'{"do": "list"}')
        assert own.recv_bytes().startswith(b'{"tunnels": []')


def test_what_is_no_answer_to_the_keepers_question_is_nobodys_error(
    keeper: int, capfd: pytest.CaptureFixture[str]
) -> None:
    for said in (b"\0\0\0\4spam", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f" * 40, b"\0\0\0\x20x"):
        # It may have been closed already.
        with socket.create_connection(("127.0.0.1", keeper)) as peer, contextlib.suppress(OSError):
            peer.sendall(said)
            peer.shutdown(socket.SHUT_WR)
            while peer.recv(4096):
                pass
    with Client(("127.0.0.1", keeper), authkey=b"key") as own:
        own.send_bytes(b'{"do": "list"}')
        assert own.recv_bytes()
    assert capfd.readouterr().err == ""
