"""Files of a container brought into a folder: several at once, large ones in parts, and on from where it broke off."""

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

#: Requests at once, and bytes of one.
WORKERS, PART_BYTES = 8, 16 << 20
#: Seconds between two looks at Ctrl-C.
_LOOK = 0.2


@dataclass
class _File:
    """A file that is fetched.

    Attributes:
        blob: What was listed.
        target: Where it lies once it is whole.
        partial: Where it grows.
        left: The parts that are not here yet.
    """

    blob: Blob
    target: Path
    partial: Path
    left: set[int] = field(default_factory=set)

    @property
    def journal(self) -> Path:
        """The numbers of the parts that are here, a line each."""
        return self.partial.with_suffix(".parts")

    @property
    def parts(self) -> int:
        return max(1, -(-self.blob.size // PART_BYTES))

    def bounds(self, number: int) -> tuple[int, int]:
        """Where a part begins and ends."""
        return number * PART_BYTES, min((number + 1) * PART_BYTES, self.blob.size)


class Download:
    """A folder on its way. What an earlier command has brought of it stays.

    Args:
        container: Where the files lie.
        files: The files, by their paths in the folder.
        part: The folder's place until it is whole.
        progress: Told what is here.
    """

    def __init__(self, container: Container, files: Mapping[str, Blob], part: Path, progress: Progress) -> None:
        self._container, self._files, self._progress = container, files, progress
        self._whole, self._open = part / "files", part / "open"
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._failed: list[BaseException] = []

    def here(self) -> int:
        """Bytes of it that are here already."""
        found = 0
        for inside, blob in self._files.items():
            file = self._file(inside, blob)
            if _is_whole(file):
                found += blob.size
            else:
                found += sum(file.bounds(one)[1] - file.bounds(one)[0] for one in _noted(file))
        return found

    def run(self) -> Path:
        """Bring all of it; the folder with the files.

        Raises:
            UserError: It cannot be had. What is here stays for the next time.
        """
        make_folder(self._whole)
        make_folder(self._open)
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
        shutil.rmtree(self._open)
        return self._whole

    def _file(self, inside: str, blob: Blob) -> _File:
        return _File(blob, self._whole / inside, self._open / short_digest([inside]))

    def _jobs(self) -> Iterator[tuple[_File, int]]:
        """What is to be read: parts of files, in the files' order."""
        for inside, blob in self._files.items():
            file = self._file(inside, blob)
            if _is_whole(file):
                self._progress.add(blob.size, 1)
                continue
            make_folder(file.target.parent)
            if file.parts == 1:
                file.left = {0}
            else:
                known = _noted(file)
                with open_file(file.partial, "ab") as grown:
                    grown.truncate(blob.size)
                self._progress.add(sum(file.bounds(one)[1] - file.bounds(one)[0] for one in known))
                file.left = set(range(file.parts)) - known
            # The set gets smaller while the parts are handed out.
            for number in sorted(file.left) or [-1]:
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
            # Raised where the others are waited for.
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
                    # Noted only once it is on the disk.
                    target.flush()
                    os.fsync(target.fileno())
        with self._lock:
            if file.parts > 1 and number >= 0:
                with open_file(file.journal, "a") as journal:
                    journal.write(f"{number}\n")
            file.left.discard(number)
            done = not file.left
        if done:
            # What a script writes into it would be taken for the workspace's by the next run.
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
    """Another thread has failed, or somebody has pressed Ctrl-C."""


def _is_whole(file: _File) -> bool:
    try:
        return file.target.stat().st_size == file.blob.size
    except OSError:
        return False


def _noted(file: _File) -> set[int]:
    """The parts of a large file that are here."""
    try:
        lines = file.journal.read_text("ascii").split("\n")[:-1]
        if file.partial.stat().st_size != file.blob.size:
            return set()
    except (OSError, ValueError):
        return set()
    return {int(line) for line in lines if line.isdigit() and int(line) < file.parts}
