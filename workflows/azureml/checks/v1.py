"""The check with SDK v1: the SDK's own words where it has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...errors import UserError
from ...findings import Finding
from ...settings import Settings
from .. import sdk
from ..errors import Report, attempt
from ..workspace import find_workspace, open_workspace, sign_in
from . import resource_manager
from .resource_manager import WORKSPACES, Manager, parse_compute, reason_unreachable

#: What has to be allowed for what (the resource provider's operations, Microsoft.MachineLearningServices).
NEEDED = {
    f"{WORKSPACES}/experiments/runs/submit/action": "submitting runs (AML_BACKEND=azureml)",
    f"{WORKSPACES}/experiments/runs/read": "following runs",
    f"{WORKSPACES}/models/read": "finding models",
    f"{WORKSPACES}/computes/read": "naming compute targets",
}


def findings(settings: Settings, report: Report) -> Iterator[Finding]:
    """Look at one thing after the other, as long as the next one makes sense."""
    try:
        yield Finding("SDK", True, f"azureml-core {sdk.load()}; its support ended on 2026-06-30")
    except UserError as error:
        yield Finding("SDK", False, error.problem, error.remedy)
        return
    try:
        name = find_workspace(settings)
    except UserError as error:
        yield Finding("settings", False, error.problem, error.remedy)
        return
    yield resource_manager.workspace_finding(name)
    try:
        authentication = sign_in(settings, report)
    except UserError as error:
        yield Finding("sign-in", False, error.problem, error.remedy)
        return
    yield Finding("sign-in", True, settings.auth)
    try:
        workspace: Any = open_workspace(name, authentication, report)
    except UserError as error:
        yield Finding("workspace", False, error.problem, error.remedy)
        return
    details = workspace.get_details()
    yield Finding("workspace", True, f"{workspace.name}, in {details.get('location')}")
    checks: resource_manager.Checks = (
        ("permissions", lambda: _permissions(workspace, report)),
        ("compute", lambda: _computes(workspace, settings.compute_target, report)),
        ("registry", lambda: _registry(workspace, details, report)),
        ("datastore", lambda: _datastore(workspace, report)),
    )
    yield from resource_manager.run_checks(checks)


def _permissions(workspace: Any, report: Report) -> Iterator[Finding]:
    authorization = workspace._auth.get_authentication_header()["Authorization"]
    asked = Manager(workspace._auth._get_arm_end_point(), authorization, report)
    yield from resource_manager.permission_findings(asked, workspace.get_details()["id"], NEEDED)


def _computes(workspace: Any, wanted: str | None, report: Report) -> Iterator[Finding]:
    description = attempt(lambda: dict(workspace.compute_targets), "listing the compute targets", report)
    found = [parse_compute(name, one.serialize()) for name, one in sorted(description.items())]
    yield from resource_manager.compute_findings(found, wanted, relay=False)


def _registry(workspace: Any, details: Mapping[str, Any], report: Report) -> Iterator[Finding]:
    from ...engines.docker_client import engine_answers

    if not details.get("containerRegistry"):
        yield Finding("registry", True, "is made with the first image")
        return
    known = str(details["containerRegistry"]).rpartition("/")[2]
    address, how = f"{known}.azurecr.io", ""
    try:
        keys = attempt(workspace.list_keys, "reading the registry's user", report).get("containerRegistryCredentials")
        place = str((keys or {}).get("location") or "")
        # Its host, or only the region that it is in.
        address = place if "." in place else address
        how = "with the workspace's own user" if keys else ""
    except UserError:
        how = ""
    if not engine_answers():
        yield Finding(
            "registry", None, f"{address}: no Docker engine answers here", "deploy.build --source azureml needs one."
        )
        return
    scheme = "http" if address.partition(":")[0] in ("127.0.0.1", "localhost") else "https"
    reason = reason_unreachable(f"{scheme}://{address}/v2/")
    if reason:
        yield Finding(
            "registry",
            None,
            f"{address} cannot be reached from here: {reason}",
            "Images cannot be pulled for deploy.build --source azureml; check the network, or use --remote.",
        )
    elif how:
        yield Finding("registry", True, f"{address} answers; images are pulled {how}")
    else:
        yield Finding(
            "registry",
            None,
            f"{address} answers; the workspace does not give its user",
            f"Before deploy.build --source azureml: az acr login --name {known}",
        )


def _datastore(workspace: Any, report: Report) -> Iterator[Finding]:
    store: Any = attempt(workspace.get_default_datastore, "reading the default datastore", report)
    account, endpoint = getattr(store, "account_name", None), getattr(store, "endpoint", None)
    text = f"{store.name}: {store.datastore_type}" + (f" of the account {account}" if account else "")
    yield resource_manager.datastore_finding(text, f"{account}.blob.{endpoint}" if account and endpoint else "")
