"""What has a program leave a snapshot where it fails."""

from __future__ import annotations

from ..models import Snapshots


def snapshot_variables(snapshots: Snapshots | None, folder: str) -> dict[str, str]:
    """What has a process leave a snapshot where it fails.

    Args:
        snapshots: What it is told; None for nothing.
        folder: Where they go, as the process sees it.
    """
    if snapshots is None:
        return {}
    return {
        "AZUREML_DEBUGGEE_SNAPSHOTS": folder,
        "AZUREML_DEBUGGEE_STORY": snapshots.story,
        **({"AZUREML_DEBUGGEE_REDACT": snapshots.redact} if snapshots.redact else {}),
    }
