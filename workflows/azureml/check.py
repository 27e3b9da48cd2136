"""Everything that can be wrong with a workspace, looked at one after the other; nothing in it is changed."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import UserError
from ..findings import Finding
from ..settings import Settings
from . import sdk
from .errors import Say, attempt
from .workspace import find_workspace, open_workspace, sign_in

#: Seconds until silence of a host counts as its not being reachable.
_REACH_SECONDS = 10.0
_PERMISSIONS_VERSION = "2022-04-01"
_WORKSPACES = "Microsoft.MachineLearningServices/workspaces"
#: What has to be allowed for what (the resource provider's operations, Microsoft.MachineLearningServices).
NEEDED = {
    f"{_WORKSPACES}/experiments/runs/submit/action": "submitting runs (AML_BACKEND=azureml)",
    f"{_WORKSPACES}/experiments/runs/read": "following runs",
    f"{_WORKSPACES}/models/read": "finding models",
    f"{_WORKSPACES}/computes/read": "naming compute targets",
}


@dataclass(frozen=True)
class Compute:
    """A compute target.

    Attributes:
        name: Its name.
        kind: Such as ``AmlCompute``.
        state: Such as ``Succeeded``; of a compute instance, ``Running`` or ``Stopped``.
        nodes: Nodes there are now; None for what has no nodes.
        most: Nodes there may be.
        subnet: The subnet that its nodes are in, ``NETWORK/SUBNET``; empty where it is in none of the person's.
        public: A public address, if it has one.
        private: A private address, if it is told.
    """

    name: str
    kind: str
    state: str
    nodes: int | None
    most: int | None
    subnet: str
    public: str
    private: str


def findings(settings: Settings, say: Say) -> Iterator[Finding]:
    """Look at one thing after the other, as long as the next one makes sense."""
    try:
        yield Finding("SDK", True, f"azureml-core {sdk.load()}; its support ended on 2026-06-30")
        name = find_workspace(settings)
        where = f", of {name.source}" if name.source else ""
        yield Finding("settings", True, f"{name}{where}")
    except UserError as error:
        yield Finding("settings" if "workspace" in error.problem else "SDK", False, error.problem, error.remedy)
        return
    try:
        authentication = sign_in(settings, say)
    except UserError as error:
        yield Finding("sign-in", False, error.problem, error.remedy)
        return
    yield Finding("sign-in", True, settings.auth)
    try:
        workspace: Any = open_workspace(name, authentication, say)
    except UserError as error:
        yield Finding("workspace", False, error.problem, error.remedy)
        return
    details = workspace.get_details()
    yield Finding("workspace", True, f"{workspace.name}, in {details.get('location')}")
    looks: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("permissions", lambda: _permissions(workspace, say)),
        ("compute", lambda: _computes(workspace, settings.compute_target, say)),
        ("registry", lambda: _registry(workspace, details, say)),
        ("datastore", lambda: _datastore(workspace, say)),
    )
    for title, look in looks:
        try:
            yield from look()
        except UserError as error:
            yield Finding(title, False if title == "compute" else None, error.problem, error.remedy)


def _permissions(workspace: Any, say: Say) -> Iterator[Finding]:
    """What Azure's resource manager says is allowed (Microsoft.Authorization, Permissions: List For Resource)."""
    import requests

    def asked() -> list[Mapping[str, Any]]:
        address = (
            f"{workspace._auth._get_arm_end_point().rstrip('/')}{workspace.get_details()['id']}"
            "/providers/Microsoft.Authorization/permissions"
        )
        answer = requests.get(
            address,
            params={"api-version": _PERMISSIONS_VERSION},
            headers=workspace._auth.get_authentication_header(),
            timeout=_REACH_SECONDS,
        )
        answer.raise_for_status()
        return list(answer.json()["value"])

    granted = attempt(asked, "reading your permissions", say)
    missing = [use for action, use in NEEDED.items() if not allowed(granted, action)]
    if not missing:
        yield Finding("permissions", True, "runs may be submitted and followed, models and compute targets read")
        return
    yield Finding(
        "permissions",
        None,
        f"not allowed: {', '.join(missing)}",
        "Ask the workspace's owner for the role AzureML Data Scientist.",
    )


def allowed(granted: Sequence[Mapping[str, Any]], action: str) -> bool:
    """Whether one of the grants holds an action; patterns with `*`, whatever the case."""

    def holds(patterns: object) -> bool:
        texts = patterns if isinstance(patterns, list) else []
        return any(fnmatch.fnmatchcase(action.lower(), str(pattern).lower()) for pattern in texts)

    return any(holds(one.get("actions")) and not holds(one.get("notActions")) for one in granted)


def computes(workspace: Any, say: Say) -> tuple[Compute, ...]:
    """Every compute target.

    Raises:
        UserError: They cannot be listed.
    """
    found = attempt(lambda: dict(workspace.compute_targets), "listing the compute targets", say)
    return tuple(_compute(name, one.serialize()) for name, one in sorted(found.items()))


def _compute(name: str, told: Mapping[str, Any]) -> Compute:
    about = told.get("properties") or {}
    own, status = about.get("properties") or {}, about.get("status") or {}
    addresses, scale = own.get("connectivityEndpoints") or {}, own.get("scaleSettings") or {}
    parts = str((own.get("subnet") or {}).get("id") or "").split("/")
    return Compute(
        name=name,
        kind=str(about.get("computeType") or "compute"),
        state=str(status.get("state") or about.get("provisioningState") or "unknown"),
        nodes=status.get("currentNodeCount"),
        most=scale.get("maxNodeCount"),
        subnet=f"{parts[-3]}/{parts[-1]}" if len(parts) > 3 else "",
        public=str(addresses.get("publicIpAddress") or ""),
        private=str(addresses.get("privateIpAddress") or ""),
    )


def _computes(workspace: Any, wanted: str | None, say: Say) -> Iterator[Finding]:
    found = computes(workspace, say)
    names = [one.name for one in found]
    if wanted is not None and wanted not in names:
        there = f"There is {', '.join(names)}" if names else "It has none: create one at https://ml.azure.com"
        yield Finding(
            "compute",
            False,
            f"AML_COMPUTE_TARGET={wanted} is not a compute target of the workspace",
            f"{there}.",
        )
    elif not found:
        yield Finding(
            "compute",
            None,
            "the workspace has no compute target; pipelines need one",
            "Create one at https://ml.azure.com.",
        )
    for one in found:
        yield judged(one)


def judged(one: Compute) -> Finding:
    """Whether steps on a compute target can be debugged from here, and how."""
    title = "compute"
    parts = [one.name, f"{one.kind}, {one.state}"]
    if one.nodes is not None:
        parts.append(f"{one.nodes} of {one.most} nodes" if one.most is not None else f"{one.nodes} nodes")
    parts.append(f"in the virtual network {one.subnet}" if one.subnet else "in no virtual network of yours")
    parts += [f"public address {one.public}"] if one.public else []
    parts += [f"private address {one.private}"] if one.private else []
    text = "; ".join([": ".join(parts[:2]), *parts[2:]])
    if one.state in ("Failed", "Deleting", "Creating", "CreateFailed", "Unusable"):
        return Finding(title, None, text, "Runs on it wait or fail; see https://ml.azure.com, Compute.")
    if one.state == "Stopped":
        return Finding(title, None, text, "Start it at https://ml.azure.com, Compute.")
    if one.most == 0:
        return Finding(title, None, text, "It may have no nodes, so runs stay queued: raise its maximum.")
    if one.kind == "ComputeInstance":
        return Finding(title, True, text)
    if one.kind == "AmlCompute" and not one.subnet:
        return Finding(
            title,
            None,
            text,
            "Runs work; a debugger reaches its nodes only through a machine beside them: use a compute in a virtual"
            " network.",
        )
    if one.subnet:
        return Finding(title, True, text, "Debug with --remote through a machine in that network, or from within it.")
    return Finding(title, True, text)


def _registry(workspace: Any, details: Mapping[str, Any], say: Say) -> Iterator[Finding]:
    from ..engines.docker_client import engine_answers

    if not details.get("containerRegistry"):
        yield Finding("registry", True, "is made with the first image")
        return
    known = str(details["containerRegistry"]).rpartition("/")[2]
    address, how = f"{known}.azurecr.io", ""
    try:
        keys = attempt(workspace.list_keys, "reading the registry's user", say).get("containerRegistryCredentials")
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
    reason = _unreachable(address)
    if reason:
        yield Finding(
            "registry",
            None,
            f"{address} cannot be reached from here: {reason}",
            "Images cannot be pulled for deploy.build --source azureml; see to the network, or use --remote.",
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


def _datastore(workspace: Any, say: Say) -> Iterator[Finding]:
    store: Any = attempt(workspace.get_default_datastore, "reading the default datastore", say)
    account = getattr(store, "account_name", None)
    text = f"{store.name}: {store.datastore_type}" + (f" of the account {account}" if account else "")
    endpoint = getattr(store, "endpoint", None)
    reason = _unreachable(f"{account}.blob.{endpoint}") if account and endpoint else ""
    if reason:
        yield Finding(
            "datastore",
            None,
            f"{text}; it cannot be reached from here: {reason}",
            "Code is sent through it: see to the network or the account's firewall, or use --remote.",
        )
    else:
        yield Finding("datastore", True, text)


def _unreachable(host: str) -> str:
    """Why a host does not answer over HTTP; empty where it does, whatever it says."""
    import requests

    from .errors import innermost

    scheme = "http" if host.partition(":")[0] in ("127.0.0.1", "localhost") else "https"
    try:
        requests.get(f"{scheme}://{host}/v2/", timeout=_REACH_SECONDS)
    except requests.RequestException as error:
        return innermost(error)
    return ""
