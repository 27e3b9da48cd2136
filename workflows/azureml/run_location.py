"""Where a run in a workspace is, kept in its folder here."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..project import read_json, write_json
from ..settings import Settings

_FILE = "workspace.json"


@dataclass(frozen=True)
class RunLocation:
    """A run's place; nothing of it is secret.

    Attributes:
        subscription_id: The workspace's subscription.
        resource_group: Its resource group.
        workspace: Its name.
        auth: How the person signed in, as in AML_AUTH.
        run_id: The run's id.
        experiment: The experiment that it belongs to.
        page: Its page in the studio.
        sdk: The SDK that submitted it, ``v1`` or ``v2``, which signs in again and cancels it.
        single: Whether it is one job, and no pipeline of several.
        reach: The way to its nodes, as in AML_REACH; ``network`` where it has no ssh services.
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
        """Settings that lead to this workspace, whatever they say by now."""
        return replace(
            settings,
            subscription_id=self.subscription_id,
            resource_group=self.resource_group,
            workspace=self.workspace,
            auth=self.auth,
            sdk=self.sdk,
        )


def save_location(folder: Path, place: RunLocation) -> None:
    """Keep a run's place in its folder."""
    write_json(folder / _FILE, asdict(place))


def load_location(folder: Path) -> RunLocation | None:
    """The place of the run of a folder; None where there is none, or one that cannot be read."""
    values = read_json(folder / _FILE)
    try:
        return RunLocation(**values) if values is not None else None
    except TypeError:
        return None
