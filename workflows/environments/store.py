"""The virtual environments that are in the cache: what there is, and taking one away."""

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
        """Take it away; one that was half-built, and is whole by now, stays.

        Raises:
            UserError: Somebody is just building it.
        """
        with exclusive(_lock(self.folder, self.cache), f"the environment {self.folder.name}", _ignore_line, limit=0.1):
            if self.digest or _read_complete(self.folder, self.cache) is None:
                remove_environment(self.folder)
        clear_unused_packages(self.cache / "uv")


def clear_unused_packages(packages: Path) -> None:
    """Take away the cached packages of which no environment has files any more.

    Args:
        packages: uv's cache. One that the user has named is left alone.
    """
    from . import uv
    from .processes import run

    used = dict[str, bool]()
    # Unlike pathlib's, this passes over folders that go while they are looked through: others build beside this.
    for file in glob.glob(os.path.join(glob.escape(str(packages)), "archive-v*", "*", "*.dist-info", "METADATA")):
        metadata = Path(file)
        with contextlib.suppress(OSError):
            found = metadata.stat()
            # What has just come may be on its way into an environment.
            young = time.time() - found.st_ctime < _YOUNG_SECONDS
            name = metadata.parent.name.partition("-")[0]
            used[name] = used.get(name, False) or young or found.st_nlink > 1
    unused = [name for name, is_used in used.items() if not is_used]
    program = uv.find_uv()
    if program is not None and unused:
        environment = {**os.environ, "UV_CACHE_DIR": str(packages), "UV_NO_CONFIG": "1"}
        # Where packages are just being installed, the next time will do.
        environment["UV_LOCK_TIMEOUT"] = "5"
        run([program, "cache", "clean", *unused], _ignore_line, environment=environment)


def list_environments(cache: Path) -> list[StoredEnvironment]:
    """Every environment in the cache that nobody is just building; those of which the build was killed included."""
    found = []
    for folder in sorted((cache / "environments").glob("*")):
        entry = _read_complete(folder, cache) or _half_built(folder, cache)
        if entry is not None:
            found.append(entry)
    return found


def _lock(folder: Path, cache: Path) -> Path:
    """What is held while an environment is built, or removed."""
    return cache / "locks" / f"{folder.name}.lock"


def _read_complete(folder: Path, cache: Path) -> StoredEnvironment | None:
    """A whole environment, as its marker says."""
    try:
        marker = json.loads((folder / MARKER).read_bytes())
        return StoredEnvironment(str(marker["name"]), str(marker["digest"]), folder, int(marker["bytes"]), cache)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _half_built(folder: Path, cache: Path) -> StoredEnvironment | None:
    """What a killed build has left; None where somebody builds or removes it, or there is none any more."""
    lock = _lock(folder, cache)
    if lock.exists():
        try:
            with hold(lock, 0):
                pass
        except HeldError:
            return None
        # Its build may have come to its end just now.
        if (entry := _read_complete(folder, cache)) is not None:
            return entry
    size = bytes_below(folder)
    return StoredEnvironment("half-built", "", folder, size, cache) if folder.is_dir() else None


def _ignore_line(line: str) -> None:
    """Progress of a wait that is too short to be told."""
