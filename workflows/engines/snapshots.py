"""What a program is told about leaving a snapshot where it fails, and about how its values are shown."""

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


def summary_variables(summaries: bool) -> dict[str, str]:
    """What keeps a process from having tensors and tables described to debuggers, where that is not wanted.

    Args:
        summaries: Whether it is.
    """
    return {} if summaries else {"AZUREML_DEBUGGEE_SUMMARIES": "off"}
