"""Parses the names of a workspace's data and assets, without an SDK."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import UserError

SCHEME = "azureml:"
FORMS = "azureml:DATASET[:VERSION] or azureml://datastores/STORE/paths/PATH"
#: Kinds of assets, as they are named in a workspace's addresses.
DATA, MODELS, ENVIRONMENTS = "data", "models", "environments"
_ON_DATASTORE = re.compile(
    r"azureml://(?:subscriptions/(?P<subscription>[^/]+)/resourcegroups/(?P<group>[^/]+)"
    r"(?:/providers/Microsoft.MachineLearningServices)?/workspaces/(?P<workspace>[^/]+)/)?"
    r"datastores/(?P<datastore>[^/]+)/paths(?:/(?P<path>.*))?",
    re.IGNORECASE,
)
_DATASET = re.compile(r"azureml:(?P<name>[^/:@]+)(?::(?P<version>[^/:@]+)|@(?P<label>[^/:@]+))?")
_ID = re.compile(
    r"azureml:/+(?:registries/(?P<registry>[^/]+)/|subscriptions/(?P<subscription>[^/]+)/resourcegroups/(?P<group>[^/]+)"
    r"(?:/providers/Microsoft.MachineLearningServices)?/workspaces/(?P<workspace>[^/]+)/)?"
    r"(?P<collection>data|models|environments)/(?P<name>[^/]+)"
    r"(?:/versions/(?P<version>[^/]+)|/labels/(?P<label>[^/]+))?/?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class DatastorePath:
    """A path on a datastore.

    Attributes:
        datastore: The datastore's name.
        path: The path, without slashes at its ends; empty for the whole datastore. ``*``, ``**`` and ``?`` are
            wildcards as in a FileDataset.
        workspace: Subscription, resource group and workspace, in lower case, where the address names them.
    """

    datastore: str
    path: str
    workspace: tuple[str, str, str] | None = None

    def __str__(self) -> str:
        return f"azureml://datastores/{self.datastore}/paths/{self.path}"


@dataclass(frozen=True)
class AssetName:
    """The name of a registered dataset, data asset, model or environment.

    Attributes:
        name: Its name.
        version: Its version; empty for the version with the label.
        label: ``latest`` or another label; empty for ``latest``.
        collection: The kind of asset.
        registry: The registry that it is in; empty for the workspace.
        workspace: Subscription, resource group and workspace, in lower case, where the address names them.
    """

    name: str
    version: str = ""
    label: str = ""
    collection: str = DATA
    registry: str = ""
    workspace: tuple[str, str, str] | None = None

    def __str__(self) -> str:
        label = f"@{self.label}" if self.label not in ("", "latest") else ""
        return f"{self.name}:{self.version}" if self.version else f"{self.name}{label}"


def is_in_workspace(text: str) -> bool:
    """Whether a text names something in a workspace rather than a local path."""
    return text.startswith(SCHEME)


def parse(text: str, collection: str = DATA) -> DatastorePath | AssetName:
    """Parse the name of data or an asset.

    Args:
        text: The text.
        collection: The kind of asset that a short name stands for.

    Raises:
        UserError: The text has none of the forms of a name.
    """
    found = _ON_DATASTORE.fullmatch(text)
    if found is not None:
        return DatastorePath(found["datastore"], (found["path"] or "").strip("/"), _workspace(found))
    found = _DATASET.fullmatch(text)
    if found is not None:
        return AssetName(found["name"], found["version"] or "", found["label"] or "", collection)
    found = _ID.fullmatch(text)
    if found is None:
        raise UserError(f"{text} is not the name of data in a workspace.", f"Write {FORMS}.")
    kind, registry = found["collection"].lower(), found["registry"] or ""
    return AssetName(found["name"], found["version"] or "", found["label"] or "", kind, registry, _workspace(found))


def _workspace(found: re.Match[str]) -> tuple[str, str, str] | None:
    named = tuple(str(found[part]).lower() for part in ("subscription", "group", "workspace"))
    return (named[0], named[1], named[2]) if found["workspace"] else None
