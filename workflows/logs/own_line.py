"""The innermost line of a person's own code in the traceback that ends a log."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from .log_tail import tail_lines

#: Lines of a log's end in which its traceback is looked for, and letters of each.
_LINES, _WIDTH = 400, 2000
_FRAME = re.compile(r'^\s*(?:\|\s*)*File "(?P<file>[^"]+)", line (?P<line>\d+)(?:, in .*)?$')
_BEGIN = "Traceback (most recent call last):"


def find_own_line(log: Path, mappings: Iterable[tuple[str, str]]) -> tuple[Path, int] | None:
    """Where a failure outside a person's code came from in it.

    Args:
        log: The log.
        mappings: Folders of the person's code, each with its place as the program saw it.

    Returns:
        The file on this machine and the line; None where there is no traceback, or its innermost line is the
        person's own and is the first that anybody reads, or none of its lines is.
    """
    frames: list[tuple[str, int]] = []
    for line in tail_lines(log, _LINES, _WIDTH):
        if _BEGIN in line:
            # Of several that one led to another, the last is what was not caught.
            frames = []
        elif match := _FRAME.match(line):
            frames.append((match["file"], int(match["line"])))
    own = [(place, number) for file, number in frames if (place := _local(file, mappings)) is not None]
    if not own or _local(frames[-1][0], mappings) is not None:
        return None
    return own[-1]


def _local(file: str, mappings: Iterable[tuple[str, str]]) -> Path | None:
    for local, remote in mappings:
        root = remote.rstrip("/")
        if file == root or file.startswith(root + "/"):
            # Without Docker scripts are reached by links in the run's folder.
            path = (Path(local) / file[len(root) + 1 :]).resolve()
            return path if path.is_file() and "site-packages" not in path.parts else None
    return None
