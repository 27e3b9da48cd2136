"""A port in a job's container, reached through the relay: a real sshd behind a real websocket."""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from azureml_server import AzureMLServer
from azureml_server.state import Run
from azureml_server.tokens import make_token

from workflows.azureml.access import Access, RenewingAccess
from workflows.azureml.history import RunHistory
from workflows.azureml.relay import container, keys, websocket_stream
from workflows.azureml.relay.container import Container
from workflows.azureml.relay.websocket_stream import RelayRefused
from workflows.remote import keepalive
from workflows.remote.forwarding import Forward


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[AzureMLServer]:
    if os.geteuid():
        pytest.skip("a container's users are made with mount, which takes root")
    with AzureMLServer(secure=True) as made:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(made.certificate))
        yield made


@pytest.fixture
def echo() -> Iterator[int]:
    """A port of the "container" that answers with what it is sent."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := connection.recv(65536):
                connection.sendall(data)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()


def job(server: AzureMLServer, key: str, seconds: float = 15) -> Run:
    """A run whose ssh service is up, or has failed."""
    run = server.state.add_run(f"run{time.monotonic_ns()}", "tests")
    server.services.prepare(run, {"azureml_debug": {"jobServiceType": "SSH", "properties": {"sshPublicKeys": key}}})
    server.state.move(run, "Running")
    deadline = time.monotonic() + seconds
    while server.services.status(run, "azureml_debug") not in ("Running", "Failed"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return run


def history(server: AzureMLServer) -> RunHistory:
    token = f"Bearer {make_token()}"
    access = Access(server.url, server.url, server.state.scope, token, time.time() + 3600)
    return RunHistory(RenewingAccess(access, lambda: access))


def endpoint(server: AzureMLServer, run: Run) -> str | None:
    return history(server).service_instances(run.id, 0)["azureml_debug"].endpoint


def reach(server: AzureMLServer, run: Run, folder: Path, host_key: str = "") -> Container:
    key = keys.load_key(folder)
    return Container(lambda: endpoint(server, run), 0, lambda refused: make_token(), key, lambda: {host_key} - {""})


def say(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.settimeout(20)
        connection.sendall(data)
        found = b""
        while len(found) < len(data) and (part := connection.recv(65536)):
            found += part
        return found


@pytest.mark.parametrize("sshd", ["", "AllowTcpForwarding no"])
def test_a_port_of_the_container_is_reached(server: AzureMLServer, echo: int, tmp_path: Path, sshd: str) -> None:
    server.relay.sshd = sshd
    run = job(server, keys.make_key(tmp_path))
    node = reach(server, run, tmp_path)
    forward = Forward("a step", "127.0.0.1", echo, 0, node)
    try:
        assert say(forward.local, b"hello") == b"hello"
        data = os.urandom(3 << 20)
        assert say(forward.local, data) == data
        # One connection carries several.
        assert [say(forward.local, bytes([65 + i])) for i in range(3)] == [b"A", b"B", b"C"]
        assert sum("ws-tcp" in one.path for one in server.requests) == 0
    finally:
        forward.close()
        node.close()


def test_a_connection_that_is_lost_comes_back_on_the_same_port(
    server: AzureMLServer, echo: int, tmp_path: Path
) -> None:
    run = job(server, keys.make_key(tmp_path))
    node = reach(server, run, tmp_path)
    forward = Forward("a step", "127.0.0.1", echo, 0, node)
    try:
        with socket.create_connection(("127.0.0.1", forward.local), 10) as connection:
            connection.settimeout(20)
            connection.sendall(b"x")
            assert connection.recv(1) == b"x"
            server.services.drop()
            # Whoever was connected sees an end, not silence.
            assert connection.recv(1) == b""
        assert say(forward.local, b"again") == b"again"
    finally:
        forward.close()
        node.close()


def test_a_container_with_another_host_key_is_not_let_in(server: AzureMLServer, tmp_path: Path) -> None:
    run = job(server, keys.make_key(tmp_path))
    shown = container.fingerprint(base64.b64decode(server.services.host_key(run, "azureml_debug").split()[1]))
    node = reach(server, run, tmp_path, shown)
    assert node(10) is node and not node.trouble
    node.close()
    other = reach(server, run, tmp_path, shown[:-4] + "AAAA")
    assert other(0.5) is None
    assert "host key" in other.trouble
    other.close()


def test_a_connection_ends_once_the_container_announces_another_host_key(server: AzureMLServer, tmp_path: Path) -> None:
    run = job(server, keys.make_key(tmp_path))
    announced: set[str] = set()
    key = keys.load_key(tmp_path)
    node = Container(lambda: endpoint(server, run), 0, lambda refused: make_token(), key, lambda: announced)
    assert node(20) is node
    announced.add("SHA256:" + "A" * 43)
    assert node(0.3) is None and "host key" in node.trouble
    node.close()


def test_a_token_that_the_relay_refuses_is_renewed(server: AzureMLServer, tmp_path: Path) -> None:
    run = job(server, keys.make_key(tmp_path))
    asked: list[str] = []

    def token(refused: str) -> str:
        asked.append(refused)
        return make_token(3600 if refused else 60)

    # By the relay's own word it ended, whatever it says of itself.
    server.relay.ended = time.time() + 600
    node = Container(lambda: endpoint(server, run), 0, token, keys.load_key(tmp_path))
    assert node(20) is node
    assert asked[0] == "" and asked[1].count(".") == 2
    node.close()


def test_a_websocket_that_closes_at_once_is_told_and_tried_again(server: AzureMLServer, tmp_path: Path) -> None:
    run = job(server, keys.make_key(tmp_path))
    server.relay.closes = True
    node = reach(server, run, tmp_path)
    assert node(1) is None
    assert node.trouble == "the relay has closed the connection at once"
    server.relay.closes = False
    assert node(30) is node
    node.close()


def test_a_link_that_falls_silent_is_given_up(
    server: AzureMLServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keepalive, "ASK_SECONDS", 0.3)
    monkeypatch.setattr(keepalive, "SILENT_SECONDS", 1.5)
    run = job(server, keys.make_key(tmp_path))
    node = reach(server, run, tmp_path)
    assert node(20) is node
    with server.services.silent():
        deadline = time.monotonic() + 20
        while node._transport.is_active():
            assert time.monotonic() < deadline, "nobody notices"
            time.sleep(0.1)
    assert node(30) is node
    node.close()


def test_somebody_elses_key_opens_nothing(server: AzureMLServer, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    run = job(server, keys.make_key(tmp_path / "other"))
    keys.make_key(tmp_path)
    node = reach(server, run, tmp_path)
    assert node(0.5) is None
    assert "SSH through the relay failed" in node.trouble


def test_a_service_that_does_not_come_up_says_why(server: AzureMLServer, tmp_path: Path) -> None:
    server.relay.missing = "openssh-server is not in the image"
    run = job(server, keys.make_key(tmp_path))
    found = history(server).service_instances(run.id, 0)["azureml_debug"]
    assert (found.status, found.error, found.endpoint) == ("Failed", "openssh-server is not in the image", None)
    node = reach(server, run, tmp_path)
    assert node(0.3) is None and node.trouble == "the job's ssh service does not run yet"


@pytest.mark.parametrize("status", [401, 403, 404, 500, 503])
def test_what_the_relay_answers_is_told(server: AzureMLServer, tmp_path: Path, status: int) -> None:
    run = job(server, keys.make_key(tmp_path))
    server.relay.answer = status
    node = reach(server, run, tmp_path)
    assert node(0.3) is None
    assert node.trouble == f"127.0.0.1 answers {status}"
    server.relay.answer = 0
    assert node(20) is node and node.trouble == ""
    node.close()


def test_a_relay_that_never_answers_is_given_up(
    server: AzureMLServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = job(server, keys.make_key(tmp_path))
    server.relay.silent = True
    address = container.address_of(str(endpoint(server, run)), 0)
    with pytest.raises(RelayRefused, match="has not answered for 1 s"):
        websocket_stream.connect(address, make_token(), 1)


def test_a_relay_that_closes_at_once_is_told(server: AzureMLServer, tmp_path: Path) -> None:
    run = job(server, keys.make_key(tmp_path))
    server.faults.drop("ws-tcp")
    with pytest.raises(RelayRefused, match=r"127\.0\.0\.1 cannot be reached"):
        websocket_stream.connect(container.address_of(str(endpoint(server, run)), 0), make_token(), 5)


def test_a_relay_of_an_unknown_authority_is_not_trusted(
    server: AzureMLServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = job(server, keys.make_key(tmp_path))
    address = container.address_of(str(endpoint(server, run)), 0)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(RelayRefused, match="certificate"):
        websocket_stream.connect(address, make_token(), 5)


def test_the_private_key_is_its_owners_alone_and_is_forgotten(tmp_path: Path) -> None:
    public = keys.make_key(tmp_path)
    (path,) = tmp_path.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert public.startswith("ssh-ed25519 ") and keys.load_key(tmp_path).get_base64() == public.split()[1]
    # One of another run is never taken for it.
    with pytest.raises(FileExistsError):
        keys.make_key(tmp_path)
    keys.delete_key(tmp_path)
    keys.delete_key(tmp_path)
    assert keys.load_key(tmp_path) is None


@pytest.mark.parametrize(
    ("told", "address"),
    [
        ("wss://ssh-abc-<nodeIndex>.westeurope.nodes.azureml.ms", "wss://ssh-abc-2.westeurope.nodes.azureml.ms"),
        ("https://ssh-abc.nodes.azureml.ms/", "wss://ssh-abc.nodes.azureml.ms"),
        ("http://127.0.0.1:1/node/x-<nodeIndex>", "ws://127.0.0.1:1/node/x-2"),
    ],
)
def test_the_address_of_a_node(told: str, address: str) -> None:
    assert container.address_of(told, 2) == f"{address}/nbip/v1.0/ws-tcp"
