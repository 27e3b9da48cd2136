"""The environment that the program runs in here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

from . import machine
from .machine import cache, held, left, own_folder
from .wire import Failure, Wire, one_part

#: Seconds after which the files of a version of the program that nobody uses are taken away.
PROGRAM_SECONDS = 30 * 86400


_WITH_UV = """
import sys
sys.path.insert(0, sys.argv[1])
from workflows.environments.program_packages import install
sys.exit(install(*sys.argv[2:4], sys.argv[4:]))
"""


def make_environment(wire: Wire, key: str, requirements: list[str], code: str) -> str:
    """The Python of an environment with what the program needs; made once.

    Args:
        wire: Told each line of progress.
        key: Names the environment.
        requirements: What the program needs, uv among it.
        code: The folder with the program's own files, of which a part has uv install the rest.

    Raises:
        Failure: It cannot be made; nothing half made stays.
    """
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    folder = os.path.join(cache(), "program", f"{one_part(key)}-py{version}")
    python = os.path.join(folder, "bin", "python")
    if os.path.exists(os.path.join(folder, "ready")):
        return python
    own_folder(os.path.dirname(folder))
    with held(folder + ".lock"):
        if os.path.exists(os.path.join(folder, "ready")):
            return python
        shutil.rmtree(folder, ignore_errors=True)
        try:
            _run(wire, [sys.executable, "-m", "venv", folder], "venv")
            pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar=off"]
            first = [one for one in requirements if one[:2] == "uv" and one[2:3] in "<>=!~;[ "]
            if first:
                _run(wire, [*pip, *first], "pip")
                _run(wire, [python, "-c", _WITH_UV, code, folder, cache(), *requirements], "uv")
            else:
                _run(wire, [*pip, *requirements], "pip")
            with open(os.path.join(folder, "ready"), "w"):
                pass
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return python


def _run(wire: Wire, argv: list[str], what: str) -> None:
    """Run a program, its output shown line by line."""
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as child:
        assert child.stdout is not None
        lines: list[str] = []
        try:
            for line in child.stdout:
                lines = [*lines[-14:], line.rstrip()]
                wire.say(line=line.rstrip())
        except BaseException:
            child.kill()
            raise
    if child.returncode:
        text = "\n".join(lines)
        if what == "venv" and "ensurepip" in text:
            raise Failure(
                f"Python there cannot make a virtual environment{f': {machine.PYTHONS}' if machine.PYTHONS else ''}.",
                "Install it there: sudo apt install python3-venv, or name another Python: AML_REMOTE_PYTHON.",
            )
        if "No space left" in text or "Disk quota exceeded" in text:
            raise Failure(
                f"No space is left on the remote disk{left(cache())}.", "Free some there, then run this again."
            )
        wire.say(details=lines)
        raise Failure(
            f"The program's environment cannot be made on the remote machine: {what} ended with {child.returncode}.",
            "See the lines above; it needs a package index that the remote machine reaches.",
        )


def forget_programs(folder: str) -> None:
    """Take away the program's files of versions that nobody has used for long."""
    for entry in os.scandir(folder):
        if entry.name.startswith("files-") and abs(time.time() - entry.stat().st_mtime) > PROGRAM_SECONDS:
            shutil.rmtree(entry.path, ignore_errors=True)
