"""The last lines of a log, for error messages."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import BinaryIO

# Bytes of the end that are read: the smallest of these that holds the requested lines.
_SIZES = (16 * 1024, 128 * 1024, 1024 * 1024)

_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # colours and movements
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # titles and links
    r"|\x1b[ -/]*[0-~]"
    r"|[\x00-\x08\x0a-\x1f\x7f-\x9f]"
)


def tail_lines(path: Path, count: int, width: int = 500) -> list[str]:
    """The last lines of a log as text without control characters; empty if there is no log.

    At most 1 MiB of the file's end is read, however long its last line is. A longer line is cut to `width` characters,
    including an ellipsis: at its end, or at its start if that was not read. Blank lines at the end do not count.
    """
    try:
        lines, whole = _end(path, count)
    except FileNotFoundError:
        return []
    shown = []
    for number, line in enumerate(lines):
        # A progress bar overwrites itself: only what follows the last carriage return counts.
        text = _CONTROL.sub("", line.rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", "replace"))
        if number == 0 and not whole:
            text = "…" + text[max(0, len(text) - width + 1) :]
        elif len(text) > width:
            text = text[: width - 1] + "…"
        shown.append(text)
    return shown


def find_last_lines(file: BinaryIO, count: int) -> int:
    """The offset in bytes at which the last lines of a file begin; a newline at its very end begins no line."""
    position = end = file.seek(0, os.SEEK_END)
    while position > 0:
        start = max(0, position - _SIZES[0])
        file.seek(start)
        block = file.read(position - start)
        at = len(block)
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            if start + at + 1 == end:
                continue
            count -= 1
            if count <= 0:
                return start + at + 1 if count == 0 else end
        position = start
    return 0 if count > 0 else end


def _end(path: Path, count: int) -> tuple[list[bytes], bool]:
    """The last lines, at most `count`, and whether the first of them is complete."""
    lines: list[bytes] = []
    with open(path, "rb") as file:
        length = file.seek(0, os.SEEK_END)
        for size in _SIZES:
            file.seek(max(0, length - size))
            # No more than `size`: the file may be growing.
            data = file.read(size).rstrip()
            lines = data.split(b"\n") if data else []
            if len(lines) > count:
                return lines[len(lines) - count :], True
            if size >= length:
                return lines, True
    return lines, False
