"""Whether there is a Docker engine, and what people are told where there is none that they can use."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from projects import ROOT

from workflows.engines import docker_client
from workflows.errors import UserError


@pytest.fixture
def socket_path(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path_factory.mktemp("s") / "d.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    return path


def test_no_engine_is_installed(socket_path: Path) -> None:
    assert not docker_client.engine_answers()
    with pytest.raises(UserError, match="No Docker engine is installed or started"):
        docker_client.connect()


def test_the_engine_is_not_running(socket_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(socket_path))
    assert not docker_client.engine_answers()
    with pytest.raises(UserError, match="is not running"):
        docker_client.connect()


def test_the_engine_is_not_for_this_user(socket_path: Path) -> None:
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(socket_path))
        listening.listen()
        socket_path.chmod(0o600)
        for folder in (socket_path.parent, *socket_path.parents[1:3]):
            folder.chmod(0o755)
        code = (
            "import os; from workflows import engines; from workflows.engines import docker_client as c, process\n"
            "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            "print(c.engine_answers(), engines.choose('auto')[1])\nc.connect()"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "False you may not use the Docker engine, so processes on this machine are used\n"
    assert "sudo usermod -aG docker $USER" in done.stderr


def test_an_engine_that_hangs_is_no_engine(socket_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(socket_path))
        listening.listen()
        begun = time.monotonic()
        assert not docker_client.engine_answers(timeout=0.3)
        assert time.monotonic() - begun > 0.25


def test_an_engine_of_another_version(socket_path: Path) -> None:
    def serve(listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), connection:
                if connection.recv(4096):
                    body = b'{"ApiVersion": "1.12", "Version": "1.0"}'
                    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
                    connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(socket_path))
        listening.listen()
        thread = threading.Thread(target=serve, args=(listening,), daemon=True)
        thread.start()
        # Without the SDK it is noticed when something is asked.
        with pytest.raises(UserError, match="no common API version"):
            docker_client.connect().version()
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(5)
