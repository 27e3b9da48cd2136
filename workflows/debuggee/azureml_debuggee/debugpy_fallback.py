"""Lets `import debugpy` find our copy where the environment has none, also for the program's own imports."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any


def install(folder: str) -> None:
    """Have ``import debugpy`` find the copy in a folder, after all other finders."""
    sys.meta_path.append(_Finder(folder))


class _Finder:
    def __init__(self, folder: str) -> None:
        self._folder = folder

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "debugpy":
            # The program must not import anything else from the folder.
            return None
        from importlib.machinery import PathFinder

        return PathFinder.find_spec(name, [self._folder])
