"""Checks of a workspace by Azure's resource manager, which are the same for both SDKs and only read."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import UserError
from ...findings import Finding
from ...received import message, web_address
from ..errors import Report, attempt, innermost
from ..history import child_object
from ..limited_requests import fetch_response
from ..workspace import WorkspaceName

#: The checks with their names.
Checks = Sequence[tuple[str, Callable[[], Iterator[Finding]]]]

#: Seconds without a response after which a host counts as unreachable.
REACH_SECONDS = 10.0
_PERMISSIONS_VERSION = "2022-04-01"
#: The most pages of one list.
_PAGES = 100
#: The resource provider's operations on a workspace begin so.
WORKSPACES = "Microsoft.MachineLearningServices/workspaces"


class Manager:
    """Sends read-only requests to the resource manager.

    Args:
        address: The resource manager's address.
        authorization: The value of the Authorization header.
        report: Called with what is being waited for.
    """

    def __init__(self, address: str, authorization: str, report: Report) -> None:
        self._address, self._authorization, self._report = address.rstrip("/"), authorization, report

    def values(self, path: str, doing: str, **parameters: str) -> list[Mapping[str, Any]]:
        """Every value of a list.

        Args:
            path: The list's path.
            doing: What is being done, as in "listing the compute targets".
            **parameters: The query parameters.

        Raises:
            UserError: The request failed.
        """
        found: list[Mapping[str, Any]] = []
        address, more = f"{self._address}{path}", parameters
        for _ in range(_PAGES):
            description = self._asked(address, doing, more)
            values = description.get("value")
            found += [one for one in values if isinstance(one, dict)] if isinstance(values, list) else []
            following = description.get("nextLink")
            # The token must not be sent to another host.
            if not isinstance(following, str) or not following.startswith(f"{self._address}/"):
                break
            address, more = web_address(following, "an address"), {}
        return found

    def _asked(self, address: str, doing: str, parameters: Mapping[str, str]) -> Mapping[str, Any]:
        import requests

        with requests.Session() as http:
            return attempt(
                lambda: message(fetch_response(http, address, self._authorization, parameters), "a list"),
                doing,
                self._report,
            )


def workspace_finding(name: WorkspaceName) -> Finding:
    """The finding that names the workspace, and the file that names it."""
    return Finding("settings", True, f"{name}{f', of {name.source}' if name.source else ''}")


def run_checks(looks: Checks) -> Iterator[Finding]:
    """The findings of each check. A check that fails does not stop the others."""
    for title, look in looks:
        try:
            yield from look()
        except UserError as error:
            yield Finding(title, False if title == "compute" else None, error.problem, error.remedy)


@dataclass(frozen=True)
class Compute:
    """A compute target.

    Attributes:
        name: Its name.
        kind: Such as ``AmlCompute``.
        state: Such as ``Succeeded``; of a compute instance, ``Running`` or ``Stopped``.
        nodes: The current number of nodes; None for a target without nodes.
        most: The maximum number of nodes.
        subnet: The subnet of its nodes, ``NETWORK/SUBNET``; empty where it is in none of the user's networks.
        public: A public address, if it has one.
        private: A private address, if it is known.
        size: The size of its nodes, such as ``Standard_D2_v2``, if it is known.
        low_priority: Whether its nodes have low priority, for which there is a separate quota.
    """

    name: str
    kind: str
    state: str
    nodes: int | None
    most: int | None
    subnet: str
    public: str
    private: str
    size: str = ""
    low_priority: bool = False


def permission_findings(manager: Manager, scope: str, needed: Mapping[str, str]) -> Iterator[Finding]:
    """Check the user's permissions (Microsoft.Authorization, Permissions: List For Resource).

    Args:
        manager: The resource manager.
        scope: The workspace's path.
        needed: What each operation is needed for.
    """
    granted = manager.values(
        f"{scope}/providers/Microsoft.Authorization/permissions",
        "reading your permissions",
        **{"api-version": _PERMISSIONS_VERSION},
    )
    missing = [use for action, use in needed.items() if not is_allowed(granted, action)]
    if not missing:
        yield Finding("permissions", True, "runs may be submitted and followed, models and compute targets read")
        return
    yield Finding(
        "permissions",
        None,
        f"not allowed: {', '.join(dict.fromkeys(missing))}",
        "Ask the workspace's owner for the role AzureML Data Scientist.",
    )


def is_allowed(granted: Sequence[Mapping[str, Any]], action: str) -> bool:
    """Whether one of the grants allows an action. Patterns may have `*`; case is ignored."""

    def holds(patterns: object) -> bool:
        texts = patterns if isinstance(patterns, list) else []
        return any(fnmatch.fnmatchcase(action.lower(), str(pattern).lower()) for pattern in texts)

    return any(holds(one.get("actions")) and not holds(one.get("notActions")) for one in granted)


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def parse_compute(name: str, description: Mapping[str, Any]) -> Compute:
    """A compute target from the resource manager's description, which SDK v1 returns as well."""
    about = child_object(description, "properties")
    own, status = child_object(about, "properties"), child_object(about, "status")
    addresses, scale = child_object(own, "connectivityEndpoints"), child_object(own, "scaleSettings")
    parts = str(child_object(own, "subnet").get("id") or "").split("/")
    nodes = _number(status.get("currentNodeCount"))
    return Compute(
        name=name,
        kind=str(about.get("computeType") or "compute"),
        # SDK v1 puts the state beside the other properties.
        state=str(status.get("state") or own.get("state") or about.get("provisioningState") or "unknown"),
        nodes=_number(own.get("currentNodeCount")) if nodes is None else nodes,
        most=_number(scale.get("maxNodeCount")),
        subnet=f"{parts[-3]}/{parts[-1]}" if len(parts) > 3 else "",
        public=str(addresses.get("publicIpAddress") or ""),
        private=str(addresses.get("privateIpAddress") or ""),
        size=str(own.get("vmSize") or ""),
        low_priority=str(own.get("vmPriority") or "").lower() == "lowpriority",
    )


def compute_findings(found: Sequence[Compute], wanted: str | None, relay: bool) -> Iterator[Finding]:
    """The findings for all compute targets.

    Args:
        found: The workspace's compute targets.
        wanted: The one that AML_COMPUTE_TARGET names.
        relay: Whether steps are reached by their own ssh service.
    """
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
        yield compute_finding(one, relay)


def compute_finding(one: Compute, relay: bool = False) -> Finding:
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
    if relay:
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


def datastore_finding(text: str, host: str) -> Finding:
    """Whether the storage behind the default datastore can be reached.

    Args:
        text: What it is.
        host: Its blob service; empty where it has none.
    """
    reason = reason_unreachable(f"https://{host}/") if host else ""
    if reason:
        return Finding(
            "datastore",
            None,
            f"{text}; it cannot be reached from here: {reason}",
            "Code is sent through it: see to the network or the account's firewall, or use --remote.",
        )
    return Finding("datastore", True, text)


def reason_unreachable(address: str) -> str:
    """Why an address cannot be reached; empty where there is any response."""
    import requests

    try:
        requests.get(web_address(address, "an address"), timeout=REACH_SECONDS, stream=True).close()
    except (requests.RequestException, UserError) as error:
        return innermost(error)
    return ""
