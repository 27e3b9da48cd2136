"""Gets the packages of an image on the host, with the user's settings of pip.

The build then needs no network and no credentials, and leaves no credentials in a layer. uv makes a complete
relocatable environment; where only pip can get the packages, it makes wheels. This is possible only where the host's
wheels fit: with the same system, machine and minor version of Python, and a glibc that is not newer than the image's
(PEP 600: a manylinux wheel runs on its glibc and on newer ones).
"""

from __future__ import annotations

import contextlib
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
from .context import ENVIRONMENT, WHEELS, pip_files
from .installing import Work, install_with_uv, make_empty_environment
from .pip_failures import install_error
from .processes import run
from .uv import find_uv

if TYPE_CHECKING:
    from .definition import EnvironmentDefinition

# Folders that are kept: the two environments, and one change of each.
_KEPT = 4
_ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def find_fitting_python(image: pythons.PythonFacts | None) -> str | None:
    """An interpreter here whose wheels run in an image.

    Args:
        image: Version and platform of the image's Python; None where it has none.

    Returns:
        Its path, or None where the build has to use the package index itself.
    """
    if image is None or sys.platform != "linux":
        return None
    if _architecture(image.machine) != _architecture(platform.machine()):
        return None
    python = pythons.find_minor(image.minor)
    host = pythons.read_facts(python) if python is not None else None
    if host is None or not glibc_fits(host.libc, image.libc):
        return None
    return python


def glibc_fits(host: str, image: str) -> bool:
    """Whether wheels for one C library run on another, each named as in ``glibc 2.36``."""
    ours, theirs = (re.fullmatch(r"glibc (\d+)\.(\d+).*", name) for name in (host, image))
    if ours is None or theirs is None:
        return False
    return tuple(map(int, ours.groups())) <= tuple(map(int, theirs.groups()))


def make_packages(
    definition: EnvironmentDefinition,
    image: pythons.PythonFacts | None,
    cache: Path,
    report: Callable[[str], None],
) -> Path | None:
    """The packages that are installed into an image, made or reused.

    The caller holds a lock.

    Args:
        definition: The environment.
        image: Version and platform of the image's Python; None where it has none.
        cache: The program's cache folder.
        report: Called with each line of uv's output.

    Returns:
        A folder with `environment` or `wheels` in it, or None where the host cannot make them.

    Raises:
        UserError: The packages cannot be downloaded or built.
        OSError: The disk is full.
    """
    python = find_fitting_python(image)
    if python is None or image is None:
        return None
    key = definition.requirements_digest(image.minor, image.libc, image.machine)
    folder = cache / "wheelhouses" / key[:16]
    if folder.is_dir():
        folder.touch()  # its time of last use
        return folder  # it gets its name when it is complete
    make_folder(folder.parent)
    for left in folder.parent.glob(f"{folder.name}.*"):  # of a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    building = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        scratch = building / "scratch"
        scratch.mkdir()
        files = pip_files(definition, translated=True)
        made = building / ENVIRONMENT
        work = Work(definition, made, scratch, cache, report, files, relocatable=True)
        reason: str | None = "uv is not installed here"
        if find_uv() is not None:
            make_empty_environment(work, python)
            reason = install_with_uv(work, pythons.environment_python(made))
        if reason is not None:
            report(f"pip gets the packages: {reason}")
            shutil.rmtree(made, ignore_errors=True)
            if not _make_wheels(work, python, building / WHEELS):
                return None
        shutil.rmtree(scratch)
        building.replace(folder)
        _keep_latest(folder.parent)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def _make_wheels(work: Work, python: str, wheels: Path) -> bool:
    """Make wheels with pip; False where the interpreter has no pip."""
    wheels.mkdir()
    pip = [python, "-I", "-m", "pip", "--disable-pip-version-check", "--no-input"]
    command = [*pip, "wheel", "--progress-bar", "off", "--wheel-dir", str(wheels), "--find-links", str(wheels)]
    for path in work.write_files():
        done = run(
            [*command, "-r", str(path)], work.report, environment=work.environment(), folder=work.definition.folder
        )
        if done.code == 0:
            continue
        if (number := storage.find_disk_error(done.lines)) is not None:
            raise OSError(number, os.strerror(number))
        if any("No module named pip" in line for line in done.lines):
            return False  # the interpreter is an environment's without pip, such as uv makes
        raise install_error(work.definition, done.lines, conda=work.definition.translate_conda()[0])
    return True


def _keep_latest(parent: Path) -> None:
    """Remove all but the most recently used folders; an image that is built does not need its folder any more."""
    used = list[tuple[float, Path]]()
    for path in parent.iterdir():
        if "." not in path.name:
            # Another build may be removing it, too.
            with contextlib.suppress(FileNotFoundError):
                used.append((path.stat().st_mtime, path))
    for _time, old in sorted(used)[:-_KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def _architecture(machine: str) -> str:
    return _ARCHITECTURES.get(machine.lower(), machine.lower())
