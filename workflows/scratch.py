"""Temporary folders."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from . import process_identity as identity

_NAME = re.compile(r"\.azureml-debug-(\d+-\d+-[0-9a-f]{8})-\w+")


@contextlib.contextmanager
def scratch_folder(parent: Path | None = None) -> Iterator[Path]:
    """A temporary folder for this user alone. Folders that killed commands have left are removed, too.

    Args:
        parent: The folder to create it in; by default the system's folder for temporary files.
    """
    place = Path(tempfile.gettempdir()) if parent is None else parent
    _remove_left(place)
    with tempfile.TemporaryDirectory(prefix=f".azureml-debug-{identity.process_mark()}-", dir=place) as name:
        yield Path(name)


def _remove_left(place: Path) -> None:
    """Remove this user's temporary folders of processes that have ended."""
    user = os.geteuid() if hasattr(os, "geteuid") else 0
    with contextlib.suppress(OSError):
        for entry in os.scandir(place):
            match = _NAME.fullmatch(entry.name)
            if match and entry.stat(follow_symlinks=False).st_uid == user and identity.is_leftover(match[1]):
                # A link is not followed.
                shutil.rmtree(entry.path, ignore_errors=True)
