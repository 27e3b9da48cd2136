"""The hosts that the tests of `--remote` use are what they say they are."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import missing
from host import Host
from host_tools import REMOTE_PATH, listeners
from hosts import Hosts
from projects import until

ECHO = """\
import socketserver, sys

class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data)

socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer((sys.argv[1], 7000), Echo).serve_forever()
"""
KEPT_UP = """\
import sys, time
from pathlib import Path
from hosts import Hosts

made = Hosts(Path(sys.argv[1]))
made.instance.popen(["sleep", "1000"])
made.loopback.run(["sh", "-c", "setsid -f sleep 1000 >/dev/null 2>&1"])
running = [host.pid for host in (made.instance, made.node, made.loopback)]
running += [process.pid for host in (made.instance, made.loopback) for process in host.processes()]
print(made.number, *running, flush=True)
sys.stdin.read()
made.close()
"""


def serve(host: Host) -> None:
    host.popen(["python3", "-c", ECHO, host.address])
    until(lambda: (host.address, 7000) in listeners(host), "a server")


def round_trip(connection: socket.socket, data: bytes = b"x") -> float:
    """Seconds until all of it is back."""
    started = time.monotonic()
    connection.sendall(data)
    got = b""
    while len(got) < len(data):
        more = connection.recv(65536)
        assert more
        got += more
    assert got == data
    return time.monotonic() - started


def test_the_instance_is_another_machine(hosts: Hosts) -> None:
    ask = "whoami; hostname; pwd; command -v python3; echo $PATH; ls -A /tmp /root; ls /proc | grep -c ^[0-9]"
    said = hosts.laptop.ssh(hosts.instance, ask).stdout.splitlines()
    assert said[:5] == ["azureuser", "instance", "/home/azureuser", "/usr/bin/python3", REMOTE_PATH]
    assert said[5:-1] == ["/root:", "", "/tmp:"]
    assert int(said[-1]) < 15, "it sees the processes of this machine"
    assert hosts.instance.sshd.connections() == 1
    assert listeners(hosts.instance) == {(hosts.instance.address, hosts.instance.port)}
    assert (hosts.instance.address, hosts.instance.port) not in listeners(hosts.laptop)


def test_pip_works_there_without_a_network(hosts: Hosts) -> None:
    hosts.instance.run(["python3", "-m", "venv", "--without-pip", "x"])
    # Without a pip of its own: to install that takes most of a virtual environment's time.
    pip = "PYTHONPATH=$(echo /home/wheels/pip-*.whl) x/bin/python -m pip"
    hosts.laptop.ssh(hosts.instance, f"{pip} install -q invoke filelock")
    assert hosts.instance.run(["x/bin/inv", "--version"]).stdout.startswith("Invoke 2")
    hosts.instance.run(["x/bin/python", "-c", "import filelock"])


def test_only_the_instance_reaches_the_node(hosts: Hosts) -> None:
    serve(hosts.node)
    assert (hosts.node.address, 7000) not in listeners(hosts.instance) | listeners(hosts.laptop)
    look = "import socket; socket.create_connection(('node', 7000), 5); print('there')"
    assert hosts.instance.run(["python3", "-c", look]).stdout == "there\n"
    with pytest.raises(OSError, match="No route to host"):
        socket.create_connection((hosts.node.address, 7000), 5)
    assert hosts.node.run(["python3", "-c", look.replace("node", hosts.laptop.address)], check=False).returncode == 1


def test_through_a_gateway(hosts: Hosts) -> None:
    hosts.node.sshd.start()
    assert hosts.laptop.ssh(hosts.node, "hostname", check=False).returncode == 255
    assert hosts.laptop.ssh(hosts.node, "hostname", gateway=hosts.instance).stdout == "node\n"
    environ = hosts.laptop.environment(hosts.node, gateway=hosts.instance)
    assert environ["AML_REMOTE_GATEWAY"] == f"azureuser@{hosts.instance.address}:50000"


def test_keys(hosts: Hosts) -> None:
    for key in ("stranger", "locked"):
        refused = hosts.laptop.ssh(hosts.instance, "true", key=key, check=False)
        assert "Permission denied (publickey)" in refused.stderr, refused
    assert hosts.instance.sshd.connections() == 0
    hosts.instance.sshd.authorize(hosts.laptop.public_key("stranger"))
    hosts.laptop.ssh(hosts.instance, "true", key="stranger")
    assert hosts.laptop.ssh(hosts.instance, "true", check=False).returncode == 255
    with hosts.laptop.agent("stranger") as environ:
        keys = subprocess.run(
            ["ssh-add", "-L"], env={**os.environ, **environ}, capture_output=True, text=True, check=True
        )
    assert keys.stdout.strip() == hosts.laptop.public_key("stranger")


def test_a_changed_host_key_and_an_unknown_one(hosts: Hosts) -> None:
    hosts.instance.sshd.new_host_key()
    refused = hosts.laptop.ssh(hosts.instance, "true", check=False)
    assert "HOST IDENTIFICATION HAS CHANGED" in refused.stderr
    assert hosts.instance.sshd.fingerprint in refused.stderr
    hosts.laptop.knows()
    assert "Host key verification failed" in hosts.laptop.ssh(hosts.instance, "true", check=False).stderr
    hosts.laptop.knows(hosts.instance)
    hosts.laptop.ssh(hosts.instance, "true")


def test_a_killed_server(hosts: Hosts) -> None:
    laptop, instance = hosts.laptop, hosts.instance
    command = [*laptop.prefix, "ssh", "-i", str(laptop.key()), "-p", str(instance.port)]
    for break_it in (instance.sshd.drop_connections, instance.sshd.stop):
        with subprocess.Popen(
            [*command, f"azureuser@{instance.address}", "echo up; sleep 1000"],
            env={**os.environ, **laptop.environment(instance)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "up\n"
            try:
                break_it()
                assert child.wait(10) == 255
            finally:
                child.kill()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((instance.address, instance.port), 5)
    instance.sshd.start()
    laptop.ssh(instance, "true")
    assert instance.sshd.connections() == 3


def test_a_cut_link_and_one_that_swallows(hosts: Hosts) -> None:
    serve(hosts.instance)
    with socket.create_connection((hosts.instance.address, 7000), 10) as connection:
        round_trip(connection)
        for cut in (True, False):
            with contextlib.ExitStack() as restored:
                if cut:
                    hosts.link_down()
                    restored.callback(hosts.link_up)
                else:
                    restored.enter_context(hosts.silent())
                connection.settimeout(0.5)
                connection.sendall(b"y")
                with pytest.raises(TimeoutError):
                    connection.recv(1)
                with pytest.raises(OSError, match="timed out"):
                    socket.create_connection((hosts.instance.address, 7000), 0.5)
            connection.settimeout(10)
            assert connection.recv(1) == b"y"


def test_a_slow_link(hosts: Hosts) -> None:
    serve(hosts.instance)
    data = os.urandom(200_000)
    with socket.create_connection((hosts.instance.address, 7000), 10) as connection:

        def best() -> float:
            return min(round_trip(connection) for _ in range(5))

        # On a busy machine, too: the delay is long, and the best of five counts where there is none.
        assert best() < 0.4
        with hosts.slow(delay_ms=200, loss=0):
            assert 0.4 <= best() < 0.8
            hosts.link_down()
            hosts.link_up()
            assert round_trip(connection) >= 0.4
        assert best() < 0.4
        with hosts.slow(delay_ms=5, loss=0.05):
            round_trip(connection, data)
        assert hosts.relay_counts["lost"] > 0
        assert hosts.relay_counts["carried"] > 100
    hosts.laptop.ssh(hosts.instance, "true")


def test_a_full_disk(hosts: Hosts) -> None:
    disk = hosts.instance.small_disk("some disk", 2)
    full = hosts.instance.run(["dd", "if=/dev/zero", "of=some disk/file", "bs=1M", "count=3"], check=False)
    assert "No space left on device" in full.stderr
    assert (disk / "file").stat().st_size == 2 << 20
    assert hosts.instance.path("some disk", "file").exists()


def test_two_laptops(hosts: Hosts) -> None:
    other = hosts.second_laptop()
    for laptop in (hosts.laptop, other):
        laptop.ssh(hosts.instance, "true")
    assert other.environment(hosts.instance)["HOME"] != hosts.laptop.environment(hosts.instance)["HOME"]
    assert hosts.laptop.public_key() != other.public_key()


def test_what_a_test_changes_is_taken_back(hosts: Hosts) -> None:
    laptop, instance, node = hosts.laptop, hosts.instance, hosts.node
    key = instance.sshd.host_key
    instance.put("project/file", "text")
    instance.put(".cache/kept", "text")
    instance.put_program("python3", "#!/bin/sh\necho Python 2.7\n")
    assert laptop.ssh(instance, "python3 -V; cat project/file").stdout == "Python 2.7\ntext"
    laptop.ssh(instance, "setsid -f sleep 1000 >/dev/null 2>&1 </dev/null; touch /tmp/left")
    assert instance.path("/tmp/left").exists()
    node.popen(["sleep", "1000"])
    node.sshd.start()
    disk = instance.small_disk(".cache/disk", 1)
    (disk / "file").touch()
    left = subprocess.Popen(["sleep", "1000"], env={**laptop.environment(instance), "PATH": os.environ["PATH"]})
    instance.sshd.authorize()
    instance.sshd.new_host_key()
    instance.sshd.stop()
    laptop.known_hosts.unlink()
    laptop.ssh_config.write_text("Host *\n  Port 1\n")
    with contextlib.ExitStack() as never_left:
        never_left.enter_context(hosts.slow())
        never_left.enter_context(hosts.silent())
        hosts.link_down()
        hosts.restore()
        still_open = never_left.pop_all()
    assert left.wait(10) == -signal.SIGKILL
    assert f"ads{hosts.number}" not in os.listdir("/sys/class/net")
    assert instance.run(["ls", ".cache/disk"]).stdout == ""
    assert not hosts.instance.path("/tmp/left").exists()
    assert sorted(path.name for path in instance.path().iterdir()) == [".cache", ".config"]
    instance.forget_cache()
    assert instance.sshd.host_key == key
    assert not laptop.ssh_config.exists()
    assert [process.name() for process in instance.processes()] == ["sshd"]
    assert node.processes() == []
    assert laptop.ssh(instance, "python3 -V").stdout.startswith("Python 3")
    assert instance.sshd.connections() == 1
    still_open.close()


def test_the_instance_on_loopback(hosts: Hosts, loopback_instance: Host) -> None:
    assert loopback_instance.address == "127.0.0.1"
    said = hosts.laptop.ssh(loopback_instance, "whoami; hostname; pwd; command -v python3; ls -A /root").stdout
    assert said.split() == ["azureuser", "loopback", loopback_instance.home, "/usr/bin/python3"]
    assert ("127.0.0.1", loopback_instance.port) in listeners(loopback_instance)
    # The engine mounts folders by the names that this machine knows them by.
    loopback_instance.put("a file", "text")
    assert Path(loopback_instance.home, "a file").read_text() == "text"
    child = loopback_instance.popen(["sleep", "1000"])
    until(lambda: psutil.Process(child.pid).name() == "sleep", "the program")
    assert child.pid in [process.pid for process in loopback_instance.processes()]
    loopback_instance.sshd.restart()
    assert len(loopback_instance.sshd.log()) > 0


def test_docker_works_on_the_instance_on_loopback(hosts: Hosts, loopback_instance: Host) -> None:
    from workflows.engines.docker_client import engine_answers

    if not engine_answers():
        missing("no Docker engine answers")
    asked = hosts.laptop.ssh(loopback_instance, "docker info --format '{{.ServerVersion}}'")
    assert asked.stdout.strip()


def test_a_killed_run_leaves_nothing(hosts: Hosts) -> None:
    def start() -> tuple[subprocess.Popen[str], int, list[int]]:
        child = subprocess.Popen(
            [sys.executable, "-c", KEPT_UP, os.environ["XDG_CACHE_HOME"]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert child.stdout is not None
        number, *running = map(int, child.stdout.readline().split())
        return child, number, running

    for how in ("killed", "ended"):
        child, number, running = start()
        with child:
            assert number != hosts.number
            assert len(running) >= 3
            assert f"adt{number}" in os.listdir("/sys/class/net")
            if how == "killed":
                child.kill()
        until(lambda: not any(map(psutil.pid_exists, running)), f"the end of what a {how} run had started")  # noqa: B023
        until(lambda: f"adt{number}" not in os.listdir("/sys/class/net"), "the end of its link")  # noqa: B023
    routes = subprocess.run(["ip", "route"], capture_output=True, text=True, check=True).stdout
    assert f"10.83.{number}." not in routes
    hosts.laptop.ssh(hosts.instance, "true")
