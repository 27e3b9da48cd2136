"""A step's working directory: links to the entries of its source folder, with the run's own `outputs` and `logs`.

There is no copy: a source folder may hold gigabytes, and an edit between two steps counts. Azure ML uploads what a
script writes to `./outputs` and `./logs`. Here both belong to the run's folder, so that nothing appears beside the
script and two runs do not mix. While the script runs, they are real folders of its working directory, to which the
run's folder has links: so a script may remove and create them again.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from ..models import PathMapping
from ..private import FOLDER, make_folder
from ..project import STATE_FOLDER
from .steps import StepSpec

#: Folders that a script writes to and that belong to the run.
RUN_FOLDERS = ("outputs", "logs")


def make_folders(spec: StepSpec) -> None:
    """Create the folders of a step's run."""
    for name in ("azureml-logs", "announce", "work"):
        make_folder(spec.folder / name)
    for name in RUN_FOLDERS:
        with contextlib.suppress(FileExistsError):
            (spec.folder / "work" / name).mkdir(FOLDER)
        _link(f"work/{name}", spec.folder / name)
    for path, is_file in spec.outputs.values():
        make_folder(path.parent if is_file else path)


def include_roots(spec: StepSpec) -> list[Path]:
    """The folders of the additional includes outside of the code, without those inside another one.

    For a file it is its parent folder: an editor may replace the file itself at any time.
    """
    code = spec.code_root
    folders = [path if path.is_dir() else path.parent for path in spec.includes]
    outside = dict.fromkeys(folder for folder in folders if code is None or not folder.is_relative_to(code))
    return [one for one in outside if not any(one != other and one.is_relative_to(other) for other in outside)]


def path_in_step(path: Path, places: Sequence[tuple[Path, str]]) -> str:
    """The path at which a step sees a file or folder.

    Args:
        path: A path in one of the folders.
        places: Folders, and the path at which the step sees each; the first one that has the path counts.
    """
    local, seen = next(place for place in places if path.is_relative_to(place[0]))
    return "/".join([seen, *path.relative_to(local).parts])


def code_mappings(spec: StepSpec, places: Sequence[tuple[Path, str]], work: str) -> tuple[PathMapping, ...]:
    """Path mappings for the debugger. It resolves links, so the real folders come first.

    Args:
        spec: The step.
        places: As of :func:`path_in_step`.
        work: The working folder as the step sees it.
    """
    folders = [path for path in spec.includes if path.is_dir()]
    linked = [(path, f"{work}/{path.name}") for path in folders]
    if spec.code_root is not None:
        linked.append((spec.code_root, work))
    return tuple(PathMapping(local, remote) for local, remote in [*places, *linked])


def make_work_folder(spec: StepSpec, places: Sequence[tuple[Path, str]]) -> None:
    """Fill ``work`` of a step's folder.

    Args:
        spec: The step.
        places: As of :func:`path_in_step`, for the code and the includes.
    """
    own: list[Path] = []
    if spec.code is not None:
        own = [spec.code / entry.name for entry in os.scandir(spec.code)] if spec.code.is_dir() else [spec.code]
    for path in (*own, *spec.includes):
        if path.name not in (*RUN_FOLDERS, STATE_FOLDER):
            _link(path_in_step(path, places), spec.folder / "work" / path.name)


def move_run_folders(folder: Path) -> None:
    """Move ``outputs`` and ``logs`` of a step that has ended into its run's folder, and leave links to them.

    Args:
        folder: The step's own folder in the run.
    """
    for name in RUN_FOLDERS:
        place, kept = folder / "work" / name, folder / name
        # The script put a link there: its target does not belong to the run.
        if not kept.is_symlink() or place.is_symlink():
            continue
        # If it cannot be moved, the run's folder keeps its link to it.
        with contextlib.suppress(OSError):
            _move(place, kept)
            _link(f"../{name}", place)


def _move(place: Path, link: Path) -> None:
    """Replace a link by the folder that it leads to; a file there is moved into a new folder."""
    target = os.readlink(link)
    link.unlink()
    try:
        if place.is_dir():
            os.rename(place, link)
            return
        link.mkdir(FOLDER)
        if place.exists():
            os.rename(place, link / place.name)
    except OSError:
        _link(target, link)
        raise


def _link(target: str, link: Path) -> None:
    with contextlib.suppress(FileExistsError):
        os.symlink(target, link)


def input_file_name(path: Path) -> str:
    """The last part of an input's path as the command sees it: without characters that need quotes in a shell."""
    return re.sub(r"[^\w.+=@%,-]", "_", path.name)
