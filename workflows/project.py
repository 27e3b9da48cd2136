"""A project's state folder, in which the program keeps files between commands."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from .errors import UserError
from .paths import STATE_FOLDER as STATE_FOLDER
from .paths import home_folder
from .private import make_folder, open_file, private_opener, restrict_folder
from .reading import read_bytes, read_text


def find_project(folder: Path) -> Path:
    """The project that a folder belongs to, for a command that needs no tasks.py.

    It is the folder, or the nearest above it, that has a state folder or a tasks.py with the program's tasks. The
    search ends at the root of a git repository and below the home folder. If none is found, it is the folder itself.
    """
    folder = folder.resolve()
    try:
        home: Path | None = home_folder().resolve()
    except UserError:
        home = None
    for place in (folder, *folder.parents):
        if place == home and place != folder:
            break
        if (place / STATE_FOLDER).is_dir() or _has_tasks(place / "tasks.py"):
            return place
        if (place / ".git").exists():
            break
    return folder


def _has_tasks(file: Path) -> bool:
    """Whether a tasks.py imports the program's tasks; Celery and others use this file name, too."""
    try:
        return re.search(rb"^\s*(?:from|import) +workflows\b", read_bytes(file), re.MULTILINE) is not None
    except OSError:
        return False


def state_folder(project: Path, *parts: str, reading: bool = False) -> Path:
    """The state folder of a project, made if missing.

    Its own .gitignore hides it from git, so that you need not edit yours.

    Args:
        project: The project's folder.
        parts: Folders below it.
        reading: Whether it is only read: then it may be missing on a full disk.

    Raises:
        UserError: The folder cannot be made.
    """
    root = project / STATE_FOLDER
    folder = root.joinpath(*parts)
    try:
        make_folder(folder)
        restrict_folder(root)
        ignore = root / ".gitignore"
        if not ignore.exists():
            write_bytes(ignore, b"*\n", private=True)
    except OSError as error:
        from . import storage

        if reading and error.errno in storage.NO_SPACE_ERRORS:
            return folder
        raise storage.explain(error, folder) or UserError(
            f"{folder} cannot be made: {error.strerror}.", _remedy(root, folder)
        ) from error
    return folder


def _remedy(root: Path, folder: Path) -> str:
    for place in (*reversed(folder.parents), folder):
        if place.is_relative_to(root) and os.path.lexists(place) and not os.path.isdir(place):
            return f"Rename {place}, or remove it: it is not a folder."
    return "Make the project's folder writable for you."


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file atomically, for this user alone."""
    write_bytes(path, json.dumps(value, indent=1).encode(), private=True)


def write_bytes(path: Path, data: bytes, *, private: bool = False) -> None:
    """Write a file atomically: readers see the old content or the new, never a part.

    Args:
        path: The file.
        data: Its content.
        private: Whether only this user may read it.
    """
    from . import process_identity as identity

    remove_leftovers(path.parent, path.name)
    partial = path.with_name(f".{path.name}.{identity.process_mark()}")
    try:
        with open(partial, "wb", opener=private_opener if private else None) as file:
            file.write(data)
        os.replace(partial, path)
    except OSError as error:
        # An error of write() has no file name.
        error.filename, error.filename2 = str(path), None
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()


def append_log(path: Path) -> IO[bytes]:
    """Open a log of the program's own processes to append, for this user alone."""
    return open_file(path, "ab")


def remove_leftovers(folder: Path, name: str = "") -> None:
    """Remove temporary files of killed writers from a folder; with a name, only those of that file."""
    from . import process_identity as identity

    before = f".{name}." if name else "."
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            if entry.name.startswith(before) and identity.is_leftover(entry.name.rpartition(".")[2]):
                os.unlink(entry.path)


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None if the file is missing or damaged."""
    try:
        value = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


@contextlib.contextmanager
def exclusive(folder: Path, command: str, *, ending: bool = False) -> Iterator[None]:
    """Lock a folder for one command at a time.

    Args:
        folder: The folder.
        command: The command, for the message of others that wait.
        ending: Whether it only stops and removes things, which has to work on a full disk, too.

    Raises:
        UserError: Another command holds it; it is named, with its process id.
    """
    from . import storage
    from .locks import HeldError, hold

    # If the folder could not be made, no other command can hold it.
    borne = {*storage.NO_SPACE_ERRORS, errno.ENOENT} if ending else frozenset()
    owner = folder / "lock.json"
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(hold(folder / "lock", 0))
        except HeldError as error:
            held = read_json(owner) or {}
            who = f"inv {held.get('command', '...')} (process {held.get('pid', 'unknown')})"
            raise UserError(
                f"{who} is at work in this project.", "Let it finish or stop it with Ctrl-C, then run this again."
            ) from error
        except OSError as error:
            if error.errno not in borne:
                raise
        try:
            try:
                write_json(owner, {"command": command, "pid": os.getpid(), "since": time.time()})
            except OSError as error:
                if error.errno not in borne:
                    raise
            yield
        finally:
            with contextlib.suppress(FileNotFoundError):
                owner.unlink()
