"""Downloads from a workspace's storage: which files belong to a path, where they are kept, and progress."""

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
#: Seconds between two reports of progress.
_REPORT_SECONDS = 1.0


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
    """A path on a datastore that is to be downloaded.

    Attributes:
        path: The path, without slashes at its ends; empty for the whole datastore.
        label: The path's name in messages.
        store: The datastore's name in messages.
        plain: Whether ``*`` and ``?`` are ordinary characters rather than wildcards.
    """

    path: str
    label: str
    store: str
    plain: bool = False

    @property
    def has_wildcards(self) -> bool:
        """Whether the path has wildcards."""
        return not self.plain and _WILD.search(self.path) is not None

    @property
    def base(self) -> str:
        """The folder or file that all matching paths begin with."""
        found = None if self.plain else _WILD.search(self.path)
        return self.path[: found.start()].rpartition("/")[0] if found else self.path


def downloads_folder() -> Path:
    """The cache folder for downloads."""
    return cache_folder() / "data"


def list_files(wanted: DownloadSource, list_blobs: Callable[[str], Iterable[Blob]]) -> dict[str, Blob]:
    """The files at a path of a datastore, by their paths below it.

    Args:
        wanted: The path.
        list_blobs: Lists the files whose paths begin with a prefix.

    Raises:
        UserError: There is no file, or one has a path that is not possible here.
    """
    if not wanted.plain and has_many_wildcards(wanted.path):
        raise UserError(
            f"{wanted.label} has more than {MOST_WILDCARDS} wildcards.", "Name a folder, or use fewer of them."
        )
    # The prefix for the service ends before the first part of the path that has wildcards.
    base, has_wildcards = wanted.base, wanted.has_wildcards
    pattern = re.compile(_pattern(wanted.path)) if has_wildcards else None
    found: dict[str, Blob] = {}
    for blob in list_blobs(base):
        if not has_wildcards and blob.name == base:
            _check_path(PurePosixPath(base).name, blob, wanted)
            return {PurePosixPath(base).name: blob}
        if base and not blob.name.startswith(f"{base}/"):
            continue
        if pattern is not None and not pattern.fullmatch(blob.name):
            continue
        inside = blob.name[len(base) :].removeprefix("/") if wanted.plain else blob.name[len(base) :].lstrip("/")
        _check_path(inside, blob, wanted)
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
    """Whether a path is a single file rather than a folder."""
    return [blob.name for blob in files.values()] == [wanted.path]


def _check_path(inside: str, blob: Blob, wanted: DownloadSource) -> None:
    """Check that a file's path is possible on this machine.

    Raises:
        UserError: It is not.
    """
    try:
        relative_path(inside, "a file's path")
    except Refused as error:
        raise UserError(
            f"{blob.name[:200]} on {wanted.store} has a path that no file here can have.",
            "Rename it there, or name a folder without it.",
        ) from error


def _pattern(path: str) -> str:
    """A regular expression for a path with wildcards: ``**`` matches across folders, ``*`` and ``?`` do not."""
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(words.get(part) or re.escape(part) for part in re.split(r"(\*\*/|\*\*|\*|\?)", path) if part)


def content_key(files: dict[str, Blob], *more: object) -> str:
    """A name that changes with any of the files."""
    return short_digest([*more, *([inside, blob.size, blob.version] for inside, blob in files.items())])


def confirm_download(
    settings: Settings, console: Console, step: Step, label: str, size: int, folder: Path, where: str = ""
) -> None:
    """Ask the user to confirm a large download.

    Args:
        settings: Up to which size no confirmation is needed.
        console: Where the question is asked.
        step: The step that is under way.
        label: What is downloaded.
        size: Its size in bytes.
        folder: Where it is saved.
        where: Where it comes from.

    Raises:
        UserError: There is no terminal to ask at, or the user declines.
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
    """Check that a folder's disk has enough free space.

    Args:
        label: What is downloaded.
        size: Its size in bytes.
        folder: The folder.

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
    """Hold a lock, so that no other command downloads the same data.

    Args:
        path: The lock's file.
        waiting: Called with what is being waited for.
    """
    from ..locks import hold

    # There is no limit: the data may be of any size, and the screen shows what is waited for.
    with hold(path, math.inf, pause=0.2, waiting=lambda: waiting("another command that fetches the same data")):
        yield


class Progress:
    """Counts what has been downloaded and reports it. Several threads may use it.

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
        self._reported_at = time.monotonic()
        self._report_now(0)

    def update_current(self, count: int) -> None:
        """Report that `count` bytes of the current file have arrived."""
        with self._lock:
            self._report_sometimes(count)

    def finish_file(self, size: int) -> None:
        """Count a file of `size` bytes as complete."""
        with self._lock:
            self._done, self._bytes = self._done + 1, self._bytes + size

    def add(self, count: int, files: int = 0) -> None:
        """Count `count` more bytes and `files` more complete files."""
        with self._lock:
            self._done, self._bytes = self._done + files, self._bytes + count
            self._report_sometimes(0)

    def report(self, line: str) -> None:
        """Report another line."""
        with self._lock:
            self._report(line)

    def _report_sometimes(self, count: int) -> None:
        if time.monotonic() - self._reported_at >= _REPORT_SECONDS:
            self._reported_at = time.monotonic()
            self._report_now(count)

    def _report_now(self, count: int) -> None:
        of = f"{self._done} of {self._files} file{'' if self._files == 1 else 's'}"
        self._report(f"{self._name}: {of}, {format_size(self._bytes + count)} of {format_size(self._size)}")


def short_digest(value: Sequence[object]) -> str:
    """A short hash of a value, for names of files."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
