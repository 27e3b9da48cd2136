"""The user's own packages that a definition names by their folders: which are used in place, and which are copied.

An editable package is used in place, so that an edit takes effect when the program is started again. In an image it is
installed from the same path as here, where a container has the folder mounted.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from .requirements import Requirement

#: Sources and files of compiled parts: in the package's own folder these are missing, or made for another system.
_COMPILED = frozenset({".c", ".cc", ".cpp", ".cxx", ".cu", ".pyx", ".pxd", ".f", ".f90", ".rs", ".so", ".pyd"})


def find_live_folders(
    requirements: Sequence[Requirement], files: Iterable[tuple[Path, list[PurePosixPath]]]
) -> tuple[Path, ...]:
    """The folders of packages that can be used in place, also by a container.

    Args:
        requirements: The definition's requirements.
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
    """Whether an edit of a file in an editable package changes how the package is installed."""
    return name.suffix != ".py" or str(name) == "setup.py"


def copied_packages(requirements: Sequence[Requirement], stay: Sequence[Path]) -> Iterator[Requirement]:
    """The local packages that are copied when they are installed, which are all but those in ``stay``."""
    return (item for item in requirements if item.local is not None and item.local.is_dir() and item.local not in stay)


def mount_places(folders: Iterable[str], code: Path | None) -> dict[str, str]:
    """The mounts that a container needs for packages that are used in place: paths there, and folders here.

    Args:
        folders: The packages' folders.
        code: The folder of the program's own code, which is mounted at another path.

    Raises:
        FileNotFoundError: One of them is gone.
    """
    found = dict[str, str]()
    for folder in folders:
        if not os.path.isdir(folder):
            raise FileNotFoundError(folder)
        found[folder] = folder
        if code is not None and os.path.realpath(code) == folder:
            # Modules in the code's folder are imported from where that is mounted, but those in its `src` are not.
            src = os.path.join(folder, "src")
            found |= {src: src} if os.path.isdir(src) else {}
    return found
