"""Packages of the user's own that a definition names by their folders: which stay there, and which are copied.

An editable one stays in its folder, so that an edit counts as soon as the program starts anew. In an image it is
installed from the same path as here, where a container has the folder mounted.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from .requirements import Requirement

#: Sources of what is compiled when a package is installed: it would be missing, or be another system's, in the folder.
_COMPILED = frozenset({".c", ".cc", ".cpp", ".cxx", ".cu", ".pyx", ".pxd", ".f", ".f90", ".rs", ".so", ".pyd"})


def find_live_folders(
    requirements: Sequence[Requirement], files: Iterable[tuple[Path, list[PurePosixPath]]]
) -> tuple[Path, ...]:
    """The folders of packages that can stay where they are, also for a container.

    Args:
        requirements: What pip is asked for.
        files: The files below each local folder among them.
    """
    inside = dict(files)
    found = dict.fromkeys(
        item.local
        for item in requirements
        if item.editable
        and item.local in inside
        and not any(name.suffix.lower() in _COMPILED for name in inside[item.local])
    )
    # A Windows path means nothing in a container.
    return () if os.name == "nt" else tuple(path for path in found if path is not None)


def affects_installation(name: PurePosixPath) -> bool:
    """Whether a file of a package that stays where it is has a say in how it is installed."""
    return name.suffix != ".py" or str(name) == "setup.py"


def copied_packages(requirements: Sequence[Requirement], stay: Sequence[Path]) -> Iterator[Requirement]:
    """The local packages that are copied when they are installed."""
    return (item for item in requirements if item.local is not None and item.local.is_dir() and item.local not in stay)


def mount_places(folders: Iterable[str], code: Path | None) -> dict[str, str]:
    """What packages that stay where they are need of a container: its places, and the folders here.

    Args:
        folders: The packages' folders.
        code: The folder that the program's own code is in, which the container has at another place.

    Raises:
        FileNotFoundError: One of them is gone.
    """
    found = dict[str, str]()
    for folder in folders:
        if not os.path.isdir(folder):
            raise FileNotFoundError(folder)
        found[folder] = folder
        if code is not None and os.path.realpath(code) == folder:
            # Modules beside the program's own are imported from where that is, and those in `src` are not.
            src = os.path.join(folder, "src")
            found |= {src: src} if os.path.isdir(src) else {}
    return found
