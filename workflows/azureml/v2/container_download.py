"""Downloads a container's files into a folder: several at once, large ones in parts, and resumes after a failure."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from ...private import make_folder, open_file
from ..downloads import Blob, Progress, short_digest
from .storage import Container

#: Concurrent requests, and the bytes of one request.
WORKERS, PART_BYTES = 8, 16 << 20
#: Seconds between two checks for Ctrl-C.
_LOOK = 0.2


@dataclass
class _File:
    """A file that is downloaded.

    Attributes:
        blob: The file, as it was listed.
        target: Its path when it is complete.
        partial: Its path until then.
        missing: The parts that are not here yet.
    """

    blob: Blob
    target: Path
    partial: Path
    missing: set[int] = field(default_factory=set)

    @property
    def journal(self) -> Path:
        """The file with the numbers of the parts that are here, one per line."""
        return self.partial.with_suffix(".parts")

    @property
    def parts(self) -> int:
        return max(1, -(-self.blob.size // PART_BYTES))

    def bounds(self, number: int) -> tuple[int, int]:
        """Where a part begins and ends."""
        return number * PART_BYTES, min((number + 1) * PART_BYTES, self.blob.size)


class Download:
    """Downloads a folder. It continues what an earlier command has downloaded.

    Args:
        container: The container with the files.
        files: The files, by their paths in the folder.
        part: The folder for the download until it is complete.
        progress: Counts what has arrived.
    """

    def __init__(self, container: Container, files: Mapping[str, Blob], part: Path, progress: Progress) -> None:
        self._container, self._files, self._progress = container, files, progress
        self._complete, self._in_progress = part / "files", part / "open"
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._failed: list[BaseException] = []

    def present_bytes(self) -> int:
        """The number of bytes that are already here."""
        found = 0
        for inside, blob in self._files.items():
            file = self._file(inside, blob)
            if _is_complete(file):
                found += blob.size
            else:
                found += sum(file.bounds(one)[1] - file.bounds(one)[0] for one in _read_journal(file))
        return found

    def run(self) -> Path:
        """Download everything; returns the folder with the files.

        Raises:
            UserError: The download failed. What has arrived is kept for the next time.
        """
        make_folder(self._complete)
        make_folder(self._in_progress)
        jobs = self._jobs()
        threads = [threading.Thread(target=self._work, args=(jobs,), daemon=True) for _ in range(WORKERS)]
        try:
            for one in threads:
                one.start()
            for one in threads:
                while one.is_alive() and not self._failed:
                    one.join(_LOOK)
        finally:
            self._stopped.set()
        if self._failed:
            raise self._failed[0]
        shutil.rmtree(self._in_progress)
        return self._complete

    def _file(self, inside: str, blob: Blob) -> _File:
        return _File(blob, self._complete / inside, self._in_progress / short_digest([inside]))

    def _jobs(self) -> Iterator[tuple[_File, int]]:
        """The parts of files to download, in the files' order."""
        for inside, blob in self._files.items():
            file = self._file(inside, blob)
            if _is_complete(file):
                self._progress.add(blob.size, 1)
                continue
            make_folder(file.target.parent)
            if file.parts == 1:
                file.missing = {0}
            else:
                known = _read_journal(file)
                with open_file(file.partial, "ab") as grown:
                    grown.truncate(blob.size)
                self._progress.add(sum(file.bounds(one)[1] - file.bounds(one)[0] for one in known))
                file.missing = set(range(file.parts)) - known
            # The set changes during the iteration, so a sorted copy is used.
            for number in sorted(file.missing) or [-1]:
                yield file, number

    def _work(self, jobs: Iterator[tuple[_File, int]]) -> None:
        try:
            while not self._stopped.is_set():
                with self._lock:
                    job = next(jobs, None)
                if job is None:
                    return
                self._fetch(*job)
        except BaseException as error:
            # It is raised in the thread that waits.
            self._failed.append(error)
            self._stopped.set()

    def _fetch(self, file: _File, number: int) -> None:
        if number >= 0:
            start, end = file.bounds(number)
            with open_file(file.partial, "wb" if file.parts == 1 else "r+b") as target:
                target.seek(start)
                if end > start:
                    self._read(file.blob, start, end, target)
                if file.parts > 1:
                    # A part is recorded only when it is on the disk.
                    target.flush()
                    os.fsync(target.fileno())
        with self._lock:
            if file.parts > 1 and number >= 0:
                with open_file(file.journal, "a") as journal:
                    journal.write(f"{number}\n")
            file.missing.discard(number)
            done = not file.missing
        if done:
            # The next run would take a script's changes to it for the workspace's data.
            file.partial.chmod(0o400)
            os.replace(file.partial, file.target)
            self._progress.add(0, 1)

    def _read(self, blob: Blob, start: int, end: int, target: IO[bytes]) -> None:
        def take(content: bytes) -> None:
            if self._stopped.is_set():
                raise _Stopped
            target.write(content)
            self._progress.add(len(content))

        self._container.read(blob, start, end, take, self._progress.report)


class _Stopped(BaseException):
    """Another thread has failed, or the user has pressed Ctrl-C."""


def _is_complete(file: _File) -> bool:
    try:
        return file.target.stat().st_size == file.blob.size
    except OSError:
        return False


def _read_journal(file: _File) -> set[int]:
    """The parts of a large file that are here."""
    try:
        lines = file.journal.read_text("ascii").split("\n")[:-1]
        if file.partial.stat().st_size != file.blob.size:
            return set()
    except (OSError, ValueError):
        return set()
    return {int(line) for line in lines if line.isdigit() and int(line) < file.parts}
