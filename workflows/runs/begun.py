"""Which runs of a project are not over, and which command has begun each.

There is a file for each in `active` of the folder of runs. By it the next command of any kind finds what was left by
a runner that was killed; and the same command what one before it had begun that was killed itself.
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

#: Those that this process has begun.
_own: list[Path] = []


def _active(runs: Path) -> Path:
    return runs / "active"


def _note(folder: Path) -> Path:
    return _active(folder.parent) / f"{folder.name}.json"


def note(folder: Path) -> None:
    """Note that this process begins a run, before its folder is there; its regular end ends that, however it comes."""
    path = _note(folder)
    make_folder(path.parent)
    write_json(path, identity.identify(os.getpid()) or {})
    _own.append(folder)


def leave() -> bool:
    """At the regular end of this process: what it has begun is nobody's half work. Whether there was anything."""
    found = bool(_own)
    for folder in _own:
        with contextlib.suppress(OSError):
            adopt(folder)
    _own.clear()
    return found


atexit.register(leave)


def adopt(folder: Path) -> None:
    """Note that a run has been begun wholly: a debugger was led to it, or it was meant to go on by itself."""
    path = _note(folder)
    if (read_json(path) or {}).get("pid"):
        write_json(path, {})


def forget(folder: Path) -> None:
    """Note that a run is over."""
    with contextlib.suppress(OSError):
        _note(folder).unlink(missing_ok=True)


def abandoned(folder: Path) -> bool:
    """Whether the command that has begun a run was killed before its end."""
    known = read_json(_note(folder))
    return known is not None and bool(known) and not identity.is_alive(known)


def unfinished(project: Path) -> Iterator[Path]:
    """The folders of runs that are not over as far as is known. Costs a look at one folder where there are none."""
    runs = project / STATE_FOLDER / "runs"
    try:
        names = sorted(entry.name for entry in os.scandir(_active(runs)) if entry.name.endswith(".json"))
    except OSError:
        return
    for name in names:
        if not name.startswith("."):
            yield runs / name.removesuffix(".json")


def remove_half_made(folder: Path) -> None:
    """Take a run's folder away that has no record, if its command was killed before it could write one."""
    if abandoned(folder):
        shutil.rmtree(folder, ignore_errors=True)
        forget(folder)
