"""The virtual environments that are in the cache: what there is, and taking one away."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from .locking import exclusive
from .virtual import MARKER, remove_environment


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
