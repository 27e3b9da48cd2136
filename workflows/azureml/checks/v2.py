"""The check with SDK v2: plain requests, so that azure-ai-ml itself is not imported."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from ...errors import UserError
from ...findings import Finding
from ...settings import Settings
from .. import sdk_choice
from ..errors import SET_CLOCK, SIGNING_IN, Report, attempt, clock_difference
from ..history import child_object
from ..v2.clouds import find_cloud
from ..v2.credentials import make_credential
from ..v2.workspace import JOBS_VERSION, Workspace, require_v2, with_credential
from ..workspace import find_workspace
from . import resource_manager
from .resource_manager import WORKSPACES, Compute, Manager, parse_compute, reason_unreachable

#: What each required operation is needed for (resource provider Microsoft.MachineLearningServices).
NEEDED = {
    f"{WORKSPACES}/jobs/read": "following jobs",
    f"{WORKSPACES}/jobs/write": "submitting jobs (AML_BACKEND=azureml)",
    f"{WORKSPACES}/jobs/cancel/action": "cancelling jobs",
    f"{WORKSPACES}/codes/versions/write": "sending code",
    f"{WORKSPACES}/components/versions/write": "sending components",
    f"{WORKSPACES}/environments/versions/write": "sending environments",
    f"{WORKSPACES}/models/read": "finding models",
    f"{WORKSPACES}/computes/read": "naming compute targets",
}
_PROVIDER = "providers/Microsoft.MachineLearningServices"
_VERSION = {"api-version": JOBS_VERSION}
#: Seconds that this machine's clock may differ from Azure's before it is reported.
_CLOCK_SECONDS = 60.0


def findings(settings: Settings, report: Report) -> Iterator[Finding]:
    """Run the checks in order, as long as the next one makes sense."""
    yield Finding("SDK", True, f"{sdk_choice.PACKAGE} {sdk_choice.require_v2()}")
    try:
        name = find_workspace(settings)
    except UserError as error:
        yield Finding("settings", False, error.problem, error.remedy)
        return
    yield resource_manager.workspace_finding(name)
    try:
        cloud = attempt(find_cloud, "reading which clouds there are", report)
        signing = make_credential(settings, cloud)
        attempt(lambda: signing.get_token(cloud.scope), SIGNING_IN, report)
    except UserError as error:
        yield Finding("sign-in", False, error.problem, error.remedy)
        return
    yield _signed_in(settings, cloud.manager, cloud.machine_learning, signing, report)
    try:
        workspace = with_credential(name, cloud, signing, report)
    except UserError as error:
        yield Finding("workspace", False, error.problem, error.remedy)
        return
    yield Finding("workspace", True, f"{name.workspace}, in {workspace.location}")
    yield from _clock(workspace)
    try:
        require_v2(workspace)
        yield Finding("legacy mode", True, "v1_legacy_mode is off: jobs of SDK v2 are taken")
    except UserError as error:
        yield Finding("legacy mode", False, error.problem, error.remedy)
    access = workspace.access()
    asked, relay = Manager(access.manager, access.authorization, report), settings.reach != "network"
    targets: list[Compute] = []

    def computes() -> Iterator[Finding]:
        listed = asked.values(f"{access.scope}/computes", "listing the compute targets", **_VERSION)
        targets.extend(parse_compute(str(one.get("name")), one) for one in listed)
        targets.sort(key=lambda one: one.name)
        yield from resource_manager.compute_findings(targets, settings.compute_target, relay)

    yield from resource_manager.run_checks(
        (
            ("permissions", lambda: resource_manager.permission_findings(asked, access.scope, NEEDED)),
            ("compute", computes),
            ("quota", lambda: _quotas(asked, workspace, targets)),
            ("relay", lambda: _relay(workspace) if relay else iter(())),
            ("datastore", lambda: _datastore(asked, access.scope)),
        )
    )


def _signed_in(settings: Settings, first: str, second: str, signing: Any, report: Report) -> Finding:
    """Check the sign-in: a pipeline also needs a token for Azure ML itself, besides that for the resource manager."""
    try:
        attempt(lambda: signing.get_token(f"{second}/.default"), SIGNING_IN, report)
    except UserError as error:
        return Finding(
            "sign-in",
            None,
            f"{settings.auth}; no token for {second}, so pipelines cannot be submitted: {error.problem}",
            error.remedy,
        )
    return Finding("sign-in", True, f"{settings.auth}, for {first} and {second}")


def _clock(workspace: Workspace) -> Iterator[Finding]:
    if abs(workspace.clock_ahead) > _CLOCK_SECONDS:
        text = f"{clock_difference(workspace.clock_ahead)}; tokens may be refused"
        yield Finding("clock", None, text, SET_CLOCK)


def _quotas(asked: Manager, workspace: Workspace, targets: list[Compute]) -> Iterator[Finding]:
    """Check the quota for one more node of each cluster (Usages: List, Virtual Machine Sizes: List)."""
    clusters = [one for one in targets if one.kind == "AmlCompute" and one.size and one.nodes is not None]
    if not clusters:
        return
    place = f"/subscriptions/{workspace.name.subscription_id}/{_PROVIDER}/locations/{workspace.location}"
    usages = asked.values(f"{place}/usages", "reading the quota", **_VERSION)
    sizes = {
        str(one.get("name")).lower(): one for one in asked.values(f"{place}/vmSizes", "reading the sizes", **_VERSION)
    }
    for one in clusters:
        size = sizes.get(one.size.lower(), {})
        cores = size.get("vCPUs")
        free = _free(usages, str(size.get("family") or ""), one.low_priority)
        if not isinstance(cores, int) or not free:
            continue
        what, left = min(free, key=lambda pair: pair[1])
        text = f"{one.name}: {left} vCPUs left of {what}; a node ({one.size}) takes {cores}"
        if left < cores and not one.nodes:
            yield Finding(
                "quota", None, text, "Its runs stay queued: ask for more quota at https://ml.azure.com, Quota."
            )
        else:
            yield Finding("quota", True, text)


def _free(usages: list[Mapping[str, Any]], family: str, low_priority: bool) -> list[tuple[str, int]]:
    """The unused quota of the region and of a family of sizes. Low priority has one quota for all families."""
    found = []
    for one in usages:
        name, limit, used = child_object(one, "name"), one.get("limit"), one.get("currentValue")
        label = str(name.get("localizedValue") or name.get("value") or "")
        words, own = _letters(label), _letters(family)
        region = "totalclusterlowpriority" if low_priority else "totalclusterdedicatedregional"
        fits = words.startswith(region) or (not low_priority and own and words.startswith(own))
        # A negative limit is none.
        if fits and isinstance(limit, int) and isinstance(used, int) and limit >= 0:
            found.append((label, max(0, limit - used)))
    return found


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def relay_host(history: str) -> str:
    """A host for checking the relay of a workspace's region; empty where it is not known.

    A job's own host name is created when its service starts: ``ssh-….REGION.nodes.azureml.ms``. The region's other
    services are at ``REGION.api.azureml.ms``.

    Args:
        history: Address of the workspace's run history service.
    """
    parts = urlsplit(history)
    region, middle, rest = (parts.hostname or "").partition(".api.")
    port = f":{parts.port}" if parts.port else ""
    return f"ssh-check.{region}.nodes.{rest}{port}" if middle else ""


def _relay(workspace: Workspace) -> Iterator[Finding]:
    host = relay_host(workspace.history)
    if not host:
        yield Finding("relay", True, "its address is not known before a job has one")
        return
    reason = reason_unreachable(f"https://{host}/")
    if reason:
        yield Finding(
            "relay",
            None,
            f"{host} cannot be reached from here: {reason}",
            "Debuggers go through such a host to a job's own ssh service: let *.nodes.azureml.ms (443) through the"
            " firewall, or set AML_REACH=network.",
        )
    else:
        yield Finding("relay", True, f"{host} answers")


def _datastore(asked: Manager, scope: str) -> Iterator[Finding]:
    stores = asked.values(f"{scope}/datastores", "reading the default datastore", isDefault="true", **_VERSION)
    found = next((one for one in stores if child_object(one, "properties").get("isDefault") is True), None)
    if found is None:
        yield Finding(
            "datastore",
            None,
            "the workspace has no default datastore",
            "Code is sent through it: set one at https://ml.azure.com, Data, Datastores.",
        )
        return
    about = child_object(found, "properties")
    account, endpoint = about.get("accountName"), about.get("endpoint")
    text = f"{found.get('name')}: {about.get('datastoreType')}" + (f" of the account {account}" if account else "")
    yield resource_manager.datastore_finding(text, f"{account}.blob.{endpoint}" if account and endpoint else "")
