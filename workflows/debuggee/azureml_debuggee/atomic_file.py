"""Writes files that only this user can read, completely or not at all."""

from __future__ import annotations

import os

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Union


def give_to_owner(target: Union[int, str], folder: str) -> None:
    """Change the owner of a file that root has created to the owner of its folder, who will read it later.

    A container's root is often not the user who reads its files on the host.

    Args:
        target: A descriptor of an open file, or a folder's path.
        folder: The folder that contains it.
    """
    if os.geteuid():
        return
    try:
        owner = os.stat(folder)
        if owner.st_uid:
            os.chown(target, owner.st_uid, owner.st_gid)
    except OSError:
        pass  # The file system has no owners.


def write(path: str, data: bytes) -> None:
    """Write a file, and replace an existing one.

    Args:
        path: The file's path.
        data: Its content.

    Raises:
        OSError: The disk is full, or the user has no permission; no part of the file is left then.
    """
    folder, name = os.path.split(path)
    partial = os.path.join(folder, ".{}.{}.partial".format(name, os.urandom(4).hex()))
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600)
    try:
        try:
            if hasattr(os, "fchmod"):
                os.fchmod(handle, 0o600)  # Independent of the program's umask.
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
