"""Outputs of an earlier run as a step's inputs, without a container that protects them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ..private import make_folder

#: Bytes up to which data is copied; above that the files are linked to, and only their folders are the step's own.
COPIED_BYTES = 500 * 1024 * 1024


def own_copy(source: Path, target: Path) -> Path:
    """Data for one step, which may add, replace and remove files in it.

    Small data is copied. Of large data each file is a link, so that a step which writes into a file in place, instead
    of replacing it, still changes the original.

    Args:
        source: A file or folder.
        target: Where the step's own is made; a file keeps its name in it.

    Returns:
        The step's own.

    Raises:
        OSError: The disk is full, or the source cannot be read.
    """
    if target.exists():
        shutil.rmtree(target)
    copy = shutil.copy2 if _size(source) <= COPIED_BYTES else _link
    if source.is_dir():
        make_folder(target.parent)
        shutil.copytree(source, target, symlinks=True, copy_function=copy)
        return target
    make_folder(target)
    copy(str(source), str(target / source.name))
    return target / source.name


def _link(source: str, target: str) -> str:
    os.symlink(os.path.abspath(source), target)
    return target


def _size(source: Path) -> int:
    """Bytes of a file or folder; it is not counted further than matters."""
    if source.is_file():
        return source.stat().st_size
    total = 0
    for folder, _folders, names in os.walk(source):
        for name in names:
            total += os.lstat(os.path.join(folder, name)).st_size
        if total > COPIED_BYTES:
            break
    return total
