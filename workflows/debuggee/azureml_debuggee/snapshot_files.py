"""Where a process leaves its snapshots: which name one gets, how it is written, how many there may be.

========================= ======================================================
AZUREML_DEBUGGEE_SNAPSHOTS the folder, which is there
AZUREML_DEBUGGEE_STORY    ``pipeline``, ``experiment`` or ``deployment``
AZUREML_DEBUGGEE_REDACT   a pattern of further names that are left out
========================= ======================================================
"""

from __future__ import annotations

import os

from . import whole_file

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import List, Mapping, Optional

FOLDER, STORY, REDACT = "AZUREML_DEBUGGEE_SNAPSHOTS", "AZUREML_DEBUGGEE_STORY", "AZUREML_DEBUGGEE_REDACT"
#: Snapshots that a service leaves, the last ones; and that one process of a step leaves, the first ones.
MOST_OF_SERVICE, MOST_OF_PROCESS = 20, 10
_BEGINNING, _END = "snapshot-", ".json"
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.")


def run_of(environment: Mapping[str, str]) -> List[str]:
    """The run and the step that a process belongs to; empty where it belongs to none."""
    run, _, step = environment.get("AZUREML_DEBUGGEE_RUN", "").partition("/")
    return [run or environment.get("AZUREML_RUN_ID", ""), step or environment.get("AZUREML_DEBUGGEE_STEP", "")]


def write(data: bytes, rank: int, environment: Mapping[str, str]) -> Optional[str]:
    """Write a snapshot, whole or not at all.

    Args:
        data: What is in it.
        rank: This process's.
        environment: Where the folder is named.

    Returns:
        Its path; None where there is no folder for it.

    Raises:
        OSError: There is no room, or no right; nothing is left of it then.
    """
    folder = environment.get(FOLDER, "")
    if not folder or not os.path.isdir(folder):
        return None
    story = environment.get(STORY, "")
    name = "".join(one if one in _PLAIN else "_" for one in (run_of(environment)[1] or story or "run"))[:80]
    begin = "{}{}-rank{}-{}".format(_BEGINNING, name, rank, os.getpid())
    number = 1
    while True:
        path = os.path.join(folder, begin + ("" if number == 1 else "-{}".format(number)) + _END)
        if not os.path.lexists(path):
            break
        number += 1
        if number > 1000:
            return None
    whole_file.write(path, data)
    if story == "deployment":
        _keep_last(folder)
    return path


def _keep_last(folder: str) -> None:
    """Remove all but a service's last snapshots."""
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
