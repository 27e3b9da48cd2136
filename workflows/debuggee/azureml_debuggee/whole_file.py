"""Writes a file for this user alone, which is there whole or not at all."""

from __future__ import annotations

import os


def write(path: str, data: bytes) -> None:
    """Write a file in the place of the one that may be there.

    Args:
        path: Where.
        data: What is in it.

    Raises:
        OSError: There is no room, or no right; nothing is left of it then.
    """
    folder, name = os.path.split(path)
    partial = os.path.join(folder, ".{}.{}.partial".format(name, os.urandom(4).hex()))
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600)
    try:
        try:
            if hasattr(os, "fchmod"):
                os.fchmod(handle, 0o600)  # Whatever the program's mask is.
            left = memoryview(data)
            while left:
                left = left[os.write(handle, left) :]
        finally:
            os.close(handle)
        os.replace(partial, path)
    except BaseException:
        try:
            os.unlink(partial)
        except OSError:
            pass
        raise
