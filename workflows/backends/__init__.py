"""Where pipelines run: on this machine, or in an Azure ML workspace."""

from __future__ import annotations

from ..console import Console
from ..errors import UserError
from ..settings import Settings
from .base import Backend


def load(settings: Settings, console: Console) -> Backend:
    """The backend of ``AML_BACKEND``.

    Raises:
        UserError: It cannot be used.
    """
    if settings.backend != "local":
        raise UserError(
            "Pipelines in an Azure ML workspace are not there yet.", "Run it on this machine: AML_BACKEND=local"
        )
    from .local import LocalBackend

    return LocalBackend(settings, console)
