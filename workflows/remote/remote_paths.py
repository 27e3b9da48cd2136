"""Where a path of this machine lies on the other one, and back."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..project import STATE_FOLDER

#: What is outside the project lies there, below the project's folder.
OUTSIDE_FOLDER = f"{STATE_FOLDER}/remote/carried"


@dataclass
class RemotePaths:
    """The two sides' paths.

    Attributes:
        project: The project's folder here.
        root: The project's folder there; set once it is known.
        named: Files and folders here that have to travel, whether or not git ignores them.
    """

    project: Path
    root: str = ""
    named: list[Path] = field(default_factory=list)
    #: Folders of code in the project: what git tracks in them travels anyway, and the rest only where git
    #: knows nothing of the folder at all.
    code: list[Path] = field(default_factory=list)

    def include_code(self, path: Path) -> None:
        """Have a folder of code travel: outside the project whole, inside it what git would track."""
        full = Path(os.path.abspath(path))
        if not full.is_relative_to(self.project):
            self.include(full)
        elif full not in self.code:
            self.code.append(full)

    def include_untracked_code(self, listed: Iterable[str]) -> list[Path]:
        """The folders of code of which git would track nothing; they are named from now on."""
        found = []
        for place in self.code:
            inside = place.relative_to(self.project).as_posix()
            if place != self.project and not any(path == inside or path.startswith(f"{inside}/") for path in listed):
                self.include(place)
                found.append(place)
        return found

    def include(self, path: Path) -> str:
        """Have a file or folder travel; its path relative to the project's folder there."""
        full = Path(os.path.abspath(path))
        if full not in self.named:
            self.named.append(full)
        return self.relative(full)

    def relative(self, full: Path) -> str:
        """A path's place relative to the project's folder there."""
        if full.is_relative_to(self.project):
            return full.relative_to(self.project).as_posix()
        for place in self.named:
            if full.is_relative_to(place) and not place.is_relative_to(self.project):
                rest = full.relative_to(place).as_posix()
                return f"{_outside_path(place)}/{rest}" if rest != "." else _outside_path(place)
        return _outside_path(full)

    def to_remote(self, path: Path) -> str:
        """The absolute path there; :attr:`root` has to be known."""
        relative = self.relative(Path(os.path.abspath(path)))
        return self.root if relative == "." else f"{self.root}/{relative}"

    def to_local(self, path: str) -> str:
        """The path here of one there; as it is where nothing here belongs to it."""
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
            # Runs and their logs are there only.
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
    # Two folders of one name are told apart; one that is named again is the same.
    return f"{OUTSIDE_FOLDER}/{hashlib.sha256(os.fsencode(place)).hexdigest()[:8]}/{place.name}"
