"""The user's folders in which the program keeps files across projects."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .errors import BadValue, UserError
from .path_text import STATE_FOLDER as STATE_FOLDER
from .path_text import shown as shown

NAME = "azureml-debug"


class NoHomeError(UserError, RuntimeError):
    """Neither HOME nor the system's list of users names this user's home folder."""


def home_folder() -> Path:
    """This user's home folder.

    Raises:
        NoHomeError: It is not known.
    """
    try:
        return Path.home()
    except RuntimeError as error:
        user = f"user {os.getuid()}" if hasattr(os, "getuid") else "this user"
        problem = f"HOME is not set, and the system does not know the home folder of {user}."
        raise NoHomeError(problem, "Let HOME name a folder that you can write to.") from error


def cache_folder() -> Path:
    """The folder for environments and wheels, which may be deleted at any time.

    ``XDG_CACHE_HOME`` is honoured; macOS and Windows have their own conventions.
    """
    if sys.platform in ("win32", "darwin"):
        import platformdirs

        return Path(platformdirs.user_cache_dir(NAME, appauthor=False))
    # The XDG rule in one line: platformdirs takes 20 ms of a command's start.
    return Path(os.environ.get("XDG_CACHE_HOME") or home_folder() / ".cache") / NAME


def state_folder() -> Path:
    """The folder for files that must stay, unlike a cache; ``XDG_STATE_HOME`` is honoured."""
    if sys.platform in ("win32", "darwin"):
        import platformdirs

        return Path(platformdirs.user_state_dir(NAME, appauthor=False))
    return Path(os.environ.get("XDG_STATE_HOME") or home_folder() / ".local" / "state") / NAME


def absolute(text: str) -> Path:
    """Make a typed path absolute, with ``~`` and ``~user`` expanded.

    Raises:
        BadValue: That user's home folder is not known.
    """
    try:
        return Path(os.path.abspath(Path(text).expanduser()))
    except RuntimeError as error:
        problem = f"{text} names a user whose home folder the system does not know."
        raise BadValue(problem, "Write the path in full, or set HOME.") from error


def exists(path: Path) -> bool:
    """Whether a path exists; False also for what cannot be a path (it has a NUL, or its name is too long)."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
