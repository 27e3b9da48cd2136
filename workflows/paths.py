"""Folders of the user's that the program keeps things in across projects."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from . import report

NAME = "azureml-debug"


def cache_folder() -> Path:
    """The folder for environments and wheels: can be deleted at any time, and is made again.

    ``XDG_CACHE_HOME`` is honoured; macOS and Windows have places of their own.
    """
    if sys.platform in ("win32", "darwin"):
        import platformdirs

        return Path(platformdirs.user_cache_dir(NAME, appauthor=False))
    # The XDG rule in a line: the library takes 20 ms of a command's start.
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / NAME


def shown(path: Path) -> Path:
    """A path as people read it: relative where it lies below the current folder.

    For somebody on another machine a run's files are named in full: they are not there.
    """
    if report.wanted() and ".azureml-debug" in path.parts:
        return path
    try:
        return path.relative_to(Path.cwd())
    except (ValueError, OSError):
        return path
