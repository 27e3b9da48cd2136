"""Writing files that come from another machine or a service.

They are for this user alone and never executable, whatever the sender says. Each is written atomically, inside its
folder only: never through a link that leads out of it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from . import process_identity as identity
from . import storage
from .errors import UserError
from .formatting import format_size
from .paths import shown
from .project import remove_leftovers
from .received import relative_path

#: The mode of a new file.
MODE = 0o600
#: Bytes that always stay free on the disk.
SPARE_BYTES = 64 << 20


def place_below(folder: Path, name: str) -> Path:
    """The path for a received file below a folder. Nothing is created.

    Args:
        folder: The folder, which may not exist yet.
        name: The file's path below it, as received.

    Raises:
        Refused: It is no path below a folder.
        UserError: Something else is at that path.
    """
    inside = relative_path(name, "a name")
    root = os.path.realpath(folder)
    at = root
    *above, last = inside.split("/")
    for part in above:
        at = os.path.join(at, part)
        if not os.path.lexists(at):
            break
        real = os.path.realpath(at)
        if real != root and not real.startswith(os.path.join(root, "")):
            raise UserError(
                f"{shown(Path(at))} is a link that leads out of {shown(folder)}.",
                "Downloads are not written through links: name another folder, or remove the link.",
            )
        if not os.path.isdir(at):
            raise UserError(f"{shown(Path(at))} is in the way: it is not a folder.", "Name another folder, or move it.")
        at = real
    target = Path(root, *above, last)
    if os.path.lexists(target) and not stat.S_ISREG(os.lstat(target).st_mode):
        raise UserError(f"{shown(target)} is in the way: it is not a regular file.", "Move it, then run this again.")
    return target


@contextlib.contextmanager
def file_below(folder: Path, name: str) -> Iterator[BinaryIO]:
    """Open a file below a folder for writing. It gets its name only when it is complete.

    Args:
        folder: The folder, new or there.
        name: The file's path below it, as it was received.

    Raises:
        Refused: It is no path below a folder.
        UserError: Something else is at that path, or it cannot be written.
    """
    target = place_below(folder, name)
    made = _missing(target.parent)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Again: a link may have been made meanwhile.
        target = place_below(folder, name)
        mode = stat.S_IMODE(os.lstat(target).st_mode) if os.path.lexists(target) else MODE
        remove_leftovers(target.parent)
        partial = target.with_name(f".{target.name[:50]}.{identity.process_mark()}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        descriptor = os.open(partial, flags, MODE)
        try:
            with open(descriptor, "wb") as file:
                yield file
            if mode != MODE:
                os.chmod(partial, mode)
            os.replace(partial, target)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(partial)
    except OSError as error:
        raise storage.explain(error, target.parent) or UserError(
            f"{shown(target)} cannot be written: {error.strerror or error}.", "Check it, or name another folder."
        ) from error
    finally:
        for one in made:
            # Only folders that stayed empty are removed.
            with contextlib.suppress(OSError):
                one.rmdir()


def _missing(folder: Path) -> list[Path]:
    """The missing folders of a path, the innermost first."""
    found = []
    while not os.path.lexists(folder):
        found.append(folder)
        folder = folder.parent
    return found


def check_free_space(folder: Path, size: int) -> None:
    """Check that a disk has enough free space for so many bytes.

    Raises:
        UserError: It has too little.
    """
    found = storage.free_space(folder)
    if found is not None and size > max(0, found.free - SPARE_BYTES):
        raise UserError(
            f"{format_size(size)} are to come, and there is no room for them: {found}.",
            "Free some space, or name another folder.",
        )
