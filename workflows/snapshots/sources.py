"""Where a frame's source is: in a file here that is still the same, else in the lines that were recorded."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from ..models import PathMapping
from ..reading import read_bytes
from .model import Frame

#: Empty lines that are put in front of recorded ones, so that they have their own numbers.
MOST_EMPTY = 200_000
_UNRECORDED = "# Not recorded: these lines are from the snapshot, and the file is not here as it was."


class Sources:
    """Looks for the files of a snapshot's frames; each is read once.

    Args:
        mappings: Where the code of the run lies here. That of the innermost folder counts, of several the first: a
            run's own folder may lie in the project's.
        guesses: Where it may lie: they count for files that are there.
    """

    def __init__(self, mappings: Sequence[PathMapping], guesses: Sequence[PathMapping] = ()) -> None:
        self._mappings, self._guesses = _innermost_first(mappings), tuple(guesses)
        self._same: dict[tuple[str, str], bool] = {}

    def prefer(self, mappings: Sequence[PathMapping]) -> None:
        """Try these before the others of the same folders."""
        self._mappings = _innermost_first([*mappings, *self._mappings])
        self._same.clear()

    def path(self, frame: Frame) -> str:
        """The path of a frame's file here; as it was recorded where nothing leads to one."""
        found = self.local(frame.file)
        return self.local(frame.real) if found == frame.file and frame.real else found

    def local(self, file: str) -> str:
        """The path here, where a mapping leads to one; else as it was recorded."""
        for mapping in self._mappings:
            if (found := _mapped(mapping, file)) is not None:
                return found
        for mapping in self._guesses:
            if (found := _mapped(mapping, file)) is not None and os.path.isfile(found):
                return found
        return file

    def is_same(self, frame: Frame) -> bool:
        """Whether the file here is the one that ran; without a checksum, whether the recorded lines are in it."""
        path = self.path(frame)
        key = (path, frame.sha256 or repr((frame.first, tuple(frame.lines))))
        if key not in self._same:
            self._same[key] = _is_same(path, frame)
        return self._same[key]


def _innermost_first(mappings: Sequence[PathMapping]) -> tuple[PathMapping, ...]:
    return tuple(sorted(mappings, key=lambda one: -len(one.remote_root.rstrip("/\\"))))


def _mapped(mapping: PathMapping, file: str) -> str | None:
    """A file below a mapping's local root; None where the mapping does not lead there."""
    root = mapping.remote_root.replace("\\", "/").rstrip("/")
    path = file.replace("\\", "/") if _is_windows(mapping.remote_root) else file
    if not root or not (path == root or path.startswith(f"{root}/")):
        return None
    parts = path[len(root) :].lstrip("/").split("/")
    return None if ".." in parts or "\0" in path else os.path.join(mapping.local_root, *parts)


def _is_windows(root: str) -> bool:
    return PureWindowsPath(root).is_absolute() and not PurePosixPath(root).is_absolute()


def _is_same(path: str, frame: Frame) -> bool:
    if not os.path.isabs(path):
        return False
    try:
        data = read_bytes(path)
    except (OSError, ValueError):
        return False
    if frame.sha256:
        return hashlib.sha256(data).hexdigest() == frame.sha256.lower()
    if not frame.lines:
        return True  # a library's file, for one: nothing says that it is another
    lines = data.decode("utf-8", "replace").splitlines()
    return lines[frame.first - 1 : frame.first - 1 + len(frame.lines)] == [one.rstrip("\r\n") for one in frame.lines]


def recorded_text(frames: Sequence[Frame], of: Frame) -> str:
    """The text of a file as far as it was recorded, each line at its number.

    Args:
        frames: All frames: several of one file have recorded several parts of it.
        of: The one that is looked at.
    """
    known: dict[int, str] = {}
    for frame in [*frames, of]:
        if (frame.file, frame.sha256) == (of.file, of.sha256):
            for number, line in enumerate(frame.lines, frame.first):
                if number <= MOST_EMPTY:
                    known[number] = line.rstrip("\r\n")
    if not known:
        return f"{_UNRECORDED}\n"
    lines = [""] * max(known)
    for number, line in known.items():
        lines[number - 1] = line
    if 1 not in known:
        lines[0] = _UNRECORDED
    return "\n".join(lines) + "\n"


def mappings_from(given: object) -> list[PathMapping]:
    """What a client says of where the code lies; what is none is left out, and so is what is relative."""
    found = []
    for one in given if isinstance(given, list) else ():
        local, remote = (one.get("localRoot"), one.get("remoteRoot")) if isinstance(one, dict) else (None, None)
        if isinstance(local, str) and isinstance(remote, str) and local and "\0" not in local + remote:
            whole = PurePosixPath(remote).is_absolute() or PureWindowsPath(remote).is_absolute()
            if whole and os.path.isabs(local):
                found.append(PathMapping(Path(local), remote))
    return found
