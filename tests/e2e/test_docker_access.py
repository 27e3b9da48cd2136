"""Who gets into the debug port of a container, and what leads there: other users, other containers, the forwarder."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from projects import PLAIN, PLAIN_LINE, Project, listeners, post, until
from users import OTHER, dial

from workflows.engines import docker_network, forwarders, ports
from workflows.engines.docker_client import connect
from workflows.engines.docker_containers import LABEL_PORTS, gate_ports
from workflows.errors import UserError

if TYPE_CHECKING:
    import docker

pytestmark = pytest.mark.parametrize("engine", ["docker"], indirect=True)

#: What begins every debugger's session.
_BODY = b'{"seq": 1, "type": "request", "command": "initialize", "arguments": {"adapterID": "x"}}'
INITIALIZE = b"Content-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)

#: In a container: tries each ADDRESS:PORT, and says what came back.
STRANGER = """\
import socket, sys
for place in sys.argv[2:]:
    host, _, port = place.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), 3) as s:
            s.sendall(bytes.fromhex(sys.argv[1]))
            s.settimeout(3)
            print(place, s.recv(100))
    except OSError as error:
        print(place, b"", type(error).__name__)
"""

#: In a container: attaches as an editor there does, and says how that was answered.
INSIDE = """\
import json, os, socket, sys
os.setuid(int(sys.argv[1]))
def send(seq, command, arguments):
    body = json.dumps({"seq": seq, "type": "request", "command": command, "arguments": arguments}).encode()
    connection.sendall(b"Content-Length: %d\\r\\n\\r\\n" % len(body) + body)
def messages():
    stream = connection.makefile("rb")
    while True:
        line = stream.readline()
        if not line:
            return
        stream.readline()
        yield json.loads(stream.read(int(line.split(b":")[1])))
connection = socket.create_connection(("127.0.0.1", 5678), 5)
connection.settimeout(20)
try:
    send(1, "initialize", {"adapterID": "debugpy"})
    send(2, "attach", {"justMyCode": True})
    for message in messages():
        if message.get("event") == "initialized":
            send(3, "configurationDone", {})
        if message.get("command") == "attach":
            send(4, "disconnect", {"terminateDebuggee": False})
            print("attached", message["success"], flush=True)
        if message.get("command") == "disconnect":
            break
except ConnectionError:
    pass  # what was not read by the other end makes its end a reset
print("end")
"""


@pytest.fixture
def client() -> Iterator[docker.DockerClient]:
    with contextlib.closing(connect()) as made:
        yield made


@dataclass
class Running:
    """A project's service, its container and its ports."""

    project: Project
    port: int
    container: dict[str, Any]
    scoring_url: str

    @property
    def id(self) -> str:
        return str(self.container["Id"])

    @property
    def gate(self) -> int:
        """Where its gate is published."""
        return gate_ports(self.container["Config"]["Labels"])[self.port]

    @property
    def network(self) -> dict[str, Any]:
        (found,) = self.container["NetworkSettings"]["Networks"].values()
        return dict(found)

    def forwarder(self) -> int | None:
        """The process that leads from the debug port."""
        found = [
            entry.pid
            for entry in psutil.net_connections("tcp")
            if entry.status == psutil.CONN_LISTEN and entry.laddr[1:] == (self.port,)
        ]  # fmt: skip
        return found[0] if found else None

    def attach_works(self) -> bool:
        """Whether a debugger stops in a request, as an editor does."""
        from services import Posting, attach, stop_of

        debug = {
            "debug": {"port": self.port},
            "path_mappings": [{"localRoot": str(self.project.score.parent), "remoteRoot": "/var/azureml-app"}],
        }
        with attach(self.project, debug, PLAIN_LINE) as debugger:
            posting = Posting(self.scoring_url)
            frame = stop_of(debugger)
            debugger.request("continue", {"threadId": frame["thread"]}, 20)
            debugger.disconnect()
            return bool(frame["line"] == PLAIN_LINE and posting.finish() == {"answer": 60})


@pytest.fixture
def running(project: Project, client: docker.DockerClient) -> Running:
    debug = project.debug()
    return Running(
        project, debug["debug"]["port"], client.api.inspect_container(debug["container"]), debug["scoring_url"]
    )


def in_container(network: str, *places: str) -> dict[str, bytes]:
    """What a container on a network is answered at each place."""
    command = ["docker", "run", "--rm", "--network", network, "azureml-debug/base:latest", "python3", "-c", STRANGER]
    done = subprocess.run([*command, INITIALIZE.hex(), *places], capture_output=True, text=True, check=True, timeout=60)
    return {line.split(" ", 1)[0]: line.split(" ", 1)[1].encode() for line in done.stdout.splitlines()}


def bytes_for(address: str, port: int, patience: float = 1) -> bytes:
    """What this user is answered without a token."""
    with socket.create_connection((address, port), 5) as connection:
        connection.sendall(INITIALIZE)
        connection.settimeout(patience)
        try:
            return connection.recv(100)
        except (TimeoutError, ConnectionError):
            return b""


def test_only_the_owner_debugs_by_the_port_or_inside_the_container(running: Running) -> None:
    address = running.network["IPAddress"]
    if os.geteuid() == 0:
        another_user_gets_nothing_by_any_way(running)
    # Nor does root without the token, who may have it from the session's file.
    assert bytes_for("127.0.0.1", running.gate) == b"" == bytes_for(address, 5678)
    no_other_container_reaches_the_gate(running)
    # An editor in the container attaches without the token, and another user there does not.
    assert attach_inside(running, 0) == ["attached True", "end"]
    assert attach_inside(running, OTHER) == ["end"]
    # The way that is tried is one: the same question is answered where it is let in.
    assert bytes_for("127.0.0.1", running.port, 20).startswith(b"Content-Length")
    assert running.attach_works()


def another_user_gets_nothing_by_any_way(running: Running) -> None:
    ways = [("127.0.0.1", running.port), ("127.0.0.1", running.gate), (running.network["IPAddress"], 5678)]
    for host, port in ways:
        with dial(port, OTHER, address=host, first=INITIALIZE, then="half-close") as stranger:
            assert not stranger.said("data"), (host, port, stranger.received)


def no_other_container_reaches_the_gate(running: Running) -> None:
    address, gateway = running.network["IPAddress"], running.network["Gateway"]
    places = [f"{address}:5678", f"{address}:5001", f"{gateway}:{running.gate}", f"{gateway}:{running.port}"]
    for network in ("bridge", docker_network.NAME):
        answers = in_container(network, *places)
        assert set(answers) == set(places) and all(answer.startswith(b"b'' ") for answer in answers.values()), answers


def attach_inside(running: Running, user: int) -> list[str]:
    """What comes of a debugger on the container's own loopback address, as an editor in the container has it."""
    command = ["docker", "exec", "--user", "0", running.id, "python3", "-c", INSIDE, str(user)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.splitlines()


def test_only_what_is_needed_is_open_written_and_told_and_nothing_is_left_of_it(
    running: Running, client: docker.DockerClient, tmp_path: Path
) -> None:
    assert set(listeners(running.port)) == set(listeners(running.gate)) == {"127.0.0.1"}
    assert LABEL_PORTS in running.container["Config"]["Labels"]
    writable = {mount["Destination"] for mount in running.container["Mounts"] if mount["RW"]}
    assert writable == {"/var/azureml-debug"}
    the_token_is_in_the_session_only_which_is_the_owners(running)
    # Ports are listed as people use them.
    session = running.project.state / "session.json"
    session.rename(tmp_path / "kept.json")
    rows = running.project.ok("container.list", "--json").json["services"]
    shutil.move(tmp_path / "kept.json", session)
    (row,) = [row for row in rows if row["project"] == str(running.project.folder)]
    assert f"{running.port}->5678" in row["ports"] and str(running.gate) not in row["ports"]
    nothing_is_left_once_it_is_stopped(running, client)


def the_token_is_in_the_session_only_which_is_the_owners(running: Running) -> None:
    session = running.project.state / "session.json"
    token = json.loads(session.read_text())["token"]
    assert len(token) > 30 and session.stat().st_mode & 0o077 == 0
    assert token not in json.dumps(running.container)
    pid = running.forwarder()
    assert pid is not None
    process = psutil.Process(pid)
    assert token not in " ".join(process.cmdline()) and token not in json.dumps(process.environ())
    shown = running.project.ok("container.list", "--json").out + running.project.ok("deploy.attach-config").out
    assert token not in shown + (running.project.folder / ".vscode" / "launch.json").read_text()


def nothing_is_left_once_it_is_stopped(running: Running, client: docker.DockerClient) -> None:
    pid = running.forwarder()
    assert pid is not None
    running.project.ok("container.stop")
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert not listeners(running.port) and not listeners(running.gate)
    left = {path.name for path in running.project.state.iterdir()}
    assert left.isdisjoint({"session.json", "forwarder.log", "announce"})
    assert not client.api.containers(all=True, filters={"id": running.id})


def kill_forwarder(running: Running) -> int:
    """Kill it, and wait until its port is free; its id."""
    pid = running.forwarder()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: not listeners(running.port), "the end of the forwarder")
    return pid


def test_a_forwarder_that_was_killed_is_there_again_after_the_next_command(running: Running) -> None:
    for command in ("deploy.attach-config", "container.list", "deploy.reload"):
        pid = kill_forwarder(running)
        running.project.ok(command)
        assert running.forwarder() not in (None, pid)
        assert running.attach_works()
    # One whose port another program took meanwhile is told of.
    kill_forwarder(running)
    with socket.create_server(("127.0.0.1", running.port)):
        refused = running.project.inv("deploy.attach-config")
        refused.says(f"Port {running.port} of the service", f"is held by python (process {os.getpid()})")
        # And whoever wants that port for another service is not told that it is one of ours.
        other = running.project.inv("deploy.debug", AML_DEBUG_PORT=str(running.port), AML_SCORING_PORT="0")
        other.says(f"Port {running.port} is held by python (process {os.getpid()})")
    running.project.ok("deploy.attach-config")
    assert running.attach_works()


def test_the_forwarder_outlives_a_restart_of_its_container_but_not_its_end(
    running: Running, client: docker.DockerClient
) -> None:
    pid, container = running.forwarder(), client.containers.get(running.id)
    container.restart(timeout=1)
    container.exec_run(["/bin/sh", "-c", "exec runsvdir /var/runit"], detach=True)
    until(lambda: bytes_for("127.0.0.1", running.port, 20).startswith(b"Content-Length"), "the gate")
    assert running.forwarder() == pid is not None
    # A container that ends for good takes it along, and its port is the project's own.
    client.api.kill(running.id)
    until(lambda: client.api.inspect_container(running.id)["State"]["Status"] == "exited", "its end")
    assert running.forwarder() is not None
    again = running.project.ok("deploy.debug", AML_DEBUG_PORT=str(running.port))
    assert "belongs to another session" not in again.out
    session = json.loads((running.project.state / "session.json").read_text())
    assert session["debug_port"] == running.port
    # So does one that is removed by hand.
    client.api.remove_container(session["name"], force=True)
    until(lambda: not listeners(running.port), "the end of the forwarder")
    # The same port is used again, with the session's file there or without it.
    again_there = running.project.debug(AML_DEBUG_PORT=str(running.port))
    assert again_there["debug"]["port"] == running.port
    (running.project.state / "session.json").unlink()
    again_there = running.project.debug(AML_DEBUG_PORT=str(running.port))
    assert again_there["debug"]["port"] == running.port and post(again_there["scoring_url"]) == {"answer": 60}


def test_a_score_script_that_writes_beside_itself_is_told_where_it_can(project: Project) -> None:
    project.write_score(PLAIN.replace("model = 10", "model = 10\n    open('cache.txt', 'w').close()"))
    result = project.inv("deploy.debug")
    result.says("score.py", "Read-only file system", "tempfile")
    assert not (project.score.parent / "cache.txt").exists()


# The network


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch, client: docker.DockerClient, tmp_path: Path) -> Iterator[str]:
    """A name of its own for the network, which is taken away afterwards."""
    name = f"azureml-debug-test-{time.time_ns()}"
    monkeypatch.setattr(docker_network, "NAME", name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield name
    for network in client.api.networks(names=[name]):
        client.api.remove_network(network["Id"])


def test_commands_that_make_the_network_at_the_same_moment_agree(
    named: str, engine: str, client: docker.DockerClient
) -> None:
    found: list[str] = []

    def make() -> None:
        with contextlib.closing(connect()) as own:
            found.append(docker_network.ensure_network(own))

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6 and len(set(found)) == 1
    made = client.api.inspect_network(found[0])
    assert made["Options"]["com.docker.network.bridge.enable_icc"] == "false"


def test_prune_takes_the_network_away_only_where_no_container_needs_it(
    named: str, engine: str, client: docker.DockerClient
) -> None:
    network = docker_network.ensure_network(client)
    host = client.api.create_host_config(network_mode=network)
    made = client.api.create_container("azureml-debug/base:latest", ["true"], host_config=host)["Id"]
    try:
        # It is enough that it could be started.
        assert docker_network.unused_networks(client) == []
    finally:
        client.api.remove_container(made)
    ((name, size, remove),) = docker_network.unused_networks(client)
    assert (name, size) == (f"network {named}", 0)
    remove()
    remove()
    assert not client.api.networks(names=[named])
    assert docker_network.ensure_network(client) != network


def test_a_network_of_that_name_that_joins_containers_is_not_used(
    named: str, engine: str, client: docker.DockerClient
) -> None:
    client.api.create_network(named, driver="bridge", labels={"azureml-debug.kind": "network"})
    with pytest.raises(UserError, match="was not created by this program") as refused:
        docker_network.ensure_network(client)
    assert refused.value.remedy.endswith(f"docker network rm {named}")
    assert docker_network.unused_networks(client) == []


@pytest.mark.parametrize(
    "said",
    [
        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network",
        "all predefined address pools have been fully subnetted",
    ],
)
def test_address_pools_that_are_used_up_are_said(
    named: str, engine: str, client: docker.DockerClient, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from docker.errors import APIError

    def refuse(*_arguments: Any, **_options: Any) -> None:
        raise APIError("500 Server Error", explanation=said)

    monkeypatch.setattr(client.api, "create_network", refuse)
    with pytest.raises(UserError, match="no address range left") as refused:
        docker_network.ensure_network(client)
    assert "docker network prune" in refused.value.remedy


def test_a_token_is_another_one_each_time(engine: str) -> None:
    assert len({forwarders.new_token() for _ in range(100)}) == 100
    digest = forwarders.gate_variables("secret")["AZUREML_DEBUGGEE_TOKEN"]
    assert "secret" not in digest and len(digest) == 64


def test_ports_that_nobody_asked_for_are_free_and_all_different(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = [*ports.reserve_free(5), *ports.reserve_free(5)]
    assert len(set(found)) == 10 and all(map(ports.is_free, found))
