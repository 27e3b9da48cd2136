"""Wheels for an image, made by the host's pip with the host's settings.

The build then needs no network and no credentials, and leaves neither in a layer. Only where the
host's wheels fit: the same system, machine and minor version of Python, and a glibc that is not newer
than the image's (PEP 600: a manylinux wheel runs on its glibc and on newer ones).
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .. import storage
from ..private import make_folder
from . import pythons
from .context import pip_files
from .pip_failures import pip_failed

if TYPE_CHECKING:
    from .definition import EnvironmentDefinition

# Enough for the two environments and a change of each.
_KEPT = 4
_ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def fitting_python(image: pythons.PythonFacts | None) -> str | None:
    """An interpreter here whose wheels run in an image.

    Args:
        image: What the image's Python says of itself; None where it has none.

    Returns:
        Its path, or None where the build has to use the package index itself.
    """
    if image is None or sys.platform != "linux":
        return None
    if _architecture(image.machine) != _architecture(platform.machine()):
        return None
    python = pythons.find_minor(image.minor)
    host = pythons.facts(python) if python is not None else None
    if host is None or not glibc_fits(host.libc, image.libc):
        return None
    return python


def glibc_fits(host: str, image: str) -> bool:
    """Whether wheels for one C library run on another, each named as in ``glibc 2.36``."""
    ours, theirs = (re.fullmatch(r"glibc (\d+)\.(\d+).*", name) for name in (host, image))
    if ours is None or theirs is None:
        return False
    return tuple(map(int, ours.groups())) <= tuple(map(int, theirs.groups()))


def make_wheelhouse(
    definition: EnvironmentDefinition,
    image: pythons.PythonFacts | None,
    cache: Path,
    report: Callable[[str], None],
) -> Path | None:
    """Wheels of everything that pip installs into an image, made or reused.

    The caller holds a lock.

    Args:
        definition: The environment.
        image: What the image's Python says of itself; None where it has none.
        cache: The program's cache folder.
        report: Called with each line of pip's output.

    Returns:
        Their folder, or None where the host cannot make them.

    Raises:
        UserError: pip fails.
        OSError: The disk is full.
    """
    from .processes import run

    python = fitting_python(image)
    if python is None or image is None:
        return None
    key = definition.requirements_digest(image.minor, image.libc, image.machine)
    folder = cache / "wheelhouses" / key[:16]
    if folder.is_dir():
        folder.touch()  # its time of last use
        return folder  # it gets its name when it is whole
    pip = [python, "-I", "-m", "pip", "--disable-pip-version-check", "--no-input"]
    make_folder(folder.parent)
    for left in folder.parent.glob(f"{folder.name}.*"):  # of a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    building = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        wheels = building / "wheels"
        wheels.mkdir()
        environment = {**os.environ, "TMPDIR": str(building), "PYTHONUNBUFFERED": "1"}
        environment.pop("PYTHONPATH", None)
        for name, text in pip_files(definition, translated=True).items():
            (building / name).write_text(text, "utf-8", errors="surrogateescape")
        for name in ("requirements.txt", "requirements-added.txt"):
            if not (building / name).is_file():
                continue
            command = [*pip, "wheel", "--progress-bar", "off", "--wheel-dir", str(wheels)]
            command += ["--find-links", str(wheels), "-r", str(building / name)]
            done = run(command, report, environment=environment, folder=definition.folder)
            if done.code == 0:
                continue
            if (number := storage.in_output(done.lines)) is not None:
                raise OSError(number, os.strerror(number))
            if any("No module named pip" in line for line in done.lines):
                return None  # an environment made without pip, as uv does
            raise pip_failed(definition, done.lines, conda=definition.translated()[0])
        wheels.replace(folder)
        _keep_latest(folder.parent)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def _keep_latest(parent: Path) -> None:
    """Remove the wheels that were not used for longest; an image that is built no longer needs its own."""
    folders = [path for path in parent.iterdir() if "." not in path.name]
    for old in sorted(folders, key=lambda path: path.stat().st_mtime)[:-_KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def _architecture(machine: str) -> str:
    return _ARCHITECTURES.get(machine.lower(), machine.lower())
