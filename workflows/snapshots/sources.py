"""Finding a frame's source: in a local file that is still the same, else in the recorded lines."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from ..models import PathMapping
from ..reading import read_bytes
from .model import Frame

#: Empty lines that are put in front of recorded lines at most, so that they keep their numbers.
MOST_EMPTY = 200_000
_UNRECORDED = "# Not recorded: these lines are from the snapshot, and the file is not here as it was."


class Sources:
    """Finds the local files of a snapshot's frames; each is read once.

    Args:
        mappings: Where the run's code is on this machine. The mapping of the innermost folder counts, since a run's
            folder may be inside the project's; of several, the first.
        guesses: Where it may be: used for files that exist there.
    """

    def __init__(self, mappings: Sequence[PathMapping], guesses: Sequence[PathMapping] = ()) -> None:
        self._mappings, self._guesses = _innermost_first(mappings), tuple(guesses)
        self._same: dict[tuple[str, str], bool] = {}

    def prefer(self, mappings: Sequence[PathMapping]) -> None:
        """Use these mappings before others of the same folders."""
        self._mappings = _innermost_first([*mappings, *self._mappings])
        self._same.clear()

    def path(self, frame: Frame) -> str:
        """The local path of a frame's file; the recorded path if no mapping covers it."""
        found = self.local(frame.file)
        return self.local(frame.real) if found == frame.file and frame.real else found

    def local(self, file: str) -> str:
        """The local path of a recorded path; the recorded path if no mapping covers it."""
        for mapping in self._mappings:
            if (found := _mapped(mapping, file)) is not None:
                return found
        for mapping in self._guesses:
            if (found := _mapped(mapping, file)) is not None and os.path.isfile(found):
                return found
        return file

    def is_same(self, frame: Frame) -> bool:
        """Whether the local file is the one that ran; without a checksum, whether it has the recorded lines."""
        path = self.path(frame)
        key = (path, frame.sha256 or repr((frame.first, tuple(frame.lines))))
        if key not in self._same:
            self._same[key] = _is_same(path, frame)
        return self._same[key]


def _innermost_first(mappings: Sequence[PathMapping]) -> tuple[PathMapping, ...]:
    return tuple(sorted(mappings, key=lambda one: -len(one.remote_root.rstrip("/\\"))))


def _mapped(mapping: PathMapping, file: str) -> str | None:
    """The path of a file below a mapping's local root; None if the mapping does not cover it."""
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
        return True  # such as a library's file: nothing indicates that it differs
    lines = data.decode("utf-8", "replace").splitlines()
    return lines[frame.first - 1 : frame.first - 1 + len(frame.lines)] == [one.rstrip("\r\n") for one in frame.lines]


def recorded_text(frames: Sequence[Frame], of: Frame) -> str:
    """The recorded part of a file's text, with each line at its number.

    Args:
        frames: All frames: each frame of a file has recorded a part of it.
        of: The frame whose file it is.
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
    """Parse a client's path mappings; invalid and relative ones are ignored."""
    found = []
    for one in given if isinstance(given, list) else ():
        local, remote = (one.get("localRoot"), one.get("remoteRoot")) if isinstance(one, dict) else (None, None)
        if isinstance(local, str) and isinstance(remote, str) and local and "\0" not in local + remote:
            whole = PurePosixPath(remote).is_absolute() or PureWindowsPath(remote).is_absolute()
            if whole and os.path.isabs(local):
                found.append(PathMapping(Path(local), remote))
    return found
