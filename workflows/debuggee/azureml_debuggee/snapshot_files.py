"""Writes the files of snapshots: their names, and how many a process or a service keeps.

========================= ======================================================
AZUREML_DEBUGGEE_SNAPSHOTS the folder, which exists
AZUREML_DEBUGGEE_STORY    ``pipeline``, ``experiment`` or ``deployment``
AZUREML_DEBUGGEE_REDACT   a pattern for further names whose values are left out
========================= ======================================================
"""

from __future__ import annotations

import os

from . import atomic_file
from .ranks import rank_of

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import List, Mapping, Optional

FOLDER, STORY, REDACT = "AZUREML_DEBUGGEE_SNAPSHOTS", "AZUREML_DEBUGGEE_STORY", "AZUREML_DEBUGGEE_REDACT"
#: Snapshots that are kept: the last ones of a service, and the first ones of a process of a step.
MOST_OF_SERVICE, MOST_OF_PROCESS = 20, 10
_BEGINNING, _END = "snapshot-", ".json"
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.")


def run_and_step(environment: Mapping[str, str]) -> List[str]:
    """The run and the step that a process belongs to; each is empty if it belongs to none."""
    run, _, step = environment.get("AZUREML_DEBUGGEE_RUN", "").partition("/")
    return [run or environment.get("AZUREML_RUN_ID", ""), step or environment.get("AZUREML_DEBUGGEE_STEP", "")]


def write(data: bytes, environment: Mapping[str, str], name: str = "") -> Optional[str]:
    """Write a snapshot, completely or not at all.

    Args:
        data: Its content.
        environment: The environment variables, which name the folder.
        name: The file's name, if it is not a snapshot's yet; see pool_snapshots.py.

    Returns:
        Its path; None if there is no folder for it.

    Raises:
        OSError: The disk is full, or the user has no permission; no part of the file is left then.
    """
    folder = environment.get(FOLDER, "")
    if not folder or not os.path.isdir(folder):
        return None
    path = os.path.join(folder, name) if name else next_path(folder, environment, os.getpid())
    if path is None:
        return None
    atomic_file.write(path, data)
    if environment.get(STORY, "") == "deployment":
        _remove_old(folder)
    return path


def next_path(folder: str, environment: Mapping[str, str], process: int) -> Optional[str]:
    """The path for the next snapshot of a process; None if it has too many."""
    name = "".join(
        one if one in _PLAIN else "_" for one in (run_and_step(environment)[1] or environment.get(STORY) or "run")
    )
    begin = "{}{}-rank{}-{}".format(_BEGINNING, name[:80], rank_of(environment) or 0, process)
    for number in range(1, 1001):
        path = os.path.join(folder, begin + ("" if number == 1 else "-{}".format(number)) + _END)
        if not os.path.lexists(path):
            return path
    return None


def _remove_old(folder: str) -> None:
    """Remove all snapshots of a service but the last ones."""
    found = []
    for name in os.listdir(folder):
        if name.startswith(_BEGINNING) and name.endswith(_END):
            path = os.path.join(folder, name)
            try:
                found.append((os.stat(path).st_mtime_ns, path))
            except OSError:
                continue  # Another worker has removed it.
    for _, path in sorted(found)[:-MOST_OF_SERVICE]:
        try:
            os.unlink(path)
        except OSError:
            pass
