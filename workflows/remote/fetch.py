"""Brings files of the other machine here: what a run has written, and run configurations that were made there."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from ..formatting import format_size
from ..paths import shown
from ..received import Refused, distinct
from ..received_files import check_free_space, file_below, place_below
from ..scratch import scratch_folder
from . import frames
from .places import Places
from .session import ANSWER_SECONDS, Lost, Session

#: Bytes of all run configurations together at the most.
_CONFIGURATION_BYTES = 16 << 20
_CONFIGURATION = re.compile(r"\.azureml/[^/]+\.runconfig")


@dataclass(frozen=True)
class Wanted:
    """A file of the other machine that is wanted here.

    Attributes:
        there: Its path there.
        folder: The folder here that it goes into.
        name: Its path below that.
    """

    there: str
    folder: Path
    name: str


def fetch(session: Session, files: list[Wanted], report: Callable[[str], None], most: int | None = None) -> None:
    """Bring files here; each appears whole or not at all, its owner's alone and no program.

    Args:
        session: The other machine.
        files: What is wanted; those that have come are taken out.
        report: Takes a line of progress.
        most: Bytes that all of them may have; None for whatever there is room for.

    Raises:
        UserError: One cannot be read there or written here.
        Refused: What comes is not what was asked for.
        Lost: The connection is gone.
    """
    for one in files:
        # Before anything is asked for: nothing is to come that cannot be written.
        place_below(one.folder, one.name)
    session.send(do="get", paths=[one.there for one in files])
    count, come = len(files), 0
    for number, one in enumerate(list(files), 1):
        answer = next(session.answers("get"))
        if "size" not in answer:
            raise Refused(f"{number - 1} of the {count} files that were asked for")
        size = answer["size"]
        come += size
        if most is not None and come > most:
            raise Refused(f"more than {format_size(most)} where small files were asked for")
        check_free_space(one.folder, size)
        report(f"{number} of {count} files, {one.name.rpartition('/')[2]}, {format_size(size)}")
        with file_below(one.folder, one.name) as file:
            left = size
            while left > 0:
                got = session.frame(ANSWER_SECONDS)
                if got is None:
                    raise Lost
                kind, content = got
                if kind != frames.CONTENT or not 0 < len(content) <= left:
                    raise Refused(f"a file whose content is not the {size} bytes that were announced")
                left -= file.write(content)
        del files[0]
    for answer in session.answers("get"):
        if not answer.get("done"):
            raise Refused("more files than were asked for")


def for_copy(files: Sequence[tuple[str, str]], folder: Path) -> list[Wanted]:
    """What :func:`fetch` is to bring for files of a run that are wanted in a folder here. Nothing is overwritten.

    Args:
        files: The name in the run, and the path there.
        folder: The folder here, new or there.

    Raises:
        UserError: It is no folder, or one of them is there already.
        Refused: A name is none of a file in the folder.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{shown(folder)} is not a folder.", "Name a folder, new or there.")
    distinct([name for name, _path in files], "a file's name")
    wanted = [Wanted(path, folder, name) for name, path in files]
    there = [one.name for one in wanted if os.path.lexists(folder / one.name)]
    if there:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise UserError(f"{shown(folder / there[0])}{more} is there already.", "Copy into another folder.")
    for one in wanted:
        place_below(one.folder, one.name)
    return wanted


def bring_configurations(session: Session, places: Places, only_new: bool) -> list[str]:
    """Bring run configurations here that a task there has made or changed; their names.

    Before the task those there were as they are here, so what differs now has come from it.

    Args:
        session: The other machine.
        places: Where its paths are here.
        only_new: Leave alone those that are here already.

    Raises:
        UserError: One cannot be written here.
        Refused: What comes is not what was asked for.
        Lost: The connection is gone.
    """
    project = places.project
    digests = session.ask("digests", root=places.root, pattern=".azureml/*.runconfig")["digests"]
    for name in digests:
        if not _CONFIGURATION.fullmatch(name):
            raise Refused(f"a file that was not asked for: {name[:80]}")
    distinct(digests, "a run configuration")
    differing = [name for name, digest in sorted(digests.items()) if digest != _digest(project / name)]
    differing = [name for name in differing if not only_new or not os.path.lexists(project / name)]
    for name in differing:
        place_below(project, name)
    changed = []
    with scratch_folder() as folder:
        wanted = [Wanted(f"{places.root}/{name}", folder, name) for name in differing]
        fetch(session, wanted, lambda line: None, _CONFIGURATION_BYTES)
        for name in differing:
            text = _with_places_here((folder / name).read_bytes(), places)
            if not (project / name).is_file() or (project / name).read_bytes() != text:
                with file_below(project, name) as file:
                    file.write(text)
                changed.append(name)
    return changed


def _with_places_here(text: bytes, places: Places) -> bytes:
    """What was outside the project lies in a place of its own there; here it is where it was."""
    for place in places.outside:
        text = text.replace(places.relative(place).encode(), os.path.relpath(place, places.project).encode())
    return text


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
