"""A workspace that somebody is signed in to, by either SDK: what the rest of this program asks of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ..settings import Settings
from .access import Access
from .errors import Report
from .run_location import RunLocation

if TYPE_CHECKING:
    from .history import RunHistory


class Connected(Protocol):
    """A workspace, and who is signed in."""

    def access(self) -> Access:
        """The way to its services with a token that holds."""

    def cancel(self, run_id: str) -> None:
        """Ask for the end of a run.

        Raises:
            Exception: What the SDK raises, or requests.RequestException.
        """

    def outputs(self, history: RunHistory, run_id: str, pipeline: str) -> dict[str, str]:
        """Where the outputs of a step lie: addresses by name.

        Args:
            history: The workspace's run history.
            run_id: The step's run.
            pipeline: The run that it is a step of.

        Raises:
            Exception: What the SDK raises, or as :meth:`RunHistory.run`.
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
        return Access.from_v1_workspace(self.sdk)

    def cancel(self, run_id: str) -> None:
        """See :class:`Connected`."""
        from azureml.pipeline.core import PipelineRun

        PipelineRun(self.sdk.get_run(run_id).experiment, run_id).cancel()

    def outputs(self, history: RunHistory, run_id: str, pipeline: str) -> dict[str, str]:
        """See :class:`Connected`."""
        from azureml.pipeline.core import PipelineRun

        from ..received import name, text
        from .data_references import DatastorePath
        from .graph import plain

        found = {}
        steps = PipelineRun(self.sdk.get_run(pipeline).experiment, pipeline).get_steps()
        step = next((step for step in steps if step.id == run_id), None)
        if step is None:
            return {}
        before = plain(f"{step.name}_")
        for port, told in step.get_outputs().items():
            place = told.get_port_data_reference()
            path = text(place.path_on_datastore.strip("/"), "a path on a datastore")
            found[port.removeprefix(before)] = str(
                DatastorePath(name(place.datastore.name, "a datastore's name"), path)
            )
        return found


def connect(settings: Settings, place: RunLocation, report: Report) -> Connected:
    """Sign in to the workspace of a place, by the SDK that the place says.

    Args:
        settings: The settings; what they say of the workspace does not count.
        place: The place.
        report: Called with what is being waited for.

    Raises:
        UserError: It is not there, nobody is signed in, or there is no permission.
    """
    if place.sdk == "v2":
        from .v2.workspace import connect as by_v2

        return by_v2(place.settings(settings), report)
    from .workspace import connect as by_v1

    return ByV1(by_v1(place.settings(settings), report))
