"""Markers of the runs that are not over, each with the command that began the run.

Each such run has a file in `active` in the folder of runs. With it the next command of any kind finds the runs of
runners that were killed, and the same command finds the runs that a killed command had begun.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from .. import process_identity as identity
from ..private import make_folder
from ..project import STATE_FOLDER, read_json, write_json

#: Folders of the runs that this process has begun.
_own: list[Path] = []


def _markers_folder(runs: Path) -> Path:
    return runs / "active"


def _marker(folder: Path) -> Path:
    return _markers_folder(folder.parent) / f"{folder.name}.json"


def mark_active(folder: Path) -> None:
    """Mark a run as begun by this process, before its folder exists; :func:`release_own` ends that at its exit."""
    path = _marker(folder)
    make_folder(path.parent)
    write_json(path, identity.identify(os.getpid()) or {})
    _own.append(folder)


def release_own() -> bool:
    """Mark the runs of this process as submitted when it exits normally; returns whether there were any."""
    found = bool(_own)
    for folder in _own:
        with contextlib.suppress(OSError):
            mark_submitted(folder)
    _own.clear()
    return found


atexit.register(release_own)


def mark_submitted(folder: Path) -> None:
    """Mark a run as completely submitted: a debugger can attach to it, or it is meant to run on by itself."""
    path = _marker(folder)
    if (read_json(path) or {}).get("pid"):
        write_json(path, {})


def remove_marker(folder: Path) -> None:
    """Remove the marker of a run that is over."""
    with contextlib.suppress(OSError):
        _marker(folder).unlink(missing_ok=True)


def is_abandoned(folder: Path) -> bool:
    """Whether the command that began a run was killed before it had submitted it completely."""
    known = read_json(_marker(folder))
    return known is not None and bool(known) and not identity.is_alive(known)


def unfinished_folders(project: Path) -> Iterator[Path]:
    """The folders of the runs that are marked as not over. If there are none, this only lists one folder."""
    runs = project / STATE_FOLDER / "runs"
    try:
        names = sorted(entry.name for entry in os.scandir(_markers_folder(runs)) if entry.name.endswith(".json"))
    except OSError:
        return
    for name in names:
        if not name.startswith("."):
            yield runs / name.removesuffix(".json")


def remove_half_made(folder: Path) -> None:
    """Remove a run's folder that has no record, if its command was killed before it could write one."""
    if is_abandoned(folder):
        shutil.rmtree(folder, ignore_errors=True)
        remove_marker(folder)
