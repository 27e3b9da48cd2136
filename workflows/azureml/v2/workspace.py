"""Connects to a workspace by plain REST: looks it up, and finds its services and whether it accepts SDK v2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import requests

from ... import watched_requests  # noqa: F401
from ...errors import UserError
from ...received import as_json, message, web_address
from ...settings import Settings
from ..access import Access, RenewingAccess
from ..errors import SIGNING_IN, NotFound, Report, attempt, clock_ahead
from ..history import RunHistory, child_object
from ..limited_requests import fetch_response
from ..sdk import install_command
from ..workspace import WorkspaceName, find_workspace
from .clouds import Cloud, find_cloud
from .credentials import make_credential

#: Versions of the resource manager's API for workspaces and for jobs.
_WORKSPACES_VERSION, JOBS_VERSION = "2023-10-01", "2023-04-01"


@dataclass(frozen=True)
class Workspace:
    """A workspace that the user is signed in to.

    Attributes:
        name: Its name.
        cloud: The cloud that it is in.
        credential: Provides tokens.
        history: Address of its run history service.
        location: Its region.
        legacy: Whether it refuses requests of SDK v2 (``v1_legacy_mode``).
        clock_ahead: Seconds by which this machine's clock was ahead of Azure's.
    """

    name: WorkspaceName
    cloud: Cloud
    credential: Any
    history: str
    location: str
    legacy: bool
    clock_ahead: float = 0.0

    @property
    def scope(self) -> str:
        """The workspace's path in Azure."""
        return _scope(self.name)

    def access(self) -> Access:
        """The addresses of its services, with a valid token."""
        token = self.credential.get_token(self.cloud.scope)
        return Access(self.history, self.cloud.manager, self.scope, f"Bearer {token.token}", float(token.expires_on))

    def client(self) -> Any:
        """The SDK's client for this workspace, without retries: this program retries, and reports it."""
        from azure.ai.ml import MLClient

        name = self.name
        return MLClient(
            self.credential,
            name.subscription_id,
            name.resource_group,
            name.workspace,
            enable_telemetry=False,
            show_progress=False,
            retry_total=0,
        )

    def page(self, run_id: str) -> str:
        """A run's page in the studio."""
        return f"{self.cloud.machine_learning.rstrip('/')}/runs/{run_id}?wsid={self.scope}"

    def cancel(self, run_id: str) -> None:
        """Ask the workspace to cancel a job.

        Raises:
            requests.RequestException: The request failed.
        """
        RunHistory(RenewingAccess(None, self.access)).cancel_job(run_id)

    def outputs(self, history: RunHistory, run_id: str, pipeline: str) -> dict[str, str]:
        """See :class:`~workflows.azureml.connection.WorkspaceConnection`."""
        return history.outputs(run_id, JOBS_VERSION)


def connect(settings: Settings, report: Report = lambda line: None) -> Workspace:
    """Sign in and look up the workspace.

    Args:
        settings: Which workspace, and who signs in.
        report: Called with what is being waited for.

    Raises:
        UserError: No workspace is set or it does not exist, nobody is signed in, or the permission is missing.
    """
    name = find_workspace(settings)
    cloud = attempt(find_cloud, "reading which clouds there are", report)
    return with_credential(name, cloud, make_credential(settings, cloud), report)


def with_credential(name: WorkspaceName, cloud: Cloud, signing: Any, report: Report) -> Workspace:
    """Look up a workspace; see :func:`connect`."""
    token = attempt(lambda: signing.get_token(cloud.scope), SIGNING_IN, report)
    try:
        return attempt(lambda: _look_up(name, cloud, signing, token.token), "reading the workspace", report)
    except NotFound as error:
        source = f" or {name.source}" if name.source else ""
        raise NotFound(
            f"There is no Azure ML workspace {name}.",
            f"Correct AML_WORKSPACE, AML_RESOURCE_GROUP{source}; `az ml workspace list` has those there are.",
        ) from error


def require_v2(workspace: Workspace) -> None:
    """Check that a workspace accepts requests of SDK v2.

    Raises:
        UserError: It is in legacy mode.
    """
    if workspace.legacy:
        raise UserError(
            f"The workspace {workspace.name.workspace} accepts no jobs of SDK v2: v1_legacy_mode is on.",
            f"Set AML_SDK=v1 ({install_command('v1')}), or have the workspace's owner turn it off:"
            f" az ml workspace update -n {workspace.name.workspace} --set v1_legacy_mode=false",
        )


def _look_up(name: WorkspaceName, cloud: Cloud, signing: Any, token: str) -> Workspace:
    with requests.Session() as http:
        address = f"{cloud.manager.rstrip('/')}{_scope(name)}"
        ahead: list[float] = []
        http.hooks["response"].append(lambda found, **_: ahead.append(clock_ahead(found.headers)))
        response = message(
            fetch_response(http, address, f"Bearer {token}", {"api-version": _WORKSPACES_VERSION}), "a workspace"
        )
        properties = child_object(response, "properties")
        discovery = web_address(properties.get("discoveryUrl"), "an address")
        services = as_json(fetch_response(http, discovery, f"Bearer {token}", {}), "a list of services")
    history = child_object({"services": services}, "services").get("history")
    return Workspace(
        name=name,
        cloud=cloud,
        credential=signing,
        history=web_address(history, "an address"),
        location=str(response.get("location") or ""),
        legacy=properties.get("v1LegacyMode") is True,
        clock_ahead=ahead[0],
    )


def _scope(name: WorkspaceName) -> str:
    return (
        f"/subscriptions/{name.subscription_id}/resourceGroups/{name.resource_group}"
        f"/providers/Microsoft.MachineLearningServices/workspaces/{name.workspace}"
    )
