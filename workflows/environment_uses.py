"""Which project uses which environment, so that `container.prune` removes only unused ones."""

from __future__ import annotations

import hashlib
from pathlib import Path

from .paths import cache_folder
from .private import make_folder
from .project import read_json, write_json


def record_use(project: Path, role: str, digest: str) -> None:
    """Record that a project uses an environment.

    Args:
        project: The project's folder.
        role: Its purpose, such as ``inference``; a later environment for the same role replaces it.
        digest: The environment's digest.
    """
    folder = cache_folder() / "projects"
    path = folder / (hashlib.sha256(str(project).encode()).hexdigest()[:16] + ".json")
    known = read_json(path) or {}
    digests = dict(known.get("digests") or {})
    if digests.get(role) == digest:
        return
    make_folder(folder)
    write_json(path, {"project": str(project), "digests": {**digests, role: digest}})


def _records() -> list[tuple[Path, dict[str, str]]]:
    found = []
    for path in sorted((cache_folder() / "projects").glob("*.json")):
        known = read_json(path) or {}
        project = Path(str(known.get("project", "")))
        if project.is_absolute() and project.is_dir():
            found.append((project, dict(known.get("digests") or {})))
    return found


def find_projects() -> list[Path]:
    """The projects that have used this program and still exist."""
    return [project for project, _digests in _records()]


def find_digests_in_use() -> frozenset[str]:
    """The digests of the environments that existing projects have used last."""
    return frozenset(digest for _project, digests in _records() for digest in digests.values())
