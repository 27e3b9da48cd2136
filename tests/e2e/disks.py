"""Small disks for the tests: a file system in memory with a size, or a number of files, of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

#: Bytes that are written at once.
BLOCK = 4096


def what_is_missing() -> str:
    """Why there can be none; empty where there can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a small disk needs Linux and root"
    return ""


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A disk on a new folder, with mount's options such as ``size=1m`` or ``nr_inodes=64``."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path, leave: int = 0) -> Path:
    """Fill a disk up to so many bytes; the file that does it."""
    path = disk / "what fills the disk"
    with open(path, "wb", buffering=0) as file:
        while os.statvfs(disk).f_bfree * BLOCK > leave and file.write(b"x" * BLOCK):
            pass
    return path


def use_inodes(disk: Path, leave: int = 0) -> None:
    """Make files until no more than so many can be made."""
    folder = disk / "many files"
    folder.mkdir()
    for number in range(os.statvfs(disk).f_ffree - leave):
        (folder / str(number)).touch()
