"""Fetches the snapshots that a step of a run in a workspace has left among its logs."""

from __future__ import annotations

import re

from ..private import make_folder
from ..project import write_bytes
from ..received import Refused
from ..runs.record import RunRecord, StepRecord
from ..snapshots.selection import MOST_FILES
from ..snapshots.snapshot_file import MOST_BYTES
from .service import PipelineService

#: The names of snapshots among a run's logs, in any folder; see :data:`workflows.snapshots.selection.PATTERN`.
_NAMED = re.compile(r"(?:[^/]+/)*(snapshot-[A-Za-z0-9][A-Za-z0-9._-]{0,200}\.json)")


def fetch_snapshots(service: PipelineService, run: RunRecord, step: StepRecord, run_id: str = "") -> int:
    """Fetch the snapshots of a step that are not here yet; returns their number.

    Args:
        service: The run in the workspace.
        run: The run.
        step: The step in it.
        run_id: The child run's id, where the record does not have it yet.

    Raises:
        Refused: One is larger than any snapshot, or there are too many.
        requests.RequestException: They cannot be read now.
    """
    addresses, _error = service.details(run_id or step.run_id)
    found = {match[1]: url for name, url in addresses.items() if (match := _NAMED.fullmatch(name))}
    if len(found) > MOST_FILES:
        raise Refused(f"{len(found)} snapshots of one step")
    folder = run.step_folder(step.name) / "logs"
    brought = 0
    for name, url in found.items():
        if (folder / name).exists():
            continue
        content = bytearray()
        while part := service.read(url, len(content)):
            content += part
            if len(content) > MOST_BYTES:
                raise Refused(f"a snapshot of more than {MOST_BYTES >> 20} MB")
        if content:
            make_folder(folder)
            # The file is written atomically, since another process may be reading it.
            write_bytes(folder / name, bytes(content), private=True)
            brought += 1
    return brought
