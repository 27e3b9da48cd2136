"""The location of a run in a workspace, saved in the run's folder here."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..project import read_json, write_json
from ..settings import Settings

_FILE = "workspace.json"


@dataclass(frozen=True)
class RunLocation:
    """A run's workspace, id and page. Nothing in it is secret.

    Attributes:
        subscription_id: The workspace's subscription.
        resource_group: Its resource group.
        workspace: Its name.
        auth: How the person signed in, as in AML_AUTH.
        run_id: The run's id.
        experiment: The experiment that it belongs to.
        page: Its page in the studio.
        sdk: The SDK that submitted it, ``v1`` or ``v2``; the same one signs in again and cancels it.
        single: Whether it is a single job rather than a pipeline.
        reach: The route to its nodes, as in AML_REACH; ``network`` where it has no SSH services.
    """

    subscription_id: str
    resource_group: str
    workspace: str
    auth: str
    run_id: str = ""
    experiment: str = ""
    page: str = ""
    sdk: str = "v1"
    single: bool = False
    reach: str = "network"

    def settings(self, settings: Settings) -> Settings:
        """The settings with this workspace and sign-in in the place of their own."""
        return replace(
            settings,
            subscription_id=self.subscription_id,
            resource_group=self.resource_group,
            workspace=self.workspace,
            auth=self.auth,
            sdk=self.sdk,
        )


def save_location(folder: Path, place: RunLocation) -> None:
    """Save a run's location in its folder."""
    write_json(folder / _FILE, asdict(place))


def load_location(folder: Path) -> RunLocation | None:
    """Read the location of a folder's run; None where there is none or it cannot be read."""
    values = read_json(folder / _FILE)
    try:
        return RunLocation(**values) if values is not None else None
    except TypeError:
        return None
