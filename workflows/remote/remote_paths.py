"""Translates paths between this machine and the remote one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..project import STATE_FOLDER

#: The folder below the remote project folder for files from outside the project.
OUTSIDE_FOLDER = f"{STATE_FOLDER}/remote/carried"


@dataclass
class RemotePaths:
    """The paths of a project on both machines.

    Attributes:
        project: The local project folder.
        root: The remote project folder; set once it is known.
        named: Local files and folders that are sent even if git ignores them.
    """

    project: Path
    root: str = ""
    named: list[Path] = field(default_factory=list)
    #: Folders of code in the project. The files that git tracks in them are sent anyway; the others only if git
    #: tracks none of the folder's files.
    code: list[Path] = field(default_factory=list)

    def include_code(self, path: Path) -> None:
        """Send a folder of code: all of it if it is outside the project, otherwise the files that git would track."""
        full = Path(os.path.abspath(path))
        if not full.is_relative_to(self.project):
            self.include(full)
        elif full not in self.code:
            self.code.append(full)

    def include_untracked_code(self, listed: Iterable[str]) -> list[Path]:
        """Send the folders of code of which git tracks no file completely, and return them."""
        found = []
        for place in self.code:
            inside = place.relative_to(self.project).as_posix()
            if place != self.project and not any(path == inside or path.startswith(f"{inside}/") for path in listed):
                self.include(place)
                found.append(place)
        return found

    def include(self, path: Path) -> str:
        """Send a file or folder, and return its path relative to the remote project folder."""
        full = Path(os.path.abspath(path))
        if full not in self.named:
            self.named.append(full)
        return self.relative(full)

    def relative(self, full: Path) -> str:
        """The remote path of a local one, relative to the remote project folder."""
        if full.is_relative_to(self.project):
            return full.relative_to(self.project).as_posix()
        for place in self.named:
            if full.is_relative_to(place) and not place.is_relative_to(self.project):
                rest = full.relative_to(place).as_posix()
                return f"{_outside_path(place)}/{rest}" if rest != "." else _outside_path(place)
        return _outside_path(full)

    def to_remote(self, path: Path) -> str:
        """The absolute remote path of a local one; :attr:`root` has to be known."""
        relative = self.relative(Path(os.path.abspath(path)))
        return self.root if relative == "." else f"{self.root}/{relative}"

    def to_local(self, path: str) -> str:
        """The local path of a remote one; the unchanged path if there is no local one."""
        if path == self.root:
            return str(self.project)
        if not self.root or not path.startswith(self.root + "/"):
            return path
        inside = path[len(self.root) + 1 :]
        for place in self.named:
            if not place.is_relative_to(self.project):
                carried = _outside_path(place)
                if inside == carried or inside.startswith(carried + "/"):
                    return str(place) + inside[len(carried) :]
        if inside.startswith(f"{STATE_FOLDER}/"):
            # Runs and their logs exist on the remote machine only.
            return path
        return str(self.project / inside)

    @property
    def inside(self) -> list[Path]:
        """The named places in the project."""
        return [place for place in self.named if place.is_relative_to(self.project)]

    @property
    def outside(self) -> list[Path]:
        """The named places that are not in the project."""
        return [place for place in self.named if not place.is_relative_to(self.project)]


def _outside_path(place: Path) -> str:
    # The digest distinguishes folders of the same name, and is the same each time.
    return f"{OUTSIDE_FOLDER}/{hashlib.sha256(os.fsencode(place)).hexdigest()[:8]}/{place.name}"
