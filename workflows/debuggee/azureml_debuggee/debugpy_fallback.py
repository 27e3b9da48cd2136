"""A debugpy that lies beside the environment: imported where that has none, by a program's own lines as well."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any


def install(folder: str) -> None:
    """Have ``import debugpy`` find it, after everything else has been asked."""
    sys.meta_path.append(_Beside(folder))


class _Beside:
    def __init__(self, folder: str) -> None:
        self._folder = folder

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "debugpy":
            # Nothing else in the folder is meant for the program.
            return None
        from importlib.machinery import PathFinder

        return PathFinder.find_spec(name, [self._folder])
