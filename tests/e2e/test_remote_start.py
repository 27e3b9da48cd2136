"""What runs first on the other machine: through any login shell and its start-up files, and with which Python."""

from __future__ import annotations

import os
import shutil
from typing import Any

import pytest
from connecting import Connect
from host import Host
from hosts import Hosts

from workflows.errors import UserError
from workflows.remote import bootstrap

REAL = "/usr/bin/python3"
NAMES = ("python3", "python3.15", "python3.14", "python3.13", "python3.12", "python3.11", "python3.10")
#: A foreign shell must not be told anything: each line that it gets is written down.
SPY = 'while IFS= read -r line; do printf "%s\\n" "$line" >>"$HOME/told"; done'


def python(version: str, works: bool = True) -> str:
    """A Python of another version than the one that there is: a real one but for what it says of itself."""
    major, minor, patch = version.split(".")
    number = int(major) * 1_000_000 + int(minor) * 1000 + int(patch)
    said = f"{number} {version} {int(works)}"
    return f'#!/bin/sh\ncase "$*" in *ensurepip*) echo "{said}"; exit;; esac\nexec {REAL} "$@"\n'


OLD = python("3.7.9", False)
BROKEN = "#!/bin/sh\necho 'error while loading shared libraries: libpython3.12.so.1.0' >&2\nexit 127\n"


@pytest.mark.parametrize(
    "startup",
    [
        "echo Welcome; echo to this machine >&2",
        "stty -ixon; stty erase ^H",
        "printf 'no newline at the end'; cat /etc/passwd",
        "[ -t 0 ] && exec fish",
        "set -u; export PS1=x; bind '\"\\e[A\": history-search-backward' 2>/dev/null; tput setaf 1; mesg n",
    ],
    ids=["banner", "stty", "half a line", "exec on terminals", "what needs a terminal"],
)
def test_what_start_up_files_print_and_want_of_a_terminal_does_no_harm(
    hosts: Hosts, connect: Connect, startup: str
) -> None:
    hosts.instance.put(".bashrc", f"{startup}\n")
    assert "root:" not in connect().hello["node"]


@pytest.mark.parametrize("what", ["exec bash -l", "exec fish", "exec zsh", "exec sh -i", SPY])
def test_a_start_up_file_that_puts_another_program_in_place_is_told_and_told_nothing(
    hosts: Hosts, connect: Connect, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    program = what.split()[1]
    if what.startswith("exec") and not shutil.which(program):
        pytest.skip(f"{program} is not installed")
    monkeypatch.setattr(bootstrap, "SHELL_SECONDS", 3.0)
    host = hosts.instance
    host.put(".profile", f"{SPY}\n")
    host.put(".bashrc", f"{what}\nexit\n" if what == SPY else f"{what}\n")
    with pytest.raises(UserError, match="its login shell runs no command") as raised:
        connect()
    assert "puts another program in its place" in raised.value.problem
    assert "[ -t 0 ] || return" in raised.value.remedy
    assert not host.path("told").exists()


def test_a_start_up_file_that_waits_is_told(hosts: Hosts, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "SHELL_SECONDS", 2.0)
    monkeypatch.setattr(bootstrap, "ENDED_SECONDS", 1.0)
    hosts.instance.put(".bashrc", 'read -r answer; echo "$answer" >told\n')
    with pytest.raises(UserError, match="a start-up file waits for input"):
        connect()
    assert hosts.instance.path("told").read_text() == "\n"
    hosts.instance.put(".bashrc", "echo mounting; sleep 60\n")
    with pytest.raises(UserError, match=r"nothing has come of it for 2 s \(mounting\)"):
        connect()
    hosts.instance.put(".bashrc", "echo not here; exit 3\n")
    with pytest.raises(UserError, match="starts no program: not here"):
        connect()


@pytest.mark.parametrize("shell", ["dash", "fish", "zsh", "tcsh"])
def test_whichever_login_shell_starts_the_program(hosts: Hosts, connect: Connect, shell: str) -> None:
    path = shutil.which(shell, path="/usr/bin:/bin")
    if path is None:
        pytest.skip(f"{shell} is not installed")
    passwd = hosts.instance.folder / "etc" / "passwd"
    before = passwd.read_text()
    line = next(one for one in before.splitlines() if one.startswith(f"{hosts.instance.user}:"))
    try:
        # In place: the file itself is what the host has mounted.
        passwd.write_text(before.replace(line, line.replace("/bin/bash", path)))
        hosts.instance.put(f".{shell}rc", "echo hello\n")
        session = connect(AML_REMOTE_PYTHON="/usr/bin/python3")
        assert session.hello["executable"] == "/usr/bin/python3"
        session.close()
    finally:
        passwd.write_text(before)


def no_python_on_the_path(host: Host) -> None:
    for name in NAMES:
        host.put_program(name, OLD)


@pytest.mark.parametrize(
    "place",
    [
        "miniconda3/bin",
        "anaconda3/envs/train/bin",
        "mambaforge/envs/a b/bin",
        "micromamba/envs/x/bin",
        ".pyenv/versions/3.11.2/bin",
        ".local/share/uv/python/cpython-3.11.2-linux-x86_64-gnu/bin",
        "elsewhere/env/bin",
    ],
)
def test_a_persons_own_pythons_are_looked_through(hosts: Hosts, connect: Connect, place: str) -> None:
    host = hosts.instance
    no_python_on_the_path(host)
    host.put(f"{place}/python3", f'#!/bin/sh\nexec {REAL} "$@"\n', 0o755)
    if place.startswith("elsewhere"):
        host.put(".conda/environments.txt", f"{host.home}/gone\n{host.home}/elsewhere/env\n")
    host.put_program("x", "")
    connect().close()


def test_the_newest_that_does_is_taken_and_one_that_is_named_before_all(hosts: Hosts, connect: Connect) -> None:
    host = hosts.instance
    homes = {
        ".pyenv/versions/3.9.1": python("3.9.1"),
        ".pyenv/versions/3.98.2": python("3.98.2").replace("exec", "export WHICH=pyenv; exec"),
        "miniforge3": python("3.97.1").replace("exec", "export WHICH=conda; exec"),
        "miniforge3/envs/newest": python("3.99.1", False),
        ".local/share/uv/python/x": BROKEN,
    }
    for place, text in homes.items():
        host.put(f"{place}/bin/python3", text, 0o755)

    def which(**more: str) -> str:
        session = connect(**more)
        try:
            pid = int(host.run(["pgrep", "-f", "azureml-debug agent|n = int"]).stdout.split()[-1])
            told = host.run(["tr", "\\0", "\\n"], input=host.run(["cat", f"/proc/{pid}/environ"]).stdout).stdout
            return next((line[6:] for line in told.splitlines() if line.startswith("WHICH=")), "")
        finally:
            session.close()

    assert which() == ""
    for name in ("~/miniforge3", "$HOME/miniforge3/bin/python3", f"{host.home}/miniforge3"):
        assert which(AML_REMOTE_PYTHON=name) == "conda"
    no_python_on_the_path(host)
    assert which() == "pyenv"


def test_where_none_does_each_is_named_with_the_reason(hosts: Hosts, connect: Connect) -> None:
    host = hosts.instance
    no_python_on_the_path(host)
    host.put(".pyenv/versions/3.8.1/bin/python3", python("3.8.1", False), 0o755)
    host.put("miniconda3/bin/python3", BROKEN, 0o755)
    with pytest.raises(UserError, match=r"has no Python 3.10 or later") as raised:
        connect()
    assert f"{host.home}/.pyenv/versions/3.8.1/bin/python3 is Python 3.8.1" in raised.value.problem
    assert "/usr/local/sbin/python3 is Python 3.7.9" in raised.value.problem
    broken = f"{host.home}/miniconda3/bin/python3 does not start (error while loading shared libraries"
    assert broken in raised.value.problem and "AML_REMOTE_PYTHON" in raised.value.remedy
    for name, reason in {
        "~/miniconda3": "does not start",
        "~/none": f"there is no Python at {host.home}/none",
        "~/.pyenv/versions/3.8.1": "is Python 3.8.1",
        "/it's $(touch x)": "there is no Python at /it's $(touch x)",
    }.items():
        with pytest.raises(UserError) as raised:
            connect(AML_REMOTE_PYTHON=name)
        assert f"AML_REMOTE_PYTHON={name}" in raised.value.problem and reason in raised.value.problem
    # One that makes no virtual environments is better than none: what was made before still runs.
    host.put("miniforge3/bin/python3", python("3.99.1", False), 0o755)
    session = connect()
    facts = session.request("facts", folder="x")
    assert "miniforge3/bin/python3, Python 3.99.1, makes no virtual environments" in facts["pythons"]
    session.close()


@pytest.mark.parametrize("folder", ["~/my work", "$HOME/my work", "${HOME}/my work", "my work"])
def test_the_home_in_a_folders_name_is_the_one_there(hosts: Hosts, connect: Connect, folder: str) -> None:
    session = connect()
    asked: dict[str, Any] = {"project": "p", "owner": "o", "version": "v", "sync": ""}
    assert session.request("open", folder=folder, **asked)["root"] == f"{hosts.instance.home}/my work"
    assert session.request("facts", folder=folder)["place"] == f"{hosts.instance.home}/my work"
    with pytest.raises(UserError, match=r"names \$SCRATCH, which is not set on the remote machine"):
        session.request("open", folder="$SCRATCH/x", **asked)
    session.close()
    assert not os.path.lexists(hosts.instance.path("$HOME"))
