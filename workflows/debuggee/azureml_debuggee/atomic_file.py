"""Writes a file for this user alone, which is there whole or not at all."""

from __future__ import annotations

import os

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Union


def give_to_owner(what: Union[int, str], folder: str) -> None:
    """Give what root has made in somebody's folder to that person: a container's root is not who looks at it later.

    Args:
        what: A file that is open, or a folder's path.
        folder: The folder that it is in.
    """
    if os.geteuid():
        return
    try:
        owner = os.stat(folder)
        if owner.st_uid:
            os.chown(what, owner.st_uid, owner.st_gid)
    except OSError:
        pass  # A file system that has no owners.


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
                give_to_owner(handle, folder)
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
