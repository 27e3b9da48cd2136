"""Brings files of the other machine here: what a run has written, and run configurations that were made there."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import UserError
from ..paths import shown
from . import frames
from .session import Lost, Session
from .sync import in_bytes


def fetch(session: Session, files: Sequence[tuple[str, Path]], report: Callable[[str], None]) -> None:
    """Bring files here; each appears whole or not at all.

    Args:
        session: The other machine.
        files: The path there, and the one here.
        report: Takes a line of progress.

    Raises:
        UserError: One cannot be read there or written here.
        Lost: The connection is gone.
    """
    session.send(do="get", paths=[path for path, _here in files])
    for number, (_there, here) in enumerate(files, 1):
        head = next(iter(session.answers(None)))
        report(f"{number} of {len(files)} files, {here.name}, {in_bytes(head['size'])}")
        partial = here.with_name(f".{here.name}.{os.getpid()}")
        try:
            here.parent.mkdir(parents=True, exist_ok=True)
            with open(partial, "wb") as file:
                left = int(head["size"])
                while left > 0:
                    got = session.frame(None)
                    if got is None or got[0] != frames.CONTENT:
                        raise Lost
                    left -= file.write(got[1])
            os.chmod(partial, head["mode"] & 0o777)
            os.replace(partial, here)
        except OSError as error:
            raise UserError(
                f"{shown(here)} cannot be written: {error.strerror}.", "See to it, or name another folder."
            ) from error
        finally:
            with contextlib.suppress(OSError):
                partial.unlink()
    for answer in session.answers(None):
        if answer.get("done"):
            return


def copy(session: Session, files: Sequence[tuple[str, str]], folder: Path, report: Callable[[str], None]) -> int:
    """Copy files of a run into a folder here; how many. Nothing is overwritten.

    Args:
        session: The other machine.
        files: The name in the run, and the path there.
        folder: The folder here, new or there.
        report: Takes a line of progress.

    Raises:
        UserError: One of them is there already, or cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{shown(folder)} is not a folder.", "Name a folder, new or there.")
    there = [name for name, _path in files if os.path.lexists(folder / name)]
    if there:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise UserError(f"{shown(folder / there[0])}{more} is there already.", "Copy into another folder.")
    fetch(session, [(path, folder / name) for name, path in files], report)
    return len(files)


def bring_configurations(session: Session, root: str, project: Path) -> list[str]:
    """Bring run configurations here that a task there has made or changed; their names.

    Before the task those there were as they are here, so what differs now has come from it.
    """
    digests = session.ask("digests", root=root, pattern=".azureml/*.runconfig")["digests"]
    wanted = [
        name
        for name, digest in sorted(digests.items())
        if digest and (not (project / name).is_file() or _digest(project / name) != digest)
    ]
    fetch(session, [(f"{root}/{name}", project / name) for name in wanted], lambda line: None)
    return wanted


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
