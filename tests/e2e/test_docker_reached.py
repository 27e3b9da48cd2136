"""Which engine is reached, and how, is what the docker command line does; why none is, stands in two lines."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import missing
from host import Host
from hosts import Hosts
from projects import ROOT, Project

from workflows.engines import docker_address, docker_client
from workflows.errors import UserError

ASK = """
from workflows.engines.docker_client import connect, engine_answers
from workflows.errors import UserError
try:
    client = connect()
    print("version", client.api.version()["Version"], bool(client.api.images()))
except UserError as error:
    print(error.problem + "\\n" + error.remedy)
print(engine_answers())
"""


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)


def over_ssh(hosts: Hosts, address: str, **more: str) -> list[str]:
    """What comes of an engine behind ``ssh://``, for a person on the laptop."""
    laptop = hosts.laptop
    environ = {**os.environ, "HOME": str(laptop.home), "SSH_AUTH_SOCK": "", "DOCKER_HOST": address, **more}
    done = subprocess.run(
        [*laptop.prefix, sys.executable, "-c", ASK],
        cwd=ROOT,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def named(hosts: Hosts, loopback_instance: Host) -> Host:
    """A host that the person's ssh settings know under the name ``engine``."""
    hosts.laptop.ssh_config.write_text(
        f"Host engine\n  HostName {loopback_instance.address}\n  Port {loopback_instance.port}\n"
        f"  User {loopback_instance.user}\n  IdentityFile {hosts.laptop.key()}\n"
    )
    return loopback_instance


def test_an_engine_over_ssh_is_reached_as_ssh_reaches_its_host(docker_engine: None, hosts: Hosts, named: Host) -> None:
    said = over_ssh(hosts, "ssh://engine")
    assert said[0].startswith("version ") and said[0].endswith(" True") and said[1:] == ["True"]


def test_a_host_that_lets_nobody_in_is_told_as_ssh_tells_it(hosts: Hosts, named: Host) -> None:
    named.sshd.authorize()
    problem, remedy, answers = over_ssh(hosts, "ssh://engine")
    assert "ssh://engine cannot be reached" in problem and "Permission denied (publickey)" in problem
    assert "ssh -- engine" in remedy and answers == "False"


def test_a_host_whose_key_is_not_known_is_told_as_such(hosts: Hosts, named: Host) -> None:
    hosts.laptop.known_hosts.write_text("")
    assert "Host key verification failed" in over_ssh(hosts, "ssh://engine")[0]


def test_a_host_without_an_engine_is_told_as_such(hosts: Hosts) -> None:
    instance = hosts.instance
    hosts.laptop.ssh_config.write_text(f"Host *\n  IdentityFile {hosts.laptop.key()}\n")
    problem, remedy, answers = over_ssh(hosts, f"ssh://{instance.user}@{instance.address}:{instance.port}")
    assert problem.startswith("No Docker engine answers on the host of ssh://"), problem
    assert "Start the engine there" in remedy and answers == "False"


def test_a_host_without_the_docker_command_is_told_as_such(hosts: Hosts) -> None:
    instance = hosts.instance
    hosts.laptop.ssh_config.write_text(f"Host *\n  IdentityFile {hosts.laptop.key()}\n")
    instance.sshd.configure("SetEnv PATH=/nowhere")
    instance.sshd.restart()
    problem, remedy, _ = over_ssh(hosts, f"ssh://{instance.user}@{instance.address}:{instance.port}")
    assert "has no docker command" in problem and "Install docker there" in remedy


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("ssh://127.0.0.1:1", "Connection refused"),
        ("ssh://no-such-host.invalid", "Could not resolve hostname no-such-host.invalid"),
        ("ssh://-oProxyCommand=touch", "names no host"),
        ("tcp://127.0.0.1:1", "Connection refused"),
        ("nonsense", "Invalid bind address"),
    ],
)
@pytest.mark.parametrize("engine", ["process"], indirect=True)
def test_a_command_whose_engine_cannot_be_reached_ends_with_two_lines(
    project: Project, address: str, said: str, tmp_path: Path
) -> None:
    # Whose size `doctor` knows soon.
    project.environ["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    refused = project.inv("deploy.debug", AML_ENGINE="docker", DOCKER_HOST=address)
    refused.says(address, said)
    assert refused.code == 1 and "Traceback" not in refused.err
    with_choice = project.inv("doctor", AML_ENGINE="auto", DOCKER_HOST=address)
    assert "Traceback" not in with_choice.err


# Contexts


def context(folder: Path, host: str, name: str = "mine") -> None:
    program = shutil.which("docker")
    if program is None:
        missing("the docker command is not installed")
    subprocess.run(
        [str(program), "context", "create", name, "--docker", f"host={host}"],
        env={**os.environ, "DOCKER_CONFIG": str(folder)},
        check=True,
        capture_output=True,
    )


def test_a_context_counts_without_a_config_json(
    docker_engine: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket_path = docker_client.socket_path()
    context(tmp_path, f"unix://{socket_path}")
    (tmp_path / "config.json").unlink(missing_ok=True)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONTEXT", "mine")
    assert docker_address.explicit_engine() == {"context": "mine"}
    with contextlib.closing(docker_client.connect()) as client:
        assert client.api.version()["Version"]
    monkeypatch.setenv("DOCKER_CONTEXT", "default")
    assert docker_address.explicit_engine() == {} and docker_address.host() == docker_address.DEFAULT_HOST


def test_the_variable_goes_before_config_json_and_the_host_before_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context(tmp_path, "tcp://192.0.2.1:2375", "one")
    context(tmp_path, "tcp://192.0.2.2:2375", "two")
    (tmp_path / "config.json").write_text('{"currentContext": "one"}')
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert docker_address.host() == "tcp://192.0.2.1:2375"
    monkeypatch.setenv("DOCKER_CONTEXT", "two")
    assert docker_address.host() == "tcp://192.0.2.2:2375"
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.3:2375")
    assert docker_address.host() == "tcp://192.0.2.3:2375" and docker_address.context_tls() is None


@pytest.mark.parametrize("text", [None, "{", '{"Endpoints": {}}', '{"Endpoints": {"docker": {"Host": ""}}}'])
def test_a_context_that_is_not_there_or_broken_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONTEXT", "mine")
    if text is not None:
        context(tmp_path, "tcp://192.0.2.1:2375")
        (path,) = tmp_path.glob("contexts/meta/*/meta.json")
        path.write_text(text)
    with pytest.raises(UserError, match=r"context mine (does not exist|cannot be read)") as refused:
        docker_client.connect()
    assert "docker context use" in refused.value.remedy
    assert not docker_client.engine_answers()


# Behind a port


@pytest.fixture
def relayed(docker_engine: None) -> Iterator[int]:
    """A port that leads to the engine's socket."""
    path = docker_client.socket_path()
    assert path is not None

    def carry(client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as engine, contextlib.suppress(OSError):
            engine.connect(path)
            ends = {client: engine, engine: client}
            while True:
                for end in select.select(list(ends), [], [])[0]:
                    data = end.recv(65536)
                    if not data:
                        return
                    ends[end].sendall(data)

    def serve(listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=carry, args=(listening.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_an_engine_at_a_port_of_this_machine_is_reached_without_the_proxy(
    relayed: int, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{relayed}")
    monkeypatch.setenv(variable, "http://127.0.0.1:1")
    with contextlib.closing(docker_client.connect()) as client:
        assert client.api.version()["Version"]
    assert docker_client.engine_answers()


def test_an_engine_elsewhere_is_reached_through_the_proxy(relayed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://engine.invalid:2375")
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{relayed}")
    # The engine takes what a proxy is asked as well.
    with contextlib.closing(docker_client.connect()) as client:
        assert client.api.version()["Version"]
    monkeypatch.setenv("NO_PROXY", "engine.invalid")
    with pytest.raises(UserError, match=r"No Docker engine answers at tcp://engine.invalid:2375: "):
        docker_client.connect()


def test_a_proxy_that_leads_nowhere_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://engine.invalid:2375")
    monkeypatch.setenv("HTTP_PROXY", "http://person:a-password@127.0.0.1:1")
    with pytest.raises(UserError, match=r"through the proxy http://.*127\.0\.0\.1:1: ") as refused:
        docker_client.connect()
    assert "a-password" not in str(refused.value) and "NO_PROXY" in refused.value.remedy
