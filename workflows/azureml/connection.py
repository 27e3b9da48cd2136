"""A signed-in connection to a workspace by either SDK, with what the rest of this program needs of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ..settings import Settings
from .access import Access
from .errors import Report
from .run_location import RunLocation

if TYPE_CHECKING:
    from .history import RunHistory


class WorkspaceConnection(Protocol):
    """A workspace that the user is signed in to."""

    def access(self) -> Access:
        """The addresses of its services, with a valid token."""

    def cancel(self, run_id: str) -> None:
        """Ask the workspace to cancel a run.

        Raises:
            Exception: What the SDK raises, or requests.RequestException.
        """

    def outputs(self, history: RunHistory, run_id: str, pipeline: str) -> dict[str, str]:
        """The addresses of a step's outputs, by name.

        Args:
            history: The workspace's run history.
            run_id: The step's run.
            pipeline: The run that it is a step of.

        Raises:
            Exception: What the SDK raises, or as :meth:`RunHistory.run`.
        """


@dataclass(frozen=True)
class V1Connection:
    """A workspace that SDK v1 is connected to.

    Attributes:
        sdk: The SDK's Workspace.
    """

    sdk: Any

    def access(self) -> Access:
        """See :class:`WorkspaceConnection`."""
        return Access.from_v1_workspace(self.sdk)

    def cancel(self, run_id: str) -> None:
        """See :class:`WorkspaceConnection`."""
        from azureml.pipeline.core import PipelineRun

        PipelineRun(self.sdk.get_run(run_id).experiment, run_id).cancel()

    def outputs(self, history: RunHistory, run_id: str, pipeline: str) -> dict[str, str]:
        """See :class:`WorkspaceConnection`."""
        from azureml.pipeline.core import PipelineRun

        from ..received import name, text
        from .data_references import DatastorePath
        from .graph import port_name

        found = {}
        steps = PipelineRun(self.sdk.get_run(pipeline).experiment, pipeline).get_steps()
        step = next((step for step in steps if step.id == run_id), None)
        if step is None:
            return {}
        before = port_name(f"{step.name}_")
        for port, output in step.get_outputs().items():
            place = output.get_port_data_reference()
            path = text(place.path_on_datastore.strip("/"), "a path on a datastore")
            found[port.removeprefix(before)] = str(
                DatastorePath(name(place.datastore.name, "a datastore's name"), path)
            )
        return found


def connect(settings: Settings, place: RunLocation, report: Report) -> WorkspaceConnection:
    """Sign in to the workspace of a run, with the SDK that submitted the run.

    Args:
        settings: The settings; their workspace and SDK are not used.
        place: The run's location.
        report: Called with what is being waited for.

    Raises:
        UserError: The workspace does not exist, nobody is signed in, or the permission is missing.
    """
    if place.sdk == "v2":
        from .v2.workspace import connect as by_v2

        return by_v2(place.settings(settings), report)
    from .workspace import connect as by_v1

    return V1Connection(by_v1(place.settings(settings), report))
