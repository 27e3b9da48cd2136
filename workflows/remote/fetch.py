"""Fetches files from the remote machine: what a run has written, and run configurations that were created there."""

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
from .remote_paths import RemotePaths
from .session import ANSWER_SECONDS, ConnectionLost, Session

#: The most bytes of all run configurations together.
_CONFIGURATION_BYTES = 16 << 20
_CONFIGURATION = re.compile(r"\.azureml/[^/]+\.runconfig")


@dataclass(frozen=True)
class RemoteFile:
    """A file of the remote machine that is to be fetched.

    Attributes:
        remote_path: Its path on the remote machine.
        folder: The local folder to which it is written.
        name: Its path below that folder.
    """

    remote_path: str
    folder: Path
    name: str


def fetch(session: Session, files: list[RemoteFile], report: Callable[[str], None], most: int | None = None) -> None:
    """Fetch files. Each is written atomically, readable by the user only and not executable.

    Args:
        session: The session with the remote machine.
        files: The files; those that have been fetched are removed from the list.
        report: Called with each line of progress.
        most: The most bytes of all files together; None for as much as there is free space.

    Raises:
        UserError: A file cannot be read there or written here.
        Refused: What arrives is not what was requested.
        ConnectionLost: The connection is gone.
    """
    for one in files:
        # Checked before the request, so that nothing arrives that cannot be written.
        place_below(one.folder, one.name)
    session.send(do="get", paths=[one.remote_path for one in files])
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
                    raise ConnectionLost
                kind, content = got
                if kind != frames.CONTENT or not 0 < len(content) <= left:
                    raise Refused(f"a file whose content is not the {size} bytes that were announced")
                left -= file.write(content)
        del files[0]
    for answer in session.answers("get"):
        if not answer.get("done"):
            raise Refused("more files than were asked for")


def files_to_copy(files: Sequence[tuple[str, str]], folder: Path) -> list[RemoteFile]:
    """The files for :func:`fetch` to copy from a run to a local folder. Nothing is overwritten.

    Args:
        files: Each file's name in the run, and its remote path.
        folder: The local folder, which need not exist.

    Raises:
        UserError: It is not a folder, or one of the files exists in it.
        Refused: A name leads out of the folder.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{shown(folder)} is not a folder.", "Name a folder; it may exist or not.")
    distinct([name for name, _path in files], "a file's name")
    wanted = [RemoteFile(path, folder, name) for name, path in files]
    existing = [one.name for one in wanted if os.path.lexists(folder / one.name)]
    if existing:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise UserError(f"{shown(folder / existing[0])}{more} is there already.", "Copy into another folder.")
    for one in wanted:
        place_below(one.folder, one.name)
    return wanted


def fetch_run_configurations(session: Session, paths: RemotePaths, only_new: bool) -> list[str]:
    """Fetch the run configurations that a remote task has created or changed, and return their names.

    Before the task the remote ones were the same as the local ones, so the task has made every difference.

    Args:
        session: The session with the remote machine.
        paths: Translates paths between the two machines.
        only_new: Fetch only those that do not exist locally.

    Raises:
        UserError: One cannot be written here.
        Refused: What arrives is not what was requested.
        ConnectionLost: The connection is gone.
    """
    project = paths.project
    digests = session.request("digests", root=paths.root, pattern=".azureml/*.runconfig")["digests"]
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
        wanted = [RemoteFile(f"{paths.root}/{name}", folder, name) for name in differing]
        fetch(session, wanted, lambda line: None, _CONFIGURATION_BYTES)
        for name in differing:
            text = _with_local_paths((folder / name).read_bytes(), paths)
            if not (project / name).is_file() or (project / name).read_bytes() != text:
                with file_below(project, name) as file:
                    file.write(text)
                changed.append(name)
    return changed


def _with_local_paths(text: bytes, paths: RemotePaths) -> bytes:
    """The text with the remote paths of folders outside the project replaced by the local ones."""
    for place in paths.outside:
        text = text.replace(paths.relative(place).encode(), os.path.relpath(place, paths.project).encode())
    return text


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
