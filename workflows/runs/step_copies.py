"""Copies for one step of what belongs to another run: outputs that are its inputs, and the code that a step had."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ..private import make_folder

#: Folders that no step needs to run again: those of tools, and of this program.
_NOT_CODE = frozenset({".git", ".hg", "__pycache__", ".azureml-debug", ".ipynb_checkpoints", ".vscode", "node_modules"})
#: Modes of code that a step runs: of folders and programs, and of other files. The run's folder itself is private.
_PROGRAM, _TEXT = 0o755, 0o644
#: Files and bytes up to which a step's code is kept; a larger folder also holds data.
KEPT_FILES, KEPT_BYTES = 2000, 20 * 1024 * 1024
#: Bytes up to which data is copied; above that the step gets folders of its own with links to the files.
COPIED_BYTES = 500 * 1024 * 1024


def copy_for_step(source: Path, target: Path) -> Path:
    """Make a copy of data for one step, in which the step may add, replace and remove files.

    Small data is copied. For large data each file is a link, so a step that writes into a file in place, instead of
    replacing it, still changes the original.

    Args:
        source: A file or folder.
        target: The folder of the copy; a file keeps its name in it.

    Returns:
        The path of the copied file or folder.

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
    """Bytes of a file or folder; counting ends above :data:`COPIED_BYTES`."""
    if source.is_file():
        return source.stat().st_size
    total = 0
    for folder, _folders, names in os.walk(source):
        for name in names:
            total += os.lstat(os.path.join(folder, name)).st_size
        if total > COPIED_BYTES:
            break
    return total


def copy_code(kept: Path, target: Path) -> Path:
    """Copy code that was kept, for one step; a container's user can read the copy.

    Raises:
        OSError: As :func:`own_copy`.
    """
    copied = copy_for_step(kept, target)
    for place, folders, names in os.walk(target):
        for name in folders:
            os.chmod(os.path.join(place, name), _PROGRAM)
        for name in names:
            path = os.path.join(place, name)
            os.chmod(path, _PROGRAM if os.stat(path).st_mode & 0o100 else _TEXT)
    os.chmod(target, _PROGRAM)
    return copied


def kept_code_folder(folder: Path) -> Path:
    """The folder with the kept code, in a step's folder."""
    return folder / "code"


def keep_code(code: Path, folder: Path) -> None:
    """Copy a step's code as it is now, unless it is large; the copy appears atomically.

    Args:
        code: A folder, or one file.
        folder: The step's folder in its run.

    Raises:
        OSError: It cannot be read, or the disk is full. Nothing is kept then.
    """
    files = _code_files(code)
    if files is None:
        return
    target = kept_code_folder(folder)
    part = target.with_name("code.part")
    try:
        make_folder(part)
        for path in files:
            place = part / (path.relative_to(code) if code.is_dir() else path.name)
            make_folder(place.parent)
            shutil.copyfile(path, place)
            # As everything in a run's folder, it is readable for the user alone.
            os.chmod(place, 0o700 if path.stat().st_mode & 0o100 else 0o600)
        part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _code_files(code: Path) -> list[Path] | None:
    """The files of a step's code; None if they are too many or too large."""
    if code.is_file():
        return [code] if code.stat().st_size <= KEPT_BYTES else None
    found: list[Path] = []
    size = 0
    for place, folders, names in os.walk(code):
        folders[:] = [
            name for name in folders if name not in _NOT_CODE and not (Path(place, name) / "pyvenv.cfg").exists()
        ]
        for name in names:
            path = Path(place, name)
            if path.is_file():
                found.append(path)
                size += path.stat().st_size
        if len(found) > KEPT_FILES or size > KEPT_BYTES:
            return None
    return found
