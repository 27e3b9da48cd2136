"""The virtual environments that are in the cache: what there is, and taking one away."""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from .locking import exclusive
from .virtual import MARKER, remove_environment

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
        """Take it away.

        Raises:
            UserError: Somebody is just building it.
        """
        lock = self.cache / "locks" / f"{self.folder.name}.lock"
        with exclusive(lock, f"the environment {self.folder.name}", _silent, limit=0.1):
            remove_environment(self.folder)
        forget_packages(self.cache / "uv")


def forget_packages(packages: Path) -> None:
    """Take away the cached packages of which no environment has files any more.

    Args:
        packages: uv's cache. One that the person has named is left alone.
    """
    from . import uv
    from .processes import run

    used = dict[str, bool]()
    for metadata in packages.glob("archive-v*/*/*.dist-info/METADATA"):
        with contextlib.suppress(OSError):
            found = metadata.stat()
            # What has just come may be on its way into an environment.
            young = time.time() - found.st_ctime < _YOUNG_SECONDS
            name = metadata.parent.name.partition("-")[0]
            used[name] = used.get(name, False) or young or found.st_nlink > 1
    unused = [name for name, is_used in used.items() if not is_used]
    program = uv.find()
    if program is not None and unused:
        environment = {**os.environ, "UV_CACHE_DIR": str(packages), "UV_NO_CONFIG": "1"}
        # Where packages are just being installed, the next time will do.
        environment["UV_LOCK_TIMEOUT"] = "5"
        run([program, "cache", "clean", *unused], _silent, environment=environment)


def list_environments(cache: Path) -> list[StoredEnvironment]:
    """Every environment in the cache, half-built ones included."""
    found = []
    for folder in sorted((cache / "environments").glob("*")):
        if not folder.is_dir():
            continue
        try:
            marker = json.loads((folder / MARKER).read_bytes())
            entry = StoredEnvironment(str(marker["name"]), str(marker["digest"]), folder, int(marker["bytes"]), cache)
        except (OSError, ValueError, KeyError, TypeError):
            size = sum(path.lstat().st_size for path in folder.rglob("*"))
            entry = StoredEnvironment("half-built", "", folder, size, cache)
        found.append(entry)
    return found


def _silent(line: str) -> None:
    """Progress of a wait that is too short to be told."""
