"""Which Python an environment gets."""

from __future__ import annotations

import os
import re
import shutil
import sys
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
    """What an interpreter says of itself.

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
    """The interpreter that makes an environment.

    Attributes:
        executable: Its path.
        key: Goes into the environment's digest: another interpreter, another environment.
        satisfied: False where no interpreter fits and the current one stands in.
    """

    executable: str
    key: str
    satisfied: bool


def probe_command(python: str) -> list[str]:
    """The command whose output :func:`parse_facts` reads."""
    return [python, "-I", "-c", _PROBE]


def parse_facts(output: str) -> PythonFacts | None:
    """Read the output of :func:`probe_command`; None when it is not what it should be."""
    match = re.match(r"(\d+) (\d+) (\d+)\n(.*)\n(.*)\n", output)
    if match is None:
        return None
    version = (int(match[1]), int(match[2]), int(match[3]))
    return PythonFacts(version, match[4].strip(), match[5].strip())


def facts(python: str) -> PythonFacts | None:
    """Ask an interpreter about itself; None when it does not run.

    A name on PATH proves nothing: pyenv's shims exist for versions that are switched off.
    """
    import subprocess  # not needed where an environment is there already

    try:
        done = subprocess.run(
            probe_command(python), capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_facts(done.stdout) if done.returncode == 0 else None


def candidate(constraint: str) -> Choice:
    """The interpreter for a constraint of conda's, without running anything.

    The current one where it fits, else the newest ``pythonX.Y`` on PATH that may fit (see
    :func:`facts`: whether it runs is for the caller to find out), else the current one.
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
    return Choice(sys.executable, key, False)


def may_satisfy(minor: int, constraint: str) -> bool:
    """Whether some Python 3.MINOR.x can fit a constraint."""
    # Constraints on the micro version are rare; the first and a late one stand for all.
    micros = {0, 99, *(int(found) for found in re.findall(r"\d{1,9}\.\d{1,9}\.(\d{1,9})", constraint))}
    return any(satisfies((3, minor, micro), constraint) for micro in micros)


def find_minor(minor: str) -> str | None:
    """An interpreter of a minor version such as ``3.11`` that runs: the current one or one on PATH."""
    if minor == f"{sys.version_info[0]}.{sys.version_info[1]}":
        return sys.executable
    path = shutil.which(f"python{minor}")
    found = facts(path) if path is not None else None
    return path if found is not None and found.minor == minor else None


def environment_python(folder: Path) -> Path:
    """The interpreter of a virtual environment."""
    return folder / "Scripts" / "python.exe" if sys.platform == "win32" else folder / "bin" / "python"
