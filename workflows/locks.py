"""Lock files between commands: removed when released, and released when their process ends."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .errors import UserError
from .paths import NAME, cache_folder
from .private import make_folder

if sys.platform != "win32":
    import fcntl

#: Errors of file systems without ``flock``.
_NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP})


class HeldError(UserError):
    """Another process, or thread, holds the lock."""


def folder() -> Path:
    """This user's folder for locks of files elsewhere; made if missing.

    It is in the user's runtime folder (``XDG_RUNTIME_DIR``), else in the cache, else among the temporary files. It is
    never shared, since another user could hold the locks there.

    Raises:
        OSError: It cannot be made.
    """
    if hasattr(os, "geteuid"):
        # A command that ssh or cron starts has no XDG_RUNTIME_DIR, but must find the same folder.
        for place in filter(None, (os.environ.get("XDG_RUNTIME_DIR"), f"/run/user/{os.geteuid()}")):
            if _is_private(Path(place)):
                return _made(Path(place) / NAME)
    try:
        return _made(cache_folder() / "locks")
    except (RuntimeError, PermissionError):
        # The user has no home folder, or cannot write to it.
        user = os.geteuid() if hasattr(os, "geteuid") else 0
        own = _made(Path(tempfile.gettempdir()) / f"{NAME}-{user}")
        if hasattr(os, "geteuid") and not _is_private(own):
            raise PermissionError(errno.EPERM, "it belongs to somebody else", str(own)) from None
        return own


def _made(place: Path) -> Path:
    make_folder(place)
    if not _writable(place):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place))
    return place


def _is_private(place: Path) -> bool:
    """Whether a folder belongs to this user, and nobody else can enter it."""
    if not place.is_absolute():
        return False
    try:
        seen = place.lstat()
    except OSError:
        return False
    mode = stat.S_IMODE(seen.st_mode)
    return stat.S_ISDIR(seen.st_mode) and seen.st_uid == os.geteuid() and mode == 0o700 and _writable(place)


def _writable(place: Path) -> bool:
    return os.access(place, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


@contextlib.contextmanager
def hold(
    file: Path, seconds: float, *, pause: float = 0.05, waiting: Callable[[], object] | None = None
) -> Iterator[None]:
    """Hold a lock.

    Args:
        file: Made if missing, and removed when the lock is released.
        seconds: How long to wait for the present holder.
        pause: Seconds between two tries.
        waiting: Called before each pause.

    Raises:
        HeldError: It was held by another for all of that time.
        OSError: The file cannot be made.
    """
    deadline = time.monotonic() + seconds
    while (held := _try(file)) is None:
        if time.monotonic() >= deadline:
            raise HeldError(
                f"Another command has held {file} for {seconds:g} s.", "Let it finish, or end it, then run this again."
            )
        if waiting is not None:
            waiting()
        time.sleep(pause)
    try:
        yield
    finally:
        held()


def _try(file: Path) -> Callable[[], None] | None:
    """Try to take the lock; returns the function that releases it, None if it is held."""
    if sys.platform == "win32":
        return _by_library(file)
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:
            os.close(descriptor)
            if error.errno not in _NO_LOCKS:
                raise
            return _by_library(file)
        if _leads_to(file, descriptor):
            return lambda: _release(file, descriptor)
        # Its holder has removed the file since it was opened here, so this lock guards nothing: try again.
        os.close(descriptor)


def _leads_to(file: Path, descriptor: int) -> bool:
    """Whether a name still leads to an open file."""
    try:
        named = os.stat(file, follow_symlinks=False)
    except FileNotFoundError:
        return False
    opened = os.fstat(descriptor)
    return (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)


def _release(file: Path, descriptor: int) -> None:
    # Removed while it is held, so that it is nobody else's file. Processes that wait see that it is gone and retry.
    with contextlib.suppress(OSError):
        if _leads_to(file, descriptor):
            os.unlink(file)
    os.close(descriptor)


def _by_library(file: Path) -> Callable[[], None] | None:
    """:func:`_try` with filelock, where the system or the file system has no ``flock``."""
    from filelock import FileLock, Timeout

    lock: Any = FileLock(file, mode=0o600)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lambda: lock.release()
