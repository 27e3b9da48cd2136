"""Assets of a workspace and of registries by name: which version is meant, and what it is."""

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

#: Versions of the resource manager's interface, of which the second gives signatures in place of an account's key, and
#: of a registry's (azure-ai-ml 1.35, ``_registry_utils.py``).
ASSETS_VERSION, SECRETS_VERSION, REGISTRY_VERSION = "2023-04-01", "2025-12-01", "2021-10-01-dataplanepreview"
_SECONDS = 30.0
_SHOWN = 8
#: What one asset of a collection is called.
WORDS = {"data": "data asset", "models": "model", "environments": "environment"}
#: Assets of a kind that are listed to name near ones.
_LISTED = 1000


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
        """An address among its properties; empty where it has none."""
        return one_line(self.properties.get(key) or "", "an asset's address", 8192)


class Assets:
    """The assets of the workspace that the settings name.

    Args:
        settings: Which workspace, and who signs in.
        report: Called with what is being waited for.
        workspace: That workspace, where it has been reached already.

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
        """The asset that is named.

        Raises:
            UserError: There is none, with near names or the versions there are; or it is one of another workspace.
        """
        what = f"{WORDS[wanted.collection]} {wanted}"
        if wanted.workspace not in (None, self._own):
            there = wanted.workspace[2] if wanted.workspace else ""
            raise UserError(
                f"The {what} is one of the workspace {there}, not of {self.name}.",
                "Set AML_WORKSPACE and what belongs to it, or name one of this workspace.",
            )
        name(wanted.name, f"the name of a {WORDS[wanted.collection]}")
        # That there is no such registry is another error than that it has no such asset.
        self._base(wanted.registry)
        with sent_by(self.home(wanted)):
            if wanted.label not in ("", "latest"):
                raise self._no_version(wanted)
            try:
                version = wanted.version or self._latest(wanted)
                path = f"{self._path(wanted)}/versions/{quote(name(version, 'a version'), safe='')}"
                found = self.get(path, f"reading the {what}", wanted.registry)
            except NotFound as error:
                raise self._no_version(wanted) from error
            named = AssetName(wanted.name, version, "", wanted.collection, wanted.registry)
            return Asset(named, child_object(found, "properties"))

    def home(self, wanted: AssetName) -> str:
        """Where an asset is, in words."""
        return (
            f"the registry {wanted.registry}" if wanted.registry else f"the workspace {self.workspace.name.workspace}"
        )

    def get(self, path: str, doing: str, registry: str = "", query: Mapping[str, str] | None = None) -> dict[str, Any]:
        """What a path of the workspace, or of a registry, has.

        Args:
            path: Below it, as it stands in an address.
            doing: What is being done, as in "reading a model".
            registry: The registry; empty for the workspace.
            query: What is added to the address.

        Raises:
            UserError: It cannot be had.
        """
        address, version = self._base(registry)
        parameters = {"api-version": version, **(query or {})}

        def asked() -> dict[str, Any]:
            authorization = self.workspace.access().authorization
            return message(fetch_response(self._http, f"{address}/{path}", authorization, parameters), "an answer")

        found: dict[str, Any] = attempt(asked, doing, self._report)
        return found

    def post(self, path: str, body: Mapping[str, Any], doing: str, registry: str = "") -> dict[str, Any]:
        """What is answered to a question with a body; nothing is changed by it.

        Raises:
            UserError: It cannot be had.
        """
        address, version = self._base(registry)
        version = version if registry else SECRETS_VERSION

        def asked() -> dict[str, Any]:
            with self._http.post(
                f"{address}/{path}",
                params={"api-version": version},
                headers={"Authorization": self.workspace.access().authorization},
                json=dict(body),
                timeout=_SECONDS,
            ) as answered:
                answered.raise_for_status()
                return message(answered.content, "an answer")

        found: dict[str, Any] = attempt(asked, doing, self._report)
        return found

    # Registries

    def _base(self, registry: str) -> tuple[str, str]:
        """Address of the workspace, or of a registry, and the version of its interface."""
        if not registry:
            return f"{self.workspace.cloud.manager.rstrip('/')}{self.workspace.scope}", ASSETS_VERSION
        if registry not in self._registries:
            self._registries[registry] = self._discovered(registry)
        return self._registries[registry], REGISTRY_VERSION

    def _discovered(self, registry: str) -> str:
        """A registry's address, as azure-ai-ml finds it."""
        name(registry, "a registry's name")
        start = self.workspace.cloud.registries.rstrip("/")
        if not start:
            raise UserError(
                f"Where the cloud {self.workspace.cloud.name} keeps registries is not known.",
                "Set REGISTRY_DISCOVERY_ENDPOINT_URL to the address at which they are looked up.",
            )
        address = f"{start}/registrymanagement/v1.0/registries/{quote(registry, safe='')}/discovery"

        def asked() -> dict[str, Any]:
            return message(fetch_response(self._http, address, self.workspace.access().authorization, {}), "a registry")

        try:
            told = attempt(asked, f"looking for the registry {registry}", self._report)
        except NotFound as error:
            raise NotFound(
                f"There is no registry {registry}, or it is not open to you.",
                "Correct its name; `az ml registry list` has those there are, and `azureml` is Microsoft's own.",
            ) from error
        base = web_address(told.get("primaryRegionResourceProviderUri"), "an address").rstrip("/")
        if urlsplit(base).scheme != "https":
            raise UserError(
                f"The registry {registry} names an address that is none of https.", "Nothing was sent to it."
            )
        subscription, group = (name(told.get(key), "a name") for key in ("subscriptionId", "resourceGroup"))
        return (
            f"{base}/mferp/managementfrontend/subscriptions/{subscription}/resourceGroups/{quote(group)}"
            f"/providers/Microsoft.MachineLearningServices/registries/{quote(registry, safe='')}"
        )

    # Versions

    def _path(self, wanted: AssetName) -> str:
        return f"{wanted.collection}/{quote(wanted.name, safe='')}"

    def _latest(self, wanted: AssetName) -> str:
        """The newest version: the one that the service calls so, else the one that was made last."""
        doing = f"looking for the newest version of the {WORDS[wanted.collection]} {wanted.name}"
        about = child_object(self.get(self._path(wanted), doing, wanted.registry), "properties")
        if about.get("latestVersion"):
            return str(about["latestVersion"])
        versions = self._versions(wanted)
        if not versions:
            raise NotFound(f"There is no version of {wanted.name}.", "")
        return versions[0]

    def _versions(self, wanted: AssetName) -> list[str]:
        """The versions there are, the newest first."""
        doing = f"listing the versions of {wanted.name}"
        query = {"$orderBy": "createdtime desc", "$top": "100"}
        found = self.get(f"{self._path(wanted)}/versions", doing, wanted.registry, query)
        return [name(one.get("name"), "a version") for one in _listed(found)]

    def _no_version(self, wanted: AssetName) -> NotFound:
        """The error for an asset that is not there; with what is."""
        word, home = WORDS[wanted.collection], self.home(wanted)
        problem = f"There is no {word} {wanted} in {home}."
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
        names = sorted(self._names(wanted.collection))
        near = get_close_matches(wanted.name, names, n=3, cutoff=0.5) or names[:5]
        if not near:
            return NotFound(problem, f"It has none; https://ml.azure.com is where they are made: {wanted.collection}.")
        return NotFound(problem, f"There are: {', '.join(near)}.")

    def _names(self, collection: str) -> list[str]:
        found: list[str] = []
        query = {"$top": "100"}
        while len(found) < _LISTED:
            page = self.get(collection, f"listing the {collection}", query=query)
            found += [name(one.get("name"), "a name") for one in _listed(page)]
            skip = _skip_of(page.get("nextLink"))
            if not skip:
                break
            query = {**query, "$skip": skip}
        return found


def _listed(page: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    value = page.get("value")
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _skip_of(link: Any) -> str:
    """Where the next page begins; the rest of its address is known, and is not taken from an answer."""
    from urllib.parse import parse_qs

    found = parse_qs(urlsplit(link).query) if isinstance(link, str) else {}
    return (found.get("$skip") or found.get("$skipToken") or [""])[0]
