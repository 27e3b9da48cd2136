"""Lists and removes the virtual environments in the cache."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from ..locks import HeldError, hold
from .locking import exclusive
from .virtual_environments import MARKER, bytes_below, remove_environment

_YOUNG_SECONDS = 3600.0


@dataclass(frozen=True)
class StoredEnvironment:
    """One environment in the cache.

    Attributes:
        name: Its definition's name; "half-built" where a build was killed.
        digest: Hex digest of what it was built from; empty for a half-built one.
        folder: Where it is.
        size: Bytes.
        cache: The cache folder.
    """

    name: str
    digest: str
    folder: Path
    size: int
    cache: Path

    def remove(self) -> None:
        """Remove it; one that was half-built and is complete by now stays.

        Raises:
            UserError: Another process is building it.
        """
        with exclusive(_lock(self.folder, self.cache), f"the environment {self.folder.name}", _ignore_line, limit=0.1):
            if self.digest or _read_complete(self.folder, self.cache) is None:
                remove_environment(self.folder)
        clear_unused_packages(self.cache / "uv")


def clear_unused_packages(packages: Path) -> None:
    """Remove cached packages that no environment uses.

    Args:
        packages: This program's cache for uv.
    """
    from . import uv
    from .processes import run

    used = dict[str, bool]()
    # Unlike Path.glob, this skips folders that other processes remove during the search.
    for file in glob.glob(os.path.join(glob.escape(str(packages)), "archive-v*", "*", "*.dist-info", "METADATA")):
        metadata = Path(file)
        with contextlib.suppress(OSError):
            found = metadata.stat()
            # A new package may be about to be linked into an environment.
            young = time.time() - found.st_ctime < _YOUNG_SECONDS
            name = metadata.parent.name.partition("-")[0]
            used[name] = used.get(name, False) or young or found.st_nlink > 1
    unused = [name for name, is_used in used.items() if not is_used]
    program = uv.find_uv()
    if program is not None and unused:
        environment = {**os.environ, "UV_CACHE_DIR": str(packages), "UV_NO_CONFIG": "1"}
        # If another process is installing packages, leave the cache for the next time.
        environment["UV_LOCK_TIMEOUT"] = "5"
        run([program, "cache", "clean", *unused], _ignore_line, environment=environment)


def list_environments(cache: Path) -> list[StoredEnvironment]:
    """The environments in the cache that no process is building, including those whose build was killed."""
    found = []
    for folder in sorted((cache / "environments").glob("*")):
        entry = _read_complete(folder, cache) or _half_built(folder, cache)
        if entry is not None:
            found.append(entry)
    return found


def _lock(folder: Path, cache: Path) -> Path:
    """The lock that is held while an environment is built or removed."""
    return cache / "locks" / f"{folder.name}.lock"


def _read_complete(folder: Path, cache: Path) -> StoredEnvironment | None:
    """A complete environment, from its marker; None where it has none."""
    try:
        marker = json.loads((folder / MARKER).read_bytes())
        return StoredEnvironment(str(marker["name"]), str(marker["digest"]), folder, int(marker["bytes"]), cache)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _half_built(folder: Path, cache: Path) -> StoredEnvironment | None:
    """An environment whose build was killed; None where a process builds or removes it, or where it is gone."""
    lock = _lock(folder, cache)
    if lock.exists():
        try:
            with hold(lock, 0):
                pass
        except HeldError:
            return None
        # Its build may have finished just now.
        if (entry := _read_complete(folder, cache)) is not None:
            return entry
    size = bytes_below(folder)
    return StoredEnvironment("half-built", "", folder, size, cache) if folder.is_dir() else None


def _ignore_line(line: str) -> None:
    """Drop a line of progress: the wait is too short to be shown."""
