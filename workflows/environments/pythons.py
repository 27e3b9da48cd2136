"""Finds the Python for an environment."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .conda_packages import satisfies

_PROBE = (
    "import sys, platform; print(*sys.version_info[:3]); print(*platform.libc_ver()); "
    "print(platform.machine()); print(sys.prefix)"
)
# Newest first: the minor versions for which a `pythonX.Y` is looked for on PATH.
_MINORS = tuple(range(20, 7, -1))


@dataclass(frozen=True)
class PythonFacts:
    """Version and platform of an interpreter.

    Attributes:
        version: Major, minor, micro.
        libc: Name and version of the C library, such as ``glibc 2.36``; empty where Python cannot tell.
        machine: Such as ``x86_64``.
    """

    version: tuple[int, int, int]
    libc: str
    machine: str

    @property
    def minor(self) -> str:
        """Such as ``3.11``."""
        return f"{self.version[0]}.{self.version[1]}"


@dataclass(frozen=True)
class Choice:
    """The interpreter for an environment.

    Attributes:
        executable: Its path.
        key: Its part of the environment's digest: each interpreter has environments of its own.
        satisfied: Whether it fits the constraint; if none does, it is the current one.
    """

    executable: str
    key: str
    satisfied: bool


def probe_command(python: str) -> list[str]:
    """The command whose output :func:`parse_facts` reads."""
    return [python, "-I", "-c", _PROBE]


def parse_facts(output: str) -> PythonFacts | None:
    """Parse the output of :func:`probe_command`; None where it does not have the right form."""
    match = re.match(r"(\d+) (\d+) (\d+)\n(.*)\n(.*)\n", output)
    if match is None:
        return None
    version = (int(match[1]), int(match[2]), int(match[3]))
    return PythonFacts(version, match[4].strip(), match[5].strip())


def read_facts(python: str) -> PythonFacts | None:
    """Run an interpreter to get its version and platform; None where it does not run.

    A name on PATH is not enough: pyenv has shims for versions that are switched off.
    """
    import subprocess  # not needed where an environment exists already

    try:
        done = subprocess.run(
            probe_command(python), capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_facts(done.stdout) if done.returncode == 0 else None


def choose_interpreter(constraint: str, fetched: Path | None = None) -> Choice:
    """Choose the interpreter for a constraint of conda's, without running any.

    It is the current one where that fits, else the newest ``pythonX.Y`` on PATH that may fit (whether it runs, the
    caller finds out with :func:`read_facts`), else the newest that was downloaded, else the current one.

    Args:
        constraint: The constraint as in conda.yml.
        fetched: The folder of interpreters that :func:`fetch` has downloaded.
    """
    version = sys.version_info[:3]
    key = f"{sys.base_prefix} {'.'.join(map(str, version))}"
    if satisfies(version, constraint):
        return Choice(sys.executable, key, True)
    for minor in _MINORS:
        if minor == version[1] or not may_satisfy(minor, constraint):
            continue
        path = shutil.which(f"python3.{minor}")
        if path is not None:
            return Choice(path, os.path.realpath(path), True)
    for fetched_version, path in sorted(_fetched(fetched), reverse=True):
        if satisfies(fetched_version, constraint):
            return Choice(path, path, True)
    return Choice(sys.executable, key, False)


def _fetched(folder: Path | None) -> Iterator[tuple[tuple[int, ...], str]]:
    """Versions and paths of the interpreters that :func:`fetch` has downloaded."""
    for place in folder.glob("cpython-*") if folder is not None else ():
        match = re.match(r"cpython-((\d+\.\d+)\.\d+)-", place.name)
        if match is None:
            continue
        python = place / ("python.exe" if sys.platform == "win32" else f"bin/python{match[2]}")
        if python.exists():
            yield tuple(map(int, match[1].split("."))), str(python)


def fetch(constraint: str, cache: Path, report: Callable[[str], None]) -> bool:
    """Download the newest Python that fits a constraint of conda's with uv; whether that worked.

    Args:
        constraint: The constraint as in conda.yml.
        cache: The program's cache folder; interpreters are in ``pythons/`` below it.
        report: Called with each line of progress.
    """
    from . import uv
    from .pip_settings import read_settings
    from .processes import run

    program = uv.find_uv()
    if program is None:
        return False
    folder = cache / "pythons"
    translation = uv.translate(read_settings(os.environ), os.environ)
    # Few retries: without a network the user should not have to wait for long.
    environment = {"UV_HTTP_RETRIES": "1", **translation.environment, "UV_PYTHON_INSTALL_DIR": str(folder)}
    # uv reads its own configuration files here, because mirrors in them count.
    listed = run([program, "python", "list", "--only-downloads", *_ALL], _ignore_line, environment=environment)
    version = _newest(next((line for line in listed.lines if line.startswith("[")), ""), constraint)
    if version is None:
        return False
    report(f"fetching Python {version}, since none here is python{constraint}")
    done = run([program, "python", "install", "--no-bin", version], _ignore_line, environment=environment)
    if done.code != 0:
        report(f"Python {version} cannot be fetched: {(done.lines or ('uv says nothing',))[-1].strip()}")
    return done.code == 0


_ALL = ("--all-versions", "--output-format", "json")


def _ignore_line(line: str) -> None:
    """Drop a line of progress that is not shown."""


def _newest(listing: str, constraint: str) -> str | None:
    """The newest final release of CPython in uv's list that fits a constraint."""
    try:
        entries = json.loads(listing)
    except ValueError:
        return None
    found = [
        tuple(map(int, entry["version"].split(".")))
        for entry in entries
        if entry["implementation"] == "cpython"
        and entry["variant"] == "default"
        and re.fullmatch(r"\d+\.\d+\.\d+", entry["version"])
    ]
    fitting = [version for version in found if satisfies(version, constraint)]
    return ".".join(map(str, max(fitting))) if fitting else None


def may_satisfy(minor: int, constraint: str) -> bool:
    """Whether some Python 3.MINOR.x can fit a constraint."""
    # Constraints on the micro version are rare; the first and a late one stand for all.
    micros = {0, 99, *(int(found) for found in re.findall(r"\d{1,9}\.\d{1,9}\.(\d{1,9})", constraint))}
    return any(satisfies((3, minor, micro), constraint) for micro in micros)


def find_minor(minor: str) -> str | None:
    """A working interpreter of a minor version such as ``3.11``: the current one or one on PATH."""
    if minor == f"{sys.version_info[0]}.{sys.version_info[1]}":
        return sys.executable
    path = shutil.which(f"python{minor}")
    found = read_facts(path) if path is not None else None
    return path if found is not None and found.minor == minor else None


def environment_python(folder: Path) -> Path:
    """The interpreter of a virtual environment."""
    return folder / "Scripts" / "python.exe" if sys.platform == "win32" else folder / "bin" / "python"
