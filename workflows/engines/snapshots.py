"""The environment variables for snapshots of failures and for summaries of values."""

from __future__ import annotations

from ..models import Snapshots


def snapshot_variables(snapshots: Snapshots | None, folder: str) -> dict[str, str]:
    """The variables that make a process leave a snapshot where it fails.

    Args:
        snapshots: Settings of snapshots; None for no snapshots.
        folder: The folder for them, as the process sees it.
    """
    if snapshots is None:
        return {}
    return {
        "AZUREML_DEBUGGEE_SNAPSHOTS": folder,
        "AZUREML_DEBUGGEE_STORY": snapshots.story,
        **({"AZUREML_DEBUGGEE_REDACT": snapshots.redact} if snapshots.redact else {}),
    }


def summary_variables(summaries: bool) -> dict[str, str]:
    """The variables that switch off descriptions of tensors and tables for debuggers.

    Args:
        summaries: Whether they are on; then there are no variables.
    """
    return {} if summaries else {"AZUREML_DEBUGGEE_SUMMARIES": "off"}
