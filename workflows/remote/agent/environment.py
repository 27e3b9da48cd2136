"""The environment in which the program runs on this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

from . import machine
from .machine import cache_folder, file_lock, free_space, make_folder
from .wire import Failure, Wire, checked_name

#: Seconds after their last use after which a program version's files are removed.
PROGRAM_SECONDS = 30 * 86400


_WITH_UV = """
import sys
sys.path.insert(0, sys.argv[1])
from workflows.environments.program_packages import install
sys.exit(install(*sys.argv[2:4], sys.argv[4:]))
"""


def make_environment(wire: Wire, key: str, requirements: list[str], code: str) -> str:
    """Create the program's environment, unless it exists, and return the path of its Python.

    Args:
        wire: Gets each line of progress.
        key: The environment's name.
        requirements: The packages that the program needs, uv among them.
        code: The folder of the program's own files. One of its modules installs the packages with uv.

    Raises:
        Failure: It cannot be created. A partial environment is removed.
    """
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    folder = os.path.join(cache_folder(), "program", f"{checked_name(key)}-py{version}")
    python = os.path.join(folder, "bin", "python")
    if os.path.exists(os.path.join(folder, "ready")):
        return python
    make_folder(os.path.dirname(folder))
    with file_lock(folder + ".lock"):
        if os.path.exists(os.path.join(folder, "ready")):
            return python
        shutil.rmtree(folder, ignore_errors=True)
        try:
            _run(wire, [sys.executable, "-m", "venv", folder], "venv")
            pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar=off"]
            first = [one for one in requirements if one[:2] == "uv" and one[2:3] in "<>=!~;[ "]
            if first:
                _run(wire, [*pip, *first], "pip")
                _run(wire, [python, "-c", _WITH_UV, code, folder, cache_folder(), *requirements], "uv")
            else:
                _run(wire, [*pip, *requirements], "pip")
            with open(os.path.join(folder, "ready"), "w"):
                pass
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return python


def _run(wire: Wire, argv: list[str], what: str) -> None:
    """Run a program and send its output line by line."""
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as child:
        assert child.stdout is not None
        lines: list[str] = []
        try:
            for line in child.stdout:
                lines = [*lines[-14:], line.rstrip()]
                wire.send(line=line.rstrip())
        except BaseException:
            child.kill()
            raise
    if child.returncode:
        text = "\n".join(lines)
        if what == "venv" and "ensurepip" in text:
            why = f": {machine.UNUSABLE_PYTHONS}" if machine.UNUSABLE_PYTHONS else ""
            raise Failure(
                f"Python there cannot make a virtual environment{why}.",
                "Install it there: sudo apt install python3-venv, or name another Python: AML_REMOTE_PYTHON.",
            )
        if "No space left" in text or "Disk quota exceeded" in text:
            raise Failure(
                f"No space is left on the remote disk{free_space(cache_folder())}.",
                "Free some there, then run this again.",
            )
        wire.send(details=lines)
        raise Failure(
            f"The program's environment cannot be made on the remote machine: {what} ended with {child.returncode}.",
            "See the lines above; it needs a package index that the remote machine reaches.",
        )


def remove_old_programs(folder: str) -> None:
    """Remove the files of program versions that have not been used for :data:`PROGRAM_SECONDS`."""
    for entry in os.scandir(folder):
        if entry.name.startswith("files-") and abs(time.time() - entry.stat().st_mtime) > PROGRAM_SECONDS:
            shutil.rmtree(entry.path, ignore_errors=True)
