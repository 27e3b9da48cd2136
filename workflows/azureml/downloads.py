"""What lies in a workspace and is brought to this machine: which files, to which place, and only once."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..console import Console, Step, show
from ..errors import UserError
from ..formatting import format_size
from ..ignore_files import MOST_WILDCARDS, has_many_wildcards
from ..paths import cache_folder
from ..received import Refused, distinct, relative_path
from ..settings import Settings

_WILD = re.compile(r"[*?]")
#: Seconds between two lines of progress.
_TOLD_EVERY = 1.0


@dataclass(frozen=True)
class Blob:
    """A file on a datastore.

    Attributes:
        name: Its path on the datastore.
        size: Bytes.
        version: Changes with its content (the blob's ETag).
    """

    name: str
    size: int
    version: str


@dataclass(frozen=True)
class DownloadSource:
    """What of a datastore is wanted.

    Attributes:
        path: Its path there, without slashes at its ends; empty for all of it.
        label: What it is called in a message.
        store: What the datastore is called in one.
        plain: Whether ``*`` and ``?`` are letters like all others.
    """

    path: str
    label: str
    store: str
    plain: bool = False

    @property
    def has_wildcards(self) -> bool:
        """Whether its path has wildcards."""
        return not self.plain and _WILD.search(self.path) is not None

    @property
    def base(self) -> str:
        """What all of its files' paths begin with."""
        found = None if self.plain else _WILD.search(self.path)
        return self.path[: found.start()].rpartition("/")[0] if found else self.path


def downloads_folder() -> Path:
    """The folder of what is brought here."""
    return cache_folder() / "data"


def list_files(wanted: DownloadSource, list_blobs: Callable[[str], Iterable[Blob]]) -> dict[str, Blob]:
    """The files of a place, by their paths below it.

    Args:
        wanted: The place.
        list_blobs: Lists the files whose paths begin so.

    Raises:
        UserError: There is none, or one has a path that cannot be one here.
    """
    if not wanted.plain and has_many_wildcards(wanted.path):
        raise UserError(
            f"{wanted.label} has more than {MOST_WILDCARDS} wildcards.", "Name a folder, or use fewer of them."
        )
    # Wildcards are left out of what the service is asked for, with the part of the path that they stand in.
    base, has_wildcards = wanted.base, wanted.has_wildcards
    pattern = re.compile(_pattern(wanted.path)) if has_wildcards else None
    found: dict[str, Blob] = {}
    for blob in list_blobs(base):
        if not has_wildcards and blob.name == base:
            _see_path(PurePosixPath(base).name, blob, wanted)
            return {PurePosixPath(base).name: blob}
        if base and not blob.name.startswith(f"{base}/"):
            continue
        if pattern is not None and not pattern.fullmatch(blob.name):
            continue
        inside = blob.name[len(base) :].removeprefix("/") if wanted.plain else blob.name[len(base) :].lstrip("/")
        _see_path(inside, blob, wanted)
        if inside in found:
            raise Refused(f"the same file twice: {inside[:80]}")
        found[inside] = blob
    distinct(found, "a file's path")
    if not found:
        raise UserError(
            f"There is nothing at {wanted.label}.",
            "Correct the path; https://ml.azure.com, Data, Datastores, shows it.",
        )
    return found


def is_file(wanted: DownloadSource, files: dict[str, Blob]) -> bool:
    """Whether a place is one file rather than a folder."""
    return [blob.name for blob in files.values()] == [wanted.path]


def _see_path(inside: str, blob: Blob, wanted: DownloadSource) -> None:
    """Check that a file's path can be one here.

    Raises:
        UserError: It cannot.
    """
    try:
        relative_path(inside, "a file's path")
    except Refused as error:
        raise UserError(
            f"{blob.name[:200]} on {wanted.store} has a path that no file here can have.",
            "Rename it there, or name a folder without it.",
        ) from error


def _pattern(path: str) -> str:
    """A regular expression for a path with wildcards: ``**`` goes through folders, ``*`` and ``?`` do not."""
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(words.get(part) or re.escape(part) for part in re.split(r"(\*\*/|\*\*|\*|\?)", path) if part)


def content_key(files: dict[str, Blob], *more: object) -> str:
    """A name that changes with any of the files."""
    return short_digest([*more, *([inside, blob.size, blob.version] for inside, blob in files.items())])


def confirm_download(
    settings: Settings, console: Console, step: Step, label: str, size: int, folder: Path, where: str = ""
) -> None:
    """Have somebody agree to a large download.

    Args:
        settings: How much may come unasked.
        console: Where somebody is asked.
        step: What is under way.
        label: What is downloaded.
        size: Bytes.
        folder: Where it goes.
        where: Where it lies.

    Raises:
        UserError: Nobody is there, or somebody does not.
    """
    most = settings.download_mb * 1_000_000
    if size <= most:
        return
    problem = f"{label} has {format_size(size)}{f' ({where})' if where else ''}"
    limit = f"--download-mb {-(-size // 1_000_000)}, or AML_DOWNLOAD_MB"
    if not (sys.stdin is not None and sys.stdin.isatty() and console.terminal):
        raise UserError(
            f"{problem}, and more than {format_size(most)} are not downloaded without asking.", f"Allow it: {limit}."
        )
    step.close()
    show(f"{problem}. Download it to {folder}? [y/N] ", console.stream)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UserError(f"{label} was not downloaded.", f"Do without, or allow it: {limit}.")


def check_free_space(label: str, size: int, folder: Path) -> None:
    """Check that a disk has room for so many bytes.

    Raises:
        UserError: It has not.
    """
    free = shutil.disk_usage(folder).free
    if size > free:
        raise UserError(
            f"{label} has {format_size(size)}, and there is room for {format_size(free)} in {folder}.",
            "Make room, or name another folder in XDG_CACHE_HOME.",
        )


@contextmanager
def download_lock(path: Path, waiting: Callable[[str], None]) -> Iterator[None]:
    """While no other command fetches the same.

    Args:
        path: The lock's file.
        waiting: Told what is waited for.
    """
    from ..locks import hold

    # As long as it takes: what is fetched may be of any size, and the reason is on the screen.
    with hold(path, math.inf, pause=0.2, waiting=lambda: waiting("another command that fetches the same data")):
        yield


class Progress:
    """How much of the data is here; several threads may tell of it.

    Args:
        report: Called with each line.
        name: What the data is called.
        files: How many files it has.
        size: Bytes.
    """

    def __init__(self, report: Callable[[str], None], name: str, files: int, size: int) -> None:
        self._report, self._name, self._files, self._size = report, name, files, size
        self._done = self._bytes = 0
        self._lock = threading.Lock()
        self._told = time.monotonic()
        self._tell(0)

    def received(self, count: int) -> None:
        """So many bytes of the file that is being fetched are here."""
        with self._lock:
            self._tell_now_and_then(count)

    def next(self, size: int) -> None:
        """A file of so many bytes is here."""
        with self._lock:
            self._done, self._bytes = self._done + 1, self._bytes + size

    def add(self, count: int, files: int = 0) -> None:
        """So many bytes more are here, and so many files with them."""
        with self._lock:
            self._done, self._bytes = self._done + files, self._bytes + count
            self._tell_now_and_then(0)

    def report(self, line: str) -> None:
        """Show a line of something else."""
        with self._lock:
            self._report(line)

    def _tell_now_and_then(self, count: int) -> None:
        if time.monotonic() - self._told >= _TOLD_EVERY:
            self._told = time.monotonic()
            self._tell(count)

    def _tell(self, count: int) -> None:
        of = f"{self._done} of {self._files} file{'' if self._files == 1 else 's'}"
        self._report(f"{self._name}: {of}, {format_size(self._bytes + count)} of {format_size(self._size)}")


def short_digest(value: Sequence[object]) -> str:
    """A short name for a value."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
