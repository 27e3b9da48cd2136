"""Files and folders for this user alone, whatever the umask is: sessions, logs, records of runs.

They hold values of variables, lines of code and tokens. Files that users may share, such as launch.json, are not made
here.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import IO, Any

FILE, FOLDER = 0o600, 0o700


def make_folder(folder: Path) -> Path:
    """Make a folder and its missing parents, each for this user alone; returns the folder.

    Raises:
        OSError: It cannot be made.
    """
    try:
        folder.mkdir(FOLDER)
    except FileNotFoundError:
        if folder.parent == folder:
            raise
        make_folder(folder.parent)
        make_folder(folder)
    except FileExistsError:
        if not folder.is_dir():
            raise
    return folder


def restrict_folder(folder: Path) -> None:
    """Take other users' permissions on an existing folder away, if it belongs to this user."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):
        status = folder.lstat()
        if status.st_uid == os.geteuid() and status.st_mode & 0o077:
            folder.chmod(FOLDER)


def restrict_tree(folder: Path) -> None:
    """Take other users' permissions away on everything in a copied folder."""
    for at, _folders, names in os.walk(folder):
        for path in (Path(at), *(Path(at, name) for name in names)):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & FOLDER)


def private_opener(path: str, flags: int) -> int:
    """An opener for :func:`open` that makes files for this user alone."""
    return os.open(path, flags, FILE)


def open_file(path: Path, mode: str, **options: Any) -> IO[Any]:
    """As :func:`open`; a missing file is made for this user alone."""
    return open(path, mode, opener=private_opener, **options)


def touch(path: Path) -> None:
    """Make an empty file if there is none."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), FILE))
