"""Two sessions that want the same port at the same moment each get one of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from workflows.console import Console
from workflows.engines import ports
from workflows.flows.deployment import Deployment
from workflows.settings import resolve

#: Binds a port, and listens on it (or lets it go) somewhat later.
BINDING = """\
import socket, sys, time
with socket.socket() as held:
    held.bind(("127.0.0.1", int(sys.argv[1])))
    print("bound", flush=True)
    time.sleep(0.4)
    if sys.argv[2] == "listen":
        held.listen()
        sys.stdin.read()
"""


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return ports.find_free_port(frozenset())


@pytest.fixture(params=["listen", "let go"])
def held(port: int, request: pytest.FixtureRequest) -> Iterator[str]:
    """A session of this program that has just bound the port."""
    child = subprocess.Popen(
        [sys.executable, "-c", BINDING, str(port), request.param],
        env={**os.environ, "AZUREML_DEBUGGEE_RUN": "x"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with child:
        assert child.stdout is not None and child.stdout.readline() == b"bound\n"
        yield str(request.param)


def test_a_port_that_is_bound_and_not_yet_listened_on(port: int, held: str) -> None:
    found, word = ports.choose_port("debug_port", port, frozenset(), lambda _port: None)
    if held == "listen":
        assert found > port and "belongs to another session" in word
    else:
        assert (found, word) == (port, "")


def test_a_service_is_promised_its_ports_before_it_listens(port: int, tmp_path: Path) -> None:
    wanted = {"AML_ENGINE": "process", "AML_SCORING_PORT": "0", "AML_DEBUG_PORT": str(port)}
    settings = resolve(tmp_path, environ=wanted)
    chosen = Deployment(settings, Console())._specification().chosen_ports(frozenset(), [])
    assert chosen["debug_port"] == port
    found, word = ports.choose_port("debug_port", port, frozenset(), lambda _port: None)
    assert found not in chosen.values() and "belongs to another session" in word
    with socket.socket() as free:
        free.bind(("127.0.0.1", port))
