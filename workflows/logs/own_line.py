"""The innermost line of the user's code in the traceback at the end of a log."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from .log_tail import tail_lines

#: Lines of a log's end in which the traceback is searched, and characters of each.
_LINES, _WIDTH = 400, 2000
_FRAME = re.compile(r'^\s*(?:\|\s*)*File "(?P<file>[^"]+)", line (?P<line>\d+)(?:, in .*)?$')
_BEGIN = "Traceback (most recent call last):"


def find_own_line(log: Path, mappings: Iterable[tuple[str, str]]) -> tuple[Path, int] | None:
    """Find the line of the user's code that led to a failure in other code.

    Args:
        log: The log.
        mappings: Folders of the user's code, each with its path in the program.

    Returns:
        The file on this machine and the line. None if there is no traceback, if its innermost line is in the user's
        code (and so easy to see), or if none of its lines is.
    """
    frames: list[tuple[str, int]] = []
    for line in tail_lines(log, _LINES, _WIDTH):
        if _BEGIN in line:
            # Of several chained exceptions, the last one is the one that was not caught.
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
            # Without Docker, scripts are run through links in the run's folder.
            path = (Path(local) / file[len(root) + 1 :]).resolve()
            return path if path.is_file() and "site-packages" not in path.parts else None
    return None
