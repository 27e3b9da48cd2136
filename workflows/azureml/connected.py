"""A workspace that somebody is signed in to, by either SDK: what the rest of this program asks of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from ..settings import Settings
from .access import Access
from .errors import Say
from .place import Place


class Connected(Protocol):
    """A workspace, and who is signed in."""

    def access(self) -> Access:
        """The way to its services with a token that holds."""

    def cancel(self, run_id: str) -> None:
        """Ask for the end of a run.

        Raises:
            Exception: What the SDK raises, or requests.RequestException.
        """


@dataclass(frozen=True)
class ByV1:
    """A workspace by SDK v1.

    Attributes:
        sdk: The SDK's own.
    """

    sdk: Any

    def access(self) -> Access:
        """See :class:`Connected`."""
        return Access.of(self.sdk)

    def cancel(self, run_id: str) -> None:
        """See :class:`Connected`."""
        from azureml.pipeline.core import PipelineRun

        PipelineRun(self.sdk.get_run(run_id).experiment, run_id).cancel()


def connect(settings: Settings, place: Place, say: Say) -> Connected:
    """Sign in to the workspace of a place, by the SDK that the place says.

    Args:
        settings: The settings; what they say of the workspace does not count.
        place: The place.
        say: Shown what is waited for.

    Raises:
        UserError: It is not there, nobody is signed in, or there is no permission.
    """
    if place.sdk == "v2":
        from .v2.workspace import connect as by_v2

        return by_v2(place.settings(settings), say)
    from .workspace import connect as by_v1

    return ByV1(by_v1(place.settings(settings), say))
