"""A project's own folder for what the program keeps between commands."""

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

    It is the folder, or the first one above it, that has the program's own files or a tasks.py with its tasks. The
    search ends at the root of a git repository and below the home folder; without any, the folder itself is it.
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
    """Whether a tasks.py has the program's tasks in it; Celery's, and others, have this name, too."""
    try:
        return re.search(rb"^\s*(?:from|import) +workflows\b", read_bytes(file), re.MULTILINE) is not None
    except OSError:
        return False


def state_folder(project: Path, *parts: str, reading: bool = False) -> Path:
    """The folder for the program's own files in a project, made when missing.

    It ignores itself in git, so that nobody has to edit their .gitignore.

    Args:
        project: The project's folder.
        parts: Folders below it.
        reading: Whether it is only looked into: on a full disk it may not be there then.

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
            return f"Rename {place}, or remove it: it is no folder."
    return "Make the project's folder writable for you."


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file of the program's own, for this user alone; a reader sees the old one or the new one whole."""
    write_bytes(path, json.dumps(value, indent=1).encode(), private=True)


def write_bytes(path: Path, data: bytes, *, private: bool = False) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part.

    Args:
        path: The file.
        data: Its content.
        private: Whether nobody but this user may read it, from its first byte on.
    """
    from . import process_identity as identity

    remove_leftovers(path.parent, path.name)
    partial = path.with_name(f".{path.name}.{identity.process_mark()}")
    try:
        with open(partial, "wb", opener=private_opener if private else None) as file:
            file.write(data)
        os.replace(partial, path)
    except OSError as error:
        # That of a write itself has no name.
        error.filename, error.filename2 = str(path), None
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()


def append_log(path: Path) -> IO[bytes]:
    """Open a log of the program's own processes, for this user alone, to write at its end."""
    return open_file(path, "ab")


def remove_leftovers(folder: Path, name: str = "") -> None:
    """Take away what writers of the files in a folder, or of the one of that name, have left that were killed."""
    from . import process_identity as identity

    before = f".{name}." if name else "."
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            if entry.name.startswith(before) and identity.is_leftover(entry.name.rpartition(".")[2]):
                os.unlink(entry.path)


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None where there is none or it is damaged."""
    try:
        value = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


@contextlib.contextmanager
def exclusive(folder: Path, command: str, *, ending: bool = False) -> Iterator[None]:
    """Hold the folder for one command at a time.

    Args:
        folder: The folder.
        command: The command, for the message to another one.
        ending: Whether it only ends things and takes them away, which no full disk is to keep it from.

    Raises:
        UserError: Another command holds it; it is named, with its process id.
    """
    from . import storage
    from .locks import HeldError, hold

    # Where the folder could not be made either, nobody else can hold it.
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
