"""What building an environment finds on this machine, and that what it starts ends with it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from workflows.environments import apt_sources, pythons
from workflows.environments.guard import __file__ as GUARD
from workflows.environments.wheelhouse import glibc_fits


def test_python_that_nobody_has() -> None:
    choice = pythons.choose_interpreter("=3.99")
    assert (choice.executable, choice.satisfied) == (sys.executable, False)
    assert pythons.choose_interpreter(">=3.8").executable == sys.executable


def test_a_name_on_path_that_does_not_run_is_no_python(tmp_path: Path) -> None:
    shim = tmp_path / "python3.99"
    shim.write_text("#!/bin/sh\necho 'pyenv: python3.99: command not found' >&2\nexit 127\n")
    shim.chmod(0o755)
    assert pythons.read_facts(str(shim)) is None
    found = pythons.read_facts(sys.executable)
    assert found is not None
    assert found.version == sys.version_info[:3]


@pytest.mark.parametrize(
    ("host", "image", "fits"),
    [
        ("glibc 2.36", "glibc 2.36", True),
        ("glibc 2.9", "glibc 2.36", True),
        ("glibc 2.39", "glibc 2.36", False),
        ("glibc 2.36", "", False),
        ("", "glibc 2.36", False),
    ],
)
def test_glibc(host: str, image: str, fits: bool) -> None:
    assert glibc_fits(host, image) is fits


SOURCES = """\
# the archive
Types: deb deb-src
URIs: http://archive.invalid/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://other.invalid/repository
Suites: bookworm
Components: stable
Signed-By: /etc/apt/keyrings/other.asc

Types: deb
URIs: http://other.invalid/debian
Suites: bookworm
Components: main
Signed-By: /etc/apt/keyrings/other.asc

Enabled: no
Types: deb
URIs: http://off.invalid/debian
Suites: bookworm
Components: main
"""
LIST = """\
# deb http://commented.invalid/debian bookworm main
deb [arch=amd64,arm64 signed-by=/usr/share/keyrings/debian-archive-key.gpg] http://s.invalid bookworm-security main # x
deb-src http://archive.invalid/debian bookworm main
deb http://cloud.invalid/apt cloud-sdk-bookworm main
deb http://node.invalid/20 nodistro main
"""


def test_apt_sources_of_the_archive_only(tmp_path: Path) -> None:
    parts = tmp_path / "etc" / "apt" / "sources.list.d"
    parts.mkdir(parents=True)
    (parts / "debian.sources").write_text(SOURCES)
    (parts / "old.list.disabled").write_text("deb http://off.invalid bookworm main\n")
    (tmp_path / "etc" / "apt" / "sources.list").write_text(LIST)
    found = apt_sources.archive_sources("debian", "bookworm", tmp_path)
    assert found == [
        "Types: deb\nUris: http://s.invalid\nSuites: bookworm-security\nComponents: main\n"
        "Architectures: amd64 arm64\nSigned-By: /usr/share/keyrings/debian-archive-key.gpg\n",
        "Types: deb\nUris: http://archive.invalid/debian\nSuites: bookworm bookworm-updates\n"
        "Components: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n",
    ]
    assert apt_sources.archive_sources("debian", "trixie", tmp_path) == []


@pytest.mark.skipif(shutil.which("sleep") is None, reason="needs sleep")
def test_a_guarded_command_ends_with_its_parent(tmp_path: Path) -> None:
    mark = f"{time.time():.6f}".replace(".", "")[-9:]
    script = f"import subprocess, sys; subprocess.run(['sleep', '1{mark}'])"
    command = [sys.executable, GUARD, "0", sys.executable, "-c", script]
    guard = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    assert guard.stdin is not None

    def sleeping() -> bool:
        found = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        return f"sleep 1{mark}" in [line.strip() for line in found.splitlines()]

    until = time.monotonic() + 10
    while not sleeping() and time.monotonic() < until:
        time.sleep(0.02)
    assert sleeping()
    guard.stdin.close()
    guard.wait(timeout=5)
    until = time.monotonic() + 5
    while sleeping() and time.monotonic() < until:
        time.sleep(0.02)
    assert not sleeping()
