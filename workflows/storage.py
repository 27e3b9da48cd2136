"""Disks that are full: how much is left where the program writes, and why a write failed."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .errors import UserError
from .formatting import format_size
from .paths import STATE_FOLDER, cache_folder

#: What a write fails with where there is no room: it is over, used up by this user, or not to be written to at all.
NO_SPACE_ERRORS = frozenset({errno.ENOSPC, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC)})
#: What is written to find out whether there is room: a file's last block may have some left where the disk has none.
_PROBE_BYTES = 64 * 1024
#: Seconds between two looks at a disk while something is waited for, and how many in a row have to find it full.
_LOOK_SECONDS, _LOOKS = 1.0, 3
#: How a program's output says it, in the words of the C library and of Windows.
_IN_WORDS = (
    (errno.ENOSPC, re.compile(r"No space left on device|\[?Errno 28\]?|not enough space on the disk", re.IGNORECASE)),
    (errno.EDQUOT, re.compile(r"Disk quota exceeded|\[?Errno 122\]?", re.IGNORECASE)),
    (errno.EROFS, re.compile(r"Read-only file system|\[?Errno 30\]?", re.IGNORECASE)),
)


@dataclass(frozen=True)
class FreeSpace:
    """What is left of a file system.

    Attributes:
        folder: The folder that was asked for, or the nearest above it that is there.
        where: The file system in brackets, such as ``(tmpfs on /mnt)``; empty where the system does not tell.
        free: Bytes that this user may still write.
        size: Bytes of the whole.
        files: How many files can still be made; None where there is no limit.
    """

    folder: Path
    where: str
    free: int
    size: int
    files: int | None

    def __str__(self) -> str:
        """In words, such as ``24 kB of 1.0 MB are free in /x (tmpfs on /x)``."""
        inodes = "" if self.files is None or self.files > 1000 else f", room for {self.files} more files"
        return f"{format_size(self.free)} of {format_size(self.size)} are free{inodes} in {self.folder}{self.where}"


def free_space(folder: Path) -> FreeSpace | None:
    """What is left where a folder is, or would be; None where the system does not tell."""
    near = next((one for one in (folder, *folder.parents) if one.is_dir()), Path(folder.anchor or "/"))
    try:
        if not hasattr(os, "statvfs"):
            usage = shutil.disk_usage(near)
            return FreeSpace(near, "", usage.free, usage.total, None)
        found = os.statvfs(near)
    except OSError:
        return None
    root = not os.geteuid()
    free = (found.f_bfree if root else found.f_bavail) * found.f_frsize
    # Where there is no fixed number of them, both are 0.
    files = (found.f_ffree if root else found.f_favail) if found.f_files else None
    return FreeSpace(near, _file_system(near), free, found.f_blocks * found.f_frsize, files)


def _file_system(folder: Path) -> str:
    """Kind and place of a folder's file system, as /proc has them."""
    try:
        device = os.stat(folder).st_dev
        wanted = f"{os.major(device)}:{os.minor(device)}"
        lines = Path("/proc/self/mountinfo").read_bytes().decode("utf-8", "surrogateescape").splitlines()
    except OSError:
        return ""
    best = ""
    kind = ""
    for line in lines:
        # https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html
        fields, _dash, rest = line.partition(" - ")
        _id, _parent, numbers, _root, place, *_more = fields.split()
        place = re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), place)
        if numbers == wanted and folder.is_relative_to(place) and len(place) >= len(best):
            best, kind = place, rest.split()[0]
    return f" ({kind} on {best})" if best else ""


def explain(error: BaseException, place: Path | None = None, project: Path | None = None) -> UserError | None:
    """An error for want of room in two lines: which folder, which file system, how much is left there.

    Args:
        error: What was raised.
        place: The file or folder that was written; by default the error's own, where it names one.
        project: The project, whose own folder is one of those that are looked at where nothing tells.

    Returns:
        None where the error has another reason.
    """
    number = getattr(error, "errno", None)
    if isinstance(error, shutil.Error):
        # Of all the files of a folder that could not be copied; it has their errors as text.
        number = find_disk_error([str(error)])
    if not isinstance(error, OSError) or number not in NO_SPACE_ERRORS:
        return None
    named = error.filename2 if error.filename2 is not None else error.filename
    if place is None and isinstance(named, str | bytes | os.PathLike):
        place = Path(os.path.abspath(os.fsdecode(named)))
    if place is None:
        full = [one for one in written_folders(project) if shortage(one) is not None]
        if not full:
            left = "; ".join(str(found) for one in written_folders(project) if (found := free_space(one)) is not None)
            return UserError(f"A disk was full, and is not any more: {left}.", "Run the same command again.")
        place = full[0]
    return full_disk(place, number)


def full_disk(place: Path, number: int | None = errno.ENOSPC) -> UserError:
    """The error for a place that nothing more can be written to.

    Args:
        place: The folder, or the file in it.
        number: What the system said.
    """
    found = free_space(place)
    if found is None:
        return UserError(f"The disk is full where {place} is.", _remedy(place))
    if number == errno.EROFS:
        return UserError(
            f"{found.folder}{found.where} is read-only, so {place.name} cannot be written there.",
            f"Mount it for writing{_elsewhere(place)}, then run it again.",
        )
    if number == getattr(errno, "EDQUOT", None):
        return UserError(
            f"Your quota is used up where {found.folder} is; the disk has room: {found}.",
            f"Remove what you do not need there (`quota -s` shows what counts){_elsewhere(place)}, then run it again.",
        )
    if found.files == 0:
        return UserError(
            f"The disk has no room for another file: all of its inodes are used; {found}.",
            f"Remove files there{_elsewhere(place)}, then run it again.",
        )
    return UserError(f"The disk is full: {found}.", _remedy(place))


def _remedy(place: Path) -> str:
    prune = ""
    with contextlib.suppress(OSError, RuntimeError):
        cache = next(one for one in (cache_folder(), *cache_folder().parents) if one.exists())
        near = next(one for one in (place, *place.parents) if one.exists())
        if cache.stat().st_dev == near.stat().st_dev:
            prune = " (`inv container.prune` removes environments that nothing uses)"
    return f"Free some space there{prune}{_elsewhere(place)}, then run it again."


def _elsewhere(place: Path) -> str:
    """The setting that puts a folder on another disk."""
    with contextlib.suppress(RuntimeError):
        if place.is_relative_to(cache_folder()):
            return ", or let XDG_CACHE_HOME name a folder on another disk"
    if STATE_FOLDER not in place.parts and place.is_relative_to(tempfile.gettempdir()):
        return ", or let TMPDIR name a folder on another disk"
    return ""


def written_folders(project: Path | None = None) -> list[Path]:
    """The folders of this machine that the program writes to."""
    found = [] if project is None else [project / STATE_FOLDER, project]
    with contextlib.suppress(RuntimeError):
        found.append(cache_folder())
    with contextlib.suppress(OSError):
        # The library itself looks for one that can be written to.
        found.append(Path(tempfile.gettempdir()))
    return found


def shortage(folder: Path, size: int = _PROBE_BYTES) -> UserError | None:
    """Why nothing can be written to a folder for want of room; None where something can.

    It is tried: what a quota allows, and what is kept back for root, no figure tells.

    Args:
        folder: The folder, or one that would be made.
        size: Bytes that there should be room for.
    """
    near = next((one for one in (folder, *folder.parents) if one.is_dir()), None)
    if near is None:
        return None
    number = _written(near, size)
    return full_disk(folder, number) if number in NO_SPACE_ERRORS else None


def _written(folder: Path, size: int) -> int | None:
    """What the system says to so many bytes in a folder, which are taken away again; None where it takes them."""
    name = ""
    try:
        descriptor, name = tempfile.mkstemp(prefix=".azureml-debug-room-", dir=folder)
        with open(descriptor, "wb", buffering=0) as file:
            # The first write may be cut short, and the next one says why.
            while size > 0:
                size -= file.write(bytes(size)) or 0
    except OSError as error:
        return error.errno
    finally:
        if name:
            with contextlib.suppress(OSError):
                os.unlink(name)
    return None


class DiskWatch:
    """Sees, while something is waited for that another program writes, whether that program still can.

    Args:
        folder: Where it writes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._look_at = time.monotonic() + _LOOK_SECONDS
        self._seen = 0

    def shortage(self) -> UserError | None:
        """Why it cannot, once that has been so for a moment; None where it can. Costs nothing in between."""
        now = time.monotonic()
        if now < self._look_at:
            return None
        self._look_at = now + _LOOK_SECONDS
        # The least that a file can grow by.
        found = shortage(self._folder, 4096)
        self._seen = self._seen + 1 if found is not None else 0
        return found if self._seen >= _LOOKS else None


def find_disk_error(lines: Iterable[str]) -> int | None:
    """What a program's output says of a full disk, as an error number; None where it says nothing of one."""
    return next((number for line in lines for number, pattern in _IN_WORDS if pattern.search(line)), None)
