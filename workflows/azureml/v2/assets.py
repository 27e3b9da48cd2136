"""Finds assets of a workspace or a registry by name: the version that is meant, and its properties."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any
from urllib.parse import quote, urlsplit

import requests

from ...errors import UserError
from ...received import message, name, one_line, sent_by, web_address
from ...settings import Settings
from ..data_references import AssetName
from ..errors import NotFound, Report, attempt
from ..history import child_object
from ..limited_requests import fetch_response
from ..workspace import find_workspace
from .workspace import Workspace, connect

#: Versions of the resource manager's API for assets, for secrets (with which it returns signatures in place of an
#: account's key), and for registries (azure-ai-ml 1.35, ``_registry_utils.py``).
ASSETS_VERSION, SECRETS_VERSION, REGISTRY_VERSION = "2023-04-01", "2025-12-01", "2021-10-01-dataplanepreview"
_SECONDS = 30.0
_SHOWN = 8
#: The name of each kind of asset, in the singular.
ASSET_KINDS = {"data": "data asset", "models": "model", "environments": "environment"}
#: The most assets of a kind that are listed to suggest similar names.
_MAX_LISTED = 1000


@dataclass(frozen=True)
class Asset:
    """One version of an asset.

    Attributes:
        named: Its name, with its version.
        properties: What the service says of it.
    """

    named: AssetName
    properties: Mapping[str, Any]

    def uri(self, key: str) -> str:
        """The address in one of its properties; empty where it has none."""
        return one_line(self.properties.get(key) or "", "an asset's address", 8192)


class Assets:
    """The assets of the workspace that the settings name.

    Args:
        settings: Which workspace, and who signs in.
        report: Called with what is being waited for.
        workspace: That workspace, where it is already connected.

    Raises:
        UserError: It cannot be reached; see :func:`~workflows.azureml.v2.workspace.connect`.
    """

    def __init__(self, settings: Settings, report: Report, workspace: Workspace | None = None) -> None:
        self._report = report
        named = find_workspace(settings)
        self._own = (named.subscription_id.lower(), named.resource_group.lower(), named.workspace.lower())
        self.workspace: Workspace = workspace or connect(settings, report)
        #: Which workspace it is.
        self.name = str(self.workspace.name)
        self._http = requests.Session()
        self._registries: dict[str, str] = {}

    def find(self, wanted: AssetName) -> Asset:
        """The asset with a name.

        Raises:
            UserError: There is none (the error lists similar names or its versions), or it is in another workspace.
        """
        what = f"{ASSET_KINDS[wanted.collection]} {wanted}"
        if wanted.workspace not in (None, self._own):
            there = wanted.workspace[2] if wanted.workspace else ""
            raise UserError(
                f"The {what} is in the workspace {there}, not in {self.name}.",
                "Set AML_WORKSPACE and what belongs to it, or name one of this workspace.",
            )
        name(wanted.name, f"the name of a {ASSET_KINDS[wanted.collection]}")
        # A missing registry is a different error than a missing asset, so it is looked up first.
        self._base(wanted.registry)
        with sent_by(self.description_of_source(wanted)):
            if wanted.label not in ("", "latest"):
                raise self._not_found_error(wanted)
            try:
                version = wanted.version or self._latest(wanted)
                path = f"{self._path(wanted)}/versions/{quote(name(version, 'a version'), safe='')}"
                found = self.get(path, f"reading the {what}", wanted.registry)
            except NotFound as error:
                raise self._not_found_error(wanted) from error
            named = AssetName(wanted.name, version, "", wanted.collection, wanted.registry)
            return Asset(named, child_object(found, "properties"))

    def description_of_source(self, wanted: AssetName) -> str:
        """The registry or workspace of an asset, for messages."""
        return (
            f"the registry {wanted.registry}" if wanted.registry else f"the workspace {self.workspace.name.workspace}"
        )

    def get(self, path: str, doing: str, registry: str = "", query: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Read a path of the workspace or of a registry.

        Args:
            path: The path below it, as it is written in an address.
            doing: What is being done, as in "reading a model".
            registry: The registry; empty for the workspace.
            query: The query parameters.

        Raises:
            UserError: It cannot be read.
        """
        address, version = self._base(registry)
        parameters = {"api-version": version, **(query or {})}

        def request() -> dict[str, Any]:
            authorization = self.workspace.access().authorization
            return message(fetch_response(self._http, f"{address}/{path}", authorization, parameters), "an answer")

        found: dict[str, Any] = attempt(request, doing, self._report)
        return found

    def post(self, path: str, body: Mapping[str, Any], doing: str, registry: str = "") -> dict[str, Any]:
        """Send a POST request that only reads, and return its response.

        Raises:
            UserError: The request failed.
        """
        address, version = self._base(registry)
        version = version if registry else SECRETS_VERSION

        def request() -> dict[str, Any]:
            with self._http.post(
                f"{address}/{path}",
                params={"api-version": version},
                headers={"Authorization": self.workspace.access().authorization},
                json=dict(body),
                timeout=_SECONDS,
            ) as answered:
                answered.raise_for_status()
                return message(answered.content, "an answer")

        found: dict[str, Any] = attempt(request, doing, self._report)
        return found

    # Registries

    def _base(self, registry: str) -> tuple[str, str]:
        """The address of the workspace or of a registry, and the version of its API."""
        if not registry:
            return f"{self.workspace.cloud.manager.rstrip('/')}{self.workspace.scope}", ASSETS_VERSION
        if registry not in self._registries:
            self._registries[registry] = self._discover_registry(registry)
        return self._registries[registry], REGISTRY_VERSION

    def _discover_registry(self, registry: str) -> str:
        """Find a registry's address, in the same way as azure-ai-ml."""
        name(registry, "a registry's name")
        start = self.workspace.cloud.registries.rstrip("/")
        if not start:
            raise UserError(
                f"The address for registries in the cloud {self.workspace.cloud.name} is not known.",
                "Set REGISTRY_DISCOVERY_ENDPOINT_URL to the address at which they are looked up.",
            )
        address = f"{start}/registrymanagement/v1.0/registries/{quote(registry, safe='')}/discovery"

        def request() -> dict[str, Any]:
            return message(fetch_response(self._http, address, self.workspace.access().authorization, {}), "a registry")

        try:
            registry_info = attempt(request, f"looking for the registry {registry}", self._report)
        except NotFound as error:
            raise NotFound(
                f"There is no registry {registry}, or it is not open to you.",
                "Correct its name; `az ml registry list` has those there are, and `azureml` is Microsoft's own.",
            ) from error
        base = web_address(registry_info.get("primaryRegionResourceProviderUri"), "an address").rstrip("/")
        if urlsplit(base).scheme != "https":
            raise UserError(
                f"The registry {registry} names an address that does not begin with https.", "Nothing was sent to it."
            )
        subscription, group = (name(registry_info.get(key), "a name") for key in ("subscriptionId", "resourceGroup"))
        return (
            f"{base}/mferp/managementfrontend/subscriptions/{subscription}/resourceGroups/{quote(group)}"
            f"/providers/Microsoft.MachineLearningServices/registries/{quote(registry, safe='')}"
        )

    # Versions

    def _path(self, wanted: AssetName) -> str:
        return f"{wanted.collection}/{quote(wanted.name, safe='')}"

    def _latest(self, wanted: AssetName) -> str:
        """The newest version: the service's latest version, else the one that was created last."""
        doing = f"looking for the newest version of the {ASSET_KINDS[wanted.collection]} {wanted.name}"
        about = child_object(self.get(self._path(wanted), doing, wanted.registry), "properties")
        if about.get("latestVersion"):
            return str(about["latestVersion"])
        versions = self._versions(wanted)
        if not versions:
            raise NotFound(f"There is no version of {wanted.name}.", "")
        return versions[0]

    def _versions(self, wanted: AssetName) -> list[str]:
        """The versions of an asset, the newest first."""
        doing = f"listing the versions of {wanted.name}"
        query = {"$orderBy": "createdtime desc", "$top": "100"}
        found = self.get(f"{self._path(wanted)}/versions", doing, wanted.registry, query)
        return [name(one.get("name"), "a version") for one in _values(found)]

    def _not_found_error(self, wanted: AssetName) -> NotFound:
        """The error for a missing asset, with its versions or similar names."""
        word, description_of_source = ASSET_KINDS[wanted.collection], self.description_of_source(wanted)
        problem = f"There is no {word} {wanted} in {description_of_source}."
        try:
            versions = self._versions(wanted)
        except NotFound:
            versions = []
        if versions:
            some = ", ".join(versions[:_SHOWN]) + (", …" if len(versions) > _SHOWN else "")
            return NotFound(problem, f"Its versions: {some}. Without a version the newest is taken.")
        if wanted.registry:
            return NotFound(
                problem, f"Correct its name; `az ml {word.split()[0]} list --registry-name` has those there are."
            )
        names = sorted(self._asset_names(wanted.collection))
        near = get_close_matches(wanted.name, names, n=3, cutoff=0.5) or names[:5]
        if not near:
            return NotFound(problem, f"It has none; https://ml.azure.com is where they are made: {wanted.collection}.")
        return NotFound(problem, f"There are: {', '.join(near)}.")

    def _asset_names(self, collection: str) -> list[str]:
        found: list[str] = []
        query = {"$top": "100"}
        while len(found) < _MAX_LISTED:
            page = self.get(collection, f"listing the {collection}", query=query)
            found += [name(one.get("name"), "a name") for one in _values(page)]
            skip = _skip_of(page.get("nextLink"))
            if not skip:
                break
            query = {**query, "$skip": skip}
        return found


def _values(page: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    value = page.get("value")
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _skip_of(link: Any) -> str:
    """Where the next page begins. The rest of its address is known, so the response's address is not used."""
    from urllib.parse import parse_qs

    found = parse_qs(urlsplit(link).query) if isinstance(link, str) else {}
    return (found.get("$skip") or found.get("$skipToken") or [""])[0]
