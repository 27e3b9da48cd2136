"""Brings files of the other machine here: what a run has written, and run configurations that were made there."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import UserError
from ..paths import shown
from ..project import write_bytes
from ..words import in_bytes
from . import frames
from .places import Places
from .session import Lost, Session


def fetch(session: Session, files: list[tuple[str, Path]], report: Callable[[str], None]) -> None:
    """Bring files here; each appears whole or not at all.

    Args:
        session: The other machine.
        files: The path there, and the one here; those that have come are taken out.
        report: Takes a line of progress.

    Raises:
        UserError: One cannot be read there or written here.
        Lost: The connection is gone.
    """
    session.send(do="get", paths=[path for path, _here in files])
    count = len(files)
    for number, (_there, here) in enumerate(list(files), 1):
        head = next(iter(session.answers(None)))
        report(f"{number} of {count} files, {here.name}, {in_bytes(head['size'])}")
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
        del files[0]
    for answer in session.answers(None):
        if answer.get("done"):
            return


def for_copy(files: Sequence[tuple[str, str]], folder: Path) -> list[tuple[str, Path]]:
    """What :func:`fetch` is to bring for files of a run that are wanted in a folder here. Nothing is overwritten.

    Args:
        files: The name in the run, and the path there.
        folder: The folder here, new or there.

    Raises:
        UserError: It is no folder, or one of them is there already.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{shown(folder)} is not a folder.", "Name a folder, new or there.")
    there = [name for name, _path in files if os.path.lexists(folder / name)]
    if there:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise UserError(f"{shown(folder / there[0])}{more} is there already.", "Copy into another folder.")
    return [(path, folder / name) for name, path in files]


def bring_configurations(session: Session, places: Places, only_new: bool) -> list[str]:
    """Bring run configurations here that a task there has made or changed; their names.

    Before the task those there were as they are here, so what differs now has come from it.

    Args:
        session: The other machine.
        places: Where its paths are here.
        only_new: Leave alone those that are here already.
    """
    project = places.project
    digests = session.ask("digests", root=places.root, pattern=".azureml/*.runconfig")["digests"]
    differing = [name for name, digest in sorted(digests.items()) if digest != _digest(project / name)]
    differing = [name for name in differing if not only_new or not os.path.lexists(project / name)]
    changed = []
    with tempfile.TemporaryDirectory(prefix="azureml-debug-") as folder:
        arrived = {name: Path(folder) / Path(name).name for name in differing}
        fetch(session, [(f"{places.root}/{name}", path) for name, path in arrived.items()], lambda line: None)
        for name, path in arrived.items():
            text = _with_places_here(path.read_bytes(), places)
            if not (project / name).is_file() or (project / name).read_bytes() != text:
                (project / name).parent.mkdir(exist_ok=True)
                write_bytes(project / name, text)
                changed.append(name)
    return changed


def _with_places_here(text: bytes, places: Places) -> bytes:
    """What was outside the project lies in a place of its own there; here it is where it was."""
    for place in places.outside:
        text = text.replace(places.relative(place).encode(), os.path.relpath(place, places.project).encode())
    return text


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
