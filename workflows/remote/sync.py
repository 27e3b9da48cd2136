"""Sends the project: only changes, with deletions. Each file is replaced atomically."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..formatting import format_size
from ..project import read_json, state_folder, write_bytes
from . import frames
from .local_files import LocalFile
from .session import WORK_SECONDS, ConnectionLost, Session

#: Bytes above which the user has to confirm the transfer.
CONFIRM_BYTES = 500_000_000
#: Seconds between two lines of progress.
_SHOW_SECONDS = 0.2
#: Bytes up to which small files are combined, for fewer writes.
_BATCH = 512 * 1024


@dataclass(frozen=True)
class SyncResult:
    """The result of a synchronisation.

    Attributes:
        root: The absolute path of the remote project folder.
        sent: The number of files that were sent.
        deleted: The number of files that were deleted there.
        size: Bytes that were sent.
        files: The number of files in the project.
        kept: Where remote files were moved that had been changed there and would have been overwritten.
    """

    root: str
    sent: int
    deleted: int
    size: int
    files: int
    kept: tuple[str, ...] = ()


@dataclass(frozen=True)
class Changes:
    """The differences between the local and the remote files."""

    send: list[LocalFile]
    delete: list[str]

    @property
    def size(self) -> int:
        """Bytes to send."""
        return sum(one.size for one in self.send)


def changes(here: Mapping[str, LocalFile], there: Mapping[str, list[Any]], drifted: Iterable[str]) -> Changes:
    """The files to send and to delete so that the remote files are the same as the local ones.

    Args:
        here: The local files, by path.
        there: The files that were sent before: size, time and mode by path.
        drifted: Remote files that have changed since they were sent.
    """
    again = set(drifted)
    send = [one for path, one in here.items() if path in again or there.get(path, [])[:3] != one.key]
    return Changes(send, [path for path in there if path not in here])


class Manifest:
    """The local record of the remote files, so that they need not be requested each time."""

    def __init__(self, project: Path, name: str) -> None:
        self._path = state_folder(project, "remote") / f"files-{name}.json"
        self._known = read_json(self._path) or {}

    @property
    def sync(self) -> str:
        """The identifier of the remote state that it describes; empty for none."""
        return str(self._known.get("sync", ""))

    @property
    def files(self) -> dict[str, list[Any]]:
        """By path: size, time and mode as sent."""
        files: dict[str, list[Any]] = self._known.get("files", {})
        return files

    def keep(self, sync: str, files: Mapping[str, LocalFile], left: Mapping[str, list[Any]]) -> None:
        """Save the record for the next synchronisation.

        Args:
            sync: The identifier of the remote state.
            files: The files of this synchronisation.
            left: Files of earlier ones that still exist on the remote machine.
        """
        found = {path: entry[:3] for path, entry in left.items()}
        found |= {path: one.key for path, one in files.items()}
        if found != self.files or sync != self.sync:
            # Without indentation, which would take long for thousands of files.
            write_bytes(self._path, json.dumps({"sync": sync, "files": found}).encode(), private=True)


def send(
    session: Session,
    do: str,
    wanted: Changes,
    report: Callable[[str], None],
    **request: Any,
) -> tuple[Mapping[str, Any], dict[str, LocalFile]]:
    """Send files and deletions; return the answer, and the files as they were when they were read.

    Raises:
        UserError: The remote machine cannot write them.
        ConnectionLost: The connection is gone.
    """
    session.send(do=do, delete=wanted.delete, **request)
    read: dict[str, LocalFile] = {}
    batch = bytearray()
    progress = _Progress(report, wanted)
    try:
        for one in wanted.send:
            current = _pack(session, one, batch, progress)
            if current is not None:
                read[one.path] = current
            if len(batch) > _BATCH:
                session.send_raw(bytes(batch))
                batch.clear()
        session.send_raw(bytes(batch) + frames.message({"end": True}))
    except ConnectionLost:
        # The agent may have sent the reason before it closed the connection.
        for answer in session.answers(do, 5):
            if answer.get("done"):
                break
        raise
    for answer in session.answers(do, WORK_SECONDS):
        if "line" in answer:
            report(answer["line"])
        elif answer.get("done"):
            return answer, read
    raise ConnectionLost


class _Progress:
    def __init__(self, report: Callable[[str], None], wanted: Changes) -> None:
        self._report, self._total, self._count = report, wanted.size, len(wanted.send)
        self._done = self._files = 0
        self._last = time.monotonic()

    def add(self, size: int, files: int = 0) -> None:
        self._done += size
        self._files += files
        if time.monotonic() - self._last > _SHOW_SECONDS and sys.stderr.isatty() | sys.stdout.isatty():
            self._last = time.monotonic()
            self._report(
                f"{self._files} of {self._count} files, {format_size(self._done)} of {format_size(self._total)}"
            )


def _pack(session: Session, one: LocalFile, batch: bytearray, progress: _Progress) -> LocalFile | None:
    """Add a file to the batch; return None if it is gone. A file that is edited meanwhile is sent again next time."""
    if one.link:
        batch += frames.message(
            {"path": one.path, "size": one.size, "time": one.time, "mode": one.mode, "link": one.link}
        )
        progress.add(0, 1)
        return one
    try:
        with open(one.full, "rb") as file:
            seen = os.fstat(file.fileno())
            current = LocalFile(one.path, one.full, seen.st_size, seen.st_mtime_ns, one.mode)
            head = {"path": one.path, "size": seen.st_size, "time": seen.st_mtime_ns, "mode": one.mode}
            batch += frames.message(head)
            left, short = seen.st_size, False
            while left > 0:
                data = file.read(min(frames.CHUNK, left))
                if not data:
                    # The file was truncated meanwhile: pad it to the announced length.
                    short, data = True, b"\0" * min(frames.CHUNK, left)
                left -= len(data)
                batch += frames.frame(frames.CONTENT, data)
                progress.add(len(data))
                if len(batch) > _BATCH:
                    session.send_raw(bytes(batch))
                    batch.clear()
            after = os.fstat(file.fileno())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(
            f"{one.path} cannot be read: {error.strerror}.", "Make it readable, or put it into .gitignore."
        ) from error
    progress.add(0, 1)
    edited = short or (after.st_mtime_ns, after.st_size) != (seen.st_mtime_ns, seen.st_size)
    # With a time that no file has, the next synchronisation sends it again.
    return LocalFile(one.path, one.full, current.size, -1, one.mode) if edited else current


def confirm_size(console_line: Callable[[str], None], what: str, size: int, yes: bool) -> None:
    """Ask the user to confirm a large transfer.

    Raises:
        UserError: The user does not confirm it, or there is no terminal to ask on.
    """
    if size <= CONFIRM_BYTES or yes:
        return
    if not sys.stdin.isatty():
        raise UserError(
            f"{what} would be sent, {format_size(size)} in all.",
            "If that is meant: inv remote.sync --yes, then run this again; or leave it out with .gitignore.",
        )
    console_line(f"{what} would be sent, {format_size(size)} in all.")
    sys.stderr.write("Send it? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UserError("Nothing was sent.", "Leave out what is too large with .gitignore, or name other data.")
