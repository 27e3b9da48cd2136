"""The SSH connection itself: host keys, addresses, ways through a command, and a link that falls silent."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from connecting import Connect
from host import Host
from hosts import Hosts

from workflows.errors import UserError
from workflows.remote import address, keepalive
from workflows.remote.proxy import start_proxy
from workflows.remote.session import ConnectionLost

#: Carries bytes between its standard streams and a port.
RELAY = """\
import os, socket, sys, threading
there = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def up():
    while data := os.read(0, 65536):
        there.sendall(data)
    there.shutdown(socket.SHUT_WR)
threading.Thread(target=up, daemon=True).start()
while data := there.recv(65536):
    os.write(1, data)
"""


def configure(hosts: Hosts, *lines: str) -> None:
    """A host `box` of the person's own SSH configuration."""
    host = hosts.instance
    first = ["Host box", f"HostName {host.address}", f"Port {host.port}", f"User {host.user}"]
    hosts.laptop.ssh_config.write_text("\n".join([*first, *lines, ""]))


BOX = {"AML_REMOTE_HOST": "box", "AML_REMOTE_PORT": "", "AML_REMOTE_USER": ""}


def known(hosts: Hosts, *lines: str) -> None:
    hosts.laptop.known_hosts.write_text("".join(f"{line}\n" for line in lines))


def started(script: Path) -> list[psutil.Process]:
    """The processes that run a script for these tests."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if str(script) in child.cmdline():
                found.append(child)
    return found


def test_a_line_that_nobody_can_read_leaves_the_others_of_known_hosts_in_force(hosts: Hosts, connect: Connect) -> None:
    place, key = f"[{hosts.instance.address}]:{hosts.instance.port}", hosts.instance.sshd.host_key
    bad = [
        f"{place} ssh-ed25519 AAAA-this-is-not-base64!",
        f"{place} ssh-ed25519 AAAAC3NzaC1lZDI1NTE5",
        f"{place} ssh-rsa AAAA",
        "|1|not base64|at all ssh-ed25519 AAAA",
        "one-word", "", "# a comment", "\x00\xff",
    ]  # fmt: skip
    known(hosts, *bad, f"{place}  {key}  a comment")
    connect().close()
    known(hosts, *bad)
    with pytest.raises(UserError, match="is not known"):
        connect()


def test_hashed_names_patterns_and_several_keys_of_a_kind_are_known(hosts: Hosts, connect: Connect) -> None:
    host, laptop = hosts.instance, hosts.laptop
    other = laptop.public_key("stranger")
    place = f"[{host.address}]:{host.port}"
    known(hosts, f"{place} {other}", f"{place} {host.sshd.host_key}")
    connect().close()
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(laptop.known_hosts)], check=True, capture_output=True)
    assert host.address not in laptop.known_hosts.read_text()
    connect().close()
    known(hosts, f"[10.83.*]:{host.port},!{place} {host.sshd.host_key}")
    with pytest.raises(UserError, match="is not known"):
        connect()
    known(hosts, f"[10.83.*]:{host.port} {host.sshd.host_key}")
    connect().close()
    known(hosts, f"{place} {host.sshd.host_key}", f"@revoked * {host.sshd.host_key}")
    with pytest.raises(UserError, match="marked @revoked"):
        connect()


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_a_machine_is_asked_for_the_kind_of_key_that_is_known(hosts: Hosts, connect: Connect, kind: str) -> None:
    sshd = hosts.instance.sshd
    key = sshd.have_host_key(kind)
    sshd.configure(f"HostKey /etc/ssh/ssh_host_{kind}_key")
    sshd.restart()
    known(hosts, f"[{hosts.instance.address}]:{hosts.instance.port} {key}")
    session = connect()
    assert session.connection.transport.get_remote_server_key().get_base64() == key.split()[1]
    session.close()


def test_a_host_key_alias_names_the_entry(hosts: Hosts, connect: Connect) -> None:
    configure(hosts, "HostKeyAlias Our-Box")
    known(hosts, f"our-box {hosts.instance.sshd.host_key}")
    connect(**BOX).close()
    known(hosts, f"[{hosts.instance.address}]:{hosts.instance.port} {hosts.instance.sshd.host_key}")
    with pytest.raises(UserError, match="is not known"):
        connect(**BOX)


def test_an_ipv6_address(hosts: Hosts, connect: Connect, loopback_instance: Host) -> None:
    host = loopback_instance
    host.sshd.configure("ListenAddress ::1")
    host.sshd.restart()
    known(hosts, f"[::1]:{host.port} {host.sshd.host_key}")
    port = str(host.port)
    for settings in (
        {"AML_REMOTE_HOST": "::1"},
        {"AML_REMOTE_HOST": "[::1]"},
        {"AML_REMOTE_HOST": f"{host.user}@[::1]:{port}", "AML_REMOTE_PORT": "", "AML_REMOTE_USER": ""},
    ):
        session = connect(host, **settings)
        assert str(session.address) == f"{host.user}@[::1]:{port}"
        session.close()
    with pytest.raises(UserError, match=r"\[::1\]:1 refuses the connection"):
        connect(host, AML_REMOTE_HOST="::1", AML_REMOTE_PORT="1")


def test_a_proxy_command_is_run_as_ssh_runs_it(hosts: Hosts, connect: Connect, tmp_path: Path) -> None:
    relay, said = tmp_path / "relay.py", tmp_path / "said"
    relay.write_text(RELAY)
    script = f'printf "%%s %n %r 100%%%%" x >{said}; exec {sys.executable} {relay} %h %p'
    configure(hosts, f"ProxyCommand sh -c '{script}' 2>&1")
    session = connect(**BOX)
    assert said.read_text() == f"x box {hosts.instance.user} 100%"
    (child,) = started(relay)
    # Ctrl-C in the terminal reaches it as well, and is not meant for it.
    child.send_signal(signal.SIGINT)
    assert session.request("facts", folder="x")["writable"]
    session.close()
    child.wait(5)


def test_a_proxy_command_that_ends_is_said(hosts: Hosts, connect: Connect) -> None:
    configure(hosts, "ProxyCommand false")
    began = time.monotonic()
    with pytest.raises(UserError, match="The ProxyCommand to") as raised:
        connect(**BOX)
    assert "~/.ssh/config" in raised.value.remedy and time.monotonic() - began < 10
    named = address.Address("$(touch x)", "$(touch x)", 22, "me", command="nc %n %p")
    with pytest.raises(UserError, match="cannot be passed to the ProxyCommand"):
        start_proxy(named)


def test_a_link_that_falls_silent_behind_a_command_is_noticed(
    hosts: Hosts, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keepalive, "ASK_SECONDS", 0.2)
    monkeypatch.setattr(keepalive, "SILENT_SECONDS", 1.5)
    relay = tmp_path / "relay.py"
    relay.write_text(RELAY)
    configure(hosts, f"ProxyCommand {sys.executable} {relay} %h %p")
    waiting, sending = connect(**BOX), connect(**BOX)
    # As long as the other side is there it may say nothing for long.
    assert waiting.frame(2.5) is None
    children = started(relay)
    assert len(children) == 2
    for child in children:
        child.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(ConnectionLost):
            waiting.frame(60)
        with pytest.raises(ConnectionLost):
            sending.send_raw(os.urandom(1 << 20) * 64)
    finally:
        for child in children:
            child.kill()
        waiting.close()
        sending.close()
