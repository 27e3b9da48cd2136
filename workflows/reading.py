"""Reading complete files: regular ones only, and only up to a given size.

A configuration may come from anyone: it could be a pipe that never ends, a device, or a file of many gigabytes. Those
are refused, without waiting for them or reading them into memory.
"""

from __future__ import annotations

import errno
import os
import stat

#: Files that people write are thousands of times smaller.
MOST_BYTES = 16 * 1024 * 1024


def read_bytes(path: str | os.PathLike[str], most: int = MOST_BYTES) -> bytes:
    """A regular file's content.

    Args:
        path: The file; a link is followed.
        most: The largest size in bytes that is read.

    Raises:
        OSError: It cannot be read, is not a regular file, or is larger; ``strerror`` says so.
    """
    # Without O_NONBLOCK, opening a pipe would block until it has a writer.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOCTTY", 0)
    try:
        descriptor = os.open(path, flags)
    except ValueError as error:
        raise OSError(errno.EINVAL, "its name cannot be a file's name", os.fspath(path)) from error
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", os.fspath(path))
        # Files of /proc have no size, and a log may grow meanwhile.
        data = file.read(most + 1) if status.st_size <= most else b""
    if status.st_size > most or len(data) > most:
        raise OSError(errno.EFBIG, f"it is larger than {_size(most)}, the most that is read", os.fspath(path))
    return data


def read_text(
    path: str | os.PathLike[str], encoding: str = "utf-8", errors: str = "strict", most: int = MOST_BYTES
) -> str:
    """A regular file's text, with its line ends as they are.

    Raises:
        OSError: As :func:`read_bytes`.
        UnicodeDecodeError: It is not in that encoding.
    """
    return read_bytes(path, most).decode(encoding, errors)


def line_at(text: str | bytes, position: int) -> int:
    """The line number, from 1, of a position in a text; a line ends with LF, CRLF or CR."""
    if isinstance(text, str):
        lf, cr, both = text.count("\n", 0, position), text.count("\r", 0, position), text.count("\r\n", 0, position)
    else:
        lf, cr, both = text.count(b"\n", 0, position), text.count(b"\r", 0, position), text.count(b"\r\n", 0, position)
    return lf + cr - both + 1


def _size(count: int) -> str:
    return f"{count // 2**20} MB" if count >= 2**20 else f"{count // 2**10} kB"
