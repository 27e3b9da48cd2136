"""How data of a workspace is named; nothing of the SDK is needed to read it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import UserError

SCHEME = "azureml:"
FORMS = "azureml:DATASET[:VERSION] or azureml://datastores/STORE/paths/PATH"
#: What a workspace's assets of a kind are called in its addresses.
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
    """Where data lies.

    Attributes:
        datastore: The datastore's name.
        path: The path on it, without slashes at its ends, empty for all of it; ``*``, ``**`` and ``?`` as in a
            FileDataset's.
        workspace: Subscription, resource group and workspace, in lower case, where they are named too.
    """

    datastore: str
    path: str
    workspace: tuple[str, str, str] | None = None

    def __str__(self) -> str:
        return f"azureml://datastores/{self.datastore}/paths/{self.path}"


@dataclass(frozen=True)
class AssetName:
    """A registered dataset, data asset, model or environment; without a version, the latest.

    Attributes:
        name: Its name.
        version: Its version; empty for the one with the label.
        label: ``latest``, or another label; empty for the same as ``latest``.
        collection: Which kind of asset it is.
        registry: The registry that it is in; empty for the workspace's own.
        workspace: Subscription, resource group and workspace, in lower case, where they are named too.
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
    """What a text names.

    Args:
        text: The text.
        collection: The kind of asset that a short name is one of.

    Raises:
        UserError: It is of no form in which data is named.
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
