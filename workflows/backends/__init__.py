"""Where pipelines run: on this machine, or in an Azure ML workspace."""

from __future__ import annotations

from ..console import Console
from ..settings import Settings
from .base import Backend


def load(settings: Settings, console: Console) -> Backend:
    """The backend of ``AML_BACKEND``.

    Raises:
        UserError: It cannot be used.
    """
    if settings.backend == "azureml":
        from .azureml import AzureBackend

        return AzureBackend(settings, console)
    from .local import LocalBackend

    return LocalBackend(settings, console)
