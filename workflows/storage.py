"""Full disks: the free space where the program writes, and errors for failed writes."""

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

#: Errors of writes for want of space: the disk is full, the user's quota is used up, or it is read-only.
NO_SPACE_ERRORS = frozenset({errno.ENOSPC, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC)})
#: Bytes written to test for free space: more than the rest of a file's last block, which a full disk may still have.
_PROBE_BYTES = 64 * 1024
#: Seconds between two tests of a disk during a wait, and how many tests in a row have to find it full.
_LOOK_SECONDS, _LOOKS = 1.0, 3
#: Messages of the C library and of Windows about these errors, in a program's output.
_IN_WORDS = (
    (errno.ENOSPC, re.compile(r"No space left on device|\[?Errno 28\]?|not enough space on the disk", re.IGNORECASE)),
    (errno.EDQUOT, re.compile(r"Disk quota exceeded|\[?Errno 122\]?", re.IGNORECASE)),
    (errno.EROFS, re.compile(r"Read-only file system|\[?Errno 30\]?", re.IGNORECASE)),
)


@dataclass(frozen=True)
class FreeSpace:
    """The free space of a file system.

    Attributes:
        folder: The folder in question, or the nearest existing one above it.
        where: The file system in brackets, such as ``(tmpfs on /mnt)``; empty if it is not known.
        free: Bytes that this user may still write.
        size: Bytes in total.
        files: How many more files can be created; None without a limit.
    """

    folder: Path
    where: str
    free: int
    size: int
    files: int | None

    def __str__(self) -> str:
        """A text such as ``24 kB of 1.0 MB are free in /x (tmpfs on /x)``."""
        inodes = "" if self.files is None or self.files > 1000 else f", room for {self.files} more files"
        return f"{format_size(self.free)} of {format_size(self.size)} are free{inodes} in {self.folder}{self.where}"


def free_space(folder: Path) -> FreeSpace | None:
    """The free space of a folder's file system; None if it is not known. The folder need not exist."""
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
    # File systems without a fixed number of inodes report 0 for both.
    files = (found.f_ffree if root else found.f_favail) if found.f_files else None
    return FreeSpace(near, _file_system(near), free, found.f_blocks * found.f_frsize, files)


def _file_system(folder: Path) -> str:
    """The type and mount point of a folder's file system, from /proc."""
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
    """The two-line error for a write that failed for want of space.

    Args:
        error: What was raised.
        place: The file or folder that was written; by default the one that the error names.
        project: The project; its state folder is among those tested if the error names no file.

    Returns:
        None if the error has another reason.
    """
    number = getattr(error, "errno", None)
    if isinstance(error, shutil.Error):
        # It holds the errors of all files that could not be copied, as text.
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
    """The error for a folder to which nothing more can be written.

    Args:
        place: The folder, or the file in it.
        number: The system's error number.
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
    """The end of a remedy: the variable that moves a folder to another disk."""
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
        # tempfile itself searches for a writable one.
        found.append(Path(tempfile.gettempdir()))
    return found


def shortage(folder: Path, size: int = _PROBE_BYTES) -> UserError | None:
    """The error if a folder's disk has too little space; None if it has enough.

    It is tested by writing, since quotas and the space reserved for root are in no figure.

    Args:
        folder: The folder, which need not exist.
        size: Bytes that have to fit.
    """
    near = next((one for one in (folder, *folder.parents) if one.is_dir()), None)
    if near is None:
        return None
    number = _written(near, size)
    return full_disk(folder, number) if number in NO_SPACE_ERRORS else None


def _written(folder: Path, size: int) -> int | None:
    """Write and remove so many bytes in a folder; returns the error number, None if it worked."""
    name = ""
    try:
        descriptor, name = tempfile.mkstemp(prefix=".azureml-debug-room-", dir=folder)
        with open(descriptor, "wb", buffering=0) as file:
            # The first write may be short; the next one then fails with the reason.
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
    """Tests, during a wait for another program's files, whether its disk is full.

    Args:
        folder: Where the program writes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._look_at = time.monotonic() + _LOOK_SECONDS
        self._seen = 0

    def shortage(self) -> UserError | None:
        """The error once the disk has been full for some seconds; None before. It may be called often."""
        now = time.monotonic()
        if now < self._look_at:
            return None
        self._look_at = now + _LOOK_SECONDS
        # One block.
        found = shortage(self._folder, 4096)
        self._seen = self._seen + 1 if found is not None else 0
        return found if self._seen >= _LOOKS else None


def find_disk_error(lines: Iterable[str]) -> int | None:
    """The error number for a message about a full disk in a program's output; None if there is none."""
    return next((number for line in lines for number, pattern in _IN_WORDS if pattern.search(line)), None)
