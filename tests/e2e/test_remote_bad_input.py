"""What can be wrong with another machine: one line that says what, one that says what to do, exit 1."""

from __future__ import annotations

import os
import pty
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import Hosts
from laptop import PASSPHRASE
from remotes import RemoteProject, remote_project


@pytest.fixture
def project(tmp_path: Path, hosts: Hosts) -> Iterator[RemoteProject]:
    with remote_project(tmp_path / "a project", hosts, hosts.instance) as made:
        yield made


def test_without_a_host_the_setting_is_named(project: RemoteProject) -> None:
    for task in ("deploy.debug", "pipeline.list", "experiment.list", "container.list"):
        project.inv(task, "--remote", AML_REMOTE_HOST="").says("AML_REMOTE_HOST is not set", ".env.example")
    project.inv("remote.check", AML_REMOTE_HOST="").says("AML_REMOTE_HOST is not set")
    project.inv("remote.check", AML_REMOTE_HOST="a b").says("must be a host", "Correct AML_REMOTE_HOST")
    project.inv("remote.check", AML_REMOTE_HOST="-oProxyCommand=touch x").says("must be a host")


def test_a_name_that_is_none_and_a_port_where_nobody_listens(project: RemoteProject) -> None:
    project.inv("pipeline.list", "--remote", AML_REMOTE_HOST="no-such-host.invalid").says(
        "There is no host", "AML_REMOTE_HOST", "~/.ssh/config"
    )
    project.inv("pipeline.list", "--remote", AML_REMOTE_PORT="50001").says("refuses the connection", "SSH server")
    hinted = {"AML_REMOTE_PORT": "", "AML_REMOTE_HOST": f"azureuser@{project.host.address}"}
    project.inv("pipeline.list", "--remote", **hinted).says("refuses the connection", "AML_REMOTE_PORT=50000")


def test_a_machine_that_does_not_answer_is_given_up(project: RemoteProject, hosts: Hosts) -> None:
    with hosts.silent():
        project.inv("pipeline.list", "--remote").says("does not answer within 20 s", "AML_REMOTE_GATEWAY")


def test_a_server_that_does_not_speak_ssh(project: RemoteProject) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = str(server.getsockname()[1])
        wrong = {"AML_REMOTE_HOST": "127.0.0.1", "AML_REMOTE_PORT": port}
        project.inv("pipeline.list", "--remote", **wrong).says("does not answer as an SSH server", "AML_REMOTE_PORT")


def test_a_wrong_user_or_key_and_a_key_that_is_not_there(project: RemoteProject, hosts: Hosts) -> None:
    project.inv("pipeline.list", "--remote", AML_REMOTE_USER="nemo").says("does not let nemo in", "AML_REMOTE_USER")
    stranger = str(hosts.laptop.key("stranger"))
    project.inv("pipeline.list", "--remote", AML_REMOTE_KEY=stranger).says("does not let azureuser in", stranger)
    project.inv("pipeline.list", "--remote", AML_REMOTE_KEY="no/key").says("does not exist", "AML_REMOTE_KEY")
    # One that logs in and has no shell: what it says is shown.
    project.inv("pipeline.list", "--remote", AML_REMOTE_USER="nobody").says("starts no program", "not available")
    none = {"AML_REMOTE_KEY": ""}
    project.inv("pipeline.list", "--remote", **none).says("AML_REMOTE_KEY")


def test_an_unknown_host_key_is_shown_and_accepted_by_its_fingerprint_alone(
    project: RemoteProject, hosts: Hosts
) -> None:
    known, shown = hosts.laptop.known_hosts, project.host.sshd.fingerprint
    known.unlink()
    refused = project.inv("pipeline.list", "--remote")
    refused.says("is not known", shown, f"inv remote.check --accept-host-key {shown}")
    assert not known.exists()
    wrong = shown[:-4] + "AAAA"
    project.inv("remote.check", "--accept-host-key", wrong).says("shows another host key", shown)
    assert not known.exists()
    said = project.ok("remote.check", "--accept-host-key", shown)
    assert str(known) in said.out
    # The system's own client takes it too.
    assert hosts.laptop.ssh(project.host, "echo hello").stdout == "hello\n"
    project.ok("pipeline.list", "--remote")


def test_a_changed_host_key_is_always_refused(project: RemoteProject) -> None:
    project.ok("pipeline.list", "--remote")
    before = project.host.sshd.fingerprint
    project.host.sshd.new_host_key()
    after = project.host.sshd.fingerprint
    for command in (["pipeline.list", "--remote"], ["remote.check", "--accept-host-key", after]):
        refused = project.inv(*command)
        refused.says("has changed", before, after, "ssh-keygen -R")
    assert "FAILED   host key" in project.inv("remote.check").out


def test_an_encrypted_key_is_asked_for_on_a_terminal_and_taken_from_the_agent(
    project: RemoteProject, hosts: Hosts
) -> None:
    locked = {"AML_REMOTE_KEY": str(hosts.laptop.key("locked"))}
    project.inv("pipeline.list", "--remote", **locked).says("is encrypted", "ssh-add")
    with hosts.laptop.agent() as agent:
        project.ok("pipeline.list", "--remote", **{"AML_REMOTE_KEY": "", **agent})
    # On a terminal: the passphrase once wrong, once right, and for the tunnels' own connection not again.
    environ = {**os.environ, **project.environ, **locked}
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(project.folder)
        os.execve(sys.executable, [sys.executable, "-m", "invoke", "deploy.debug", "--remote"], environ)
    said = b""
    answers = iter([b"wrong\n", PASSPHRASE.encode() + b"\n"])
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError:
            break
        said += data
        if b"Passphrase of" in data:
            os.write(terminal, next(answers))
    assert os.waitpid(child, 0)[1] == 0, said.decode()
    assert b"not its passphrase" in said and PASSPHRASE.encode() not in said
    assert len(project.tunnels()) == 2
    project.ok("container.stop", "--remote", AML_REMOTE_KEY=str(hosts.laptop.key()))


def test_a_machine_without_a_python_that_will_do(project: RemoteProject) -> None:
    answers = "*version_info*) exit 98;; -V) echo Python 3.7.9; exit;;"
    old = f'#!/bin/sh\nfor a in "$@"; do case $a in {answers} esac; done\nexit 1\n'
    for name in ("python3", "python3.13", "python3.12", "python3.11", "python3.10"):
        project.host.put_program(name, old)
    project.inv("pipeline.list", "--remote").says("has no Python 3.10 or later", "Python 3.7.9", "apt install python3")
    checked = project.inv("remote.check")
    assert checked.code == 1 and "FAILED   Python" in checked.out and "Python 3.7.9" in checked.out


def test_packages_that_cannot_be_installed_there_leave_nothing_half_made(project: RemoteProject) -> None:
    project.host.forget_cache()
    project.host.put(".config/pip/pip.conf", "[global]\nno-index = true\n")
    project.inv("pipeline.list", "--remote").says("environment cannot be made", "package index")
    left = project.host.path(".cache/azureml-debug/program")
    assert not [path for path in left.glob("*-py*") if path.is_dir()]


def test_folders_there_that_cannot_be_written(project: RemoteProject) -> None:
    home, remedy = project.host.home, "Make it writable for you there"
    project.host.run(["chmod", "555", home], root=True)
    project.inv("remote.sync").says(f"Permission denied ({home}/azureml-debug)", remedy, "AML_REMOTE_DIR")
    checked = project.inv("remote.check")
    assert checked.code == 1 and f"Permission denied ({home})." in checked.out and remedy in checked.out
    project.host.run(["chmod", "755", home], root=True)
    project.environ["AML_REMOTE_DIR"] = "elsewhere"
    project.host.run(["mkdir", "-p", f"{home}/.cache/azureml-debug"])
    project.host.run(["chmod", "555", f"{home}/.cache/azureml-debug"], root=True)
    try:
        assert f"({home}/.cache/azureml-debug)." in project.inv("remote.check").out
    finally:
        project.host.run(["chmod", "755", f"{home}/.cache/azureml-debug"], root=True)
    project.ok("remote.check")


def test_the_settings_of_ssh_itself_are_used_with_what_they_include(project: RemoteProject, hosts: Hosts) -> None:
    laptop, host = hosts.laptop, project.host
    laptop.ssh_config.write_text("Include extra\n")
    (laptop.home / ".ssh" / "extra").write_text(
        f"Host box\n  HostName {host.address}\n  Port {host.port}\n  User {host.user}\n  IdentityFile {laptop.key()}\n"
    )
    box = {"AML_REMOTE_HOST": "box", "AML_REMOTE_PORT": "", "AML_REMOTE_USER": "", "AML_REMOTE_KEY": ""}
    assert str(host.address) in project.ok("pipeline.list", "--remote", **box).out


def test_a_machine_behind_a_gateway(project: RemoteProject, hosts: Hosts) -> None:
    hosts.node.sshd.start()
    behind = hosts.laptop.environment(hosts.node, gateway=hosts.instance)
    said = project.ok("remote.check", **behind)
    assert "FAILED" not in said.out
    result = project.ok("deploy.debug", "--remote", "--json", **behind).json
    from projects import post

    assert post(result["scoring_url"]) == {"answer": 60}
    hosts.laptop.knows(hosts.node)
    project.inv("container.list", "--remote", **behind).says("host key", hosts.instance.address)
    hosts.laptop.knows(hosts.node, hosts.instance)
    project.ok("container.stop", "--remote", **behind)
    wrong = {**behind, "AML_REMOTE_PORT": "50009"}
    project.inv("container.list", "--remote", **wrong).says("gateway cannot reach")


def test_check_goes_through_everything_a_line_each(project: RemoteProject) -> None:
    checked = project.ok("remote.check", "--json")
    names = [one["name"] for one in checked.json["findings"]]
    assert names == ["name", "TCP", "host key", "login", "Python", "disk", "Docker", "Azure ML", "clock"]
    assert checked.json["ok"] is True
    neutral = next(one for one in checked.json["findings"] if one["name"] == "Azure ML")
    assert neutral["ok"] is True and neutral["remedy"] == ""
    assert "AML_BACKEND=local" in project.ok("remote.check", AML_BACKEND="azureml").out
    project.host.put_program("python3", f'#!/bin/sh\nexec {shutil.which("python3", path="/usr/bin")} "$@"\n')
    project.host.put_program("docker", "#!/bin/sh\necho permission denied >&2\nexit 1\n")
    assert "usermod -aG docker" in project.ok("remote.check").out


def test_help_shows_remote_on_every_task_of_the_stories(project: RemoteProject) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "invoke", "--list", "-F", "json"],
        cwd=project.folder, env={**os.environ, **project.environ}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    import json

    found = {
        (collection["name"], task["name"])
        for collection in json.loads(done.stdout)["collections"]
        for task in collection["tasks"]
    }
    for collection, task in sorted(found):
        if collection in ("deploy", "container", "pipeline", "experiment"):
            assert "--remote" in project.ok("--help", f"{collection}.{task}").out, (collection, task)
