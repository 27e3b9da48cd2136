"""How data of a workspace is named; nothing of the SDK is needed to read it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import UserError

SCHEME = "azureml:"
FORMS = "azureml:DATASET[:VERSION] or azureml://datastores/STORE/paths/PATH"
_ON_DATASTORE = re.compile(
    r"azureml://(?:subscriptions/(?P<subscription>[^/]+)/resourcegroups/(?P<group>[^/]+)"
    r"(?:/providers/Microsoft.MachineLearningServices)?/workspaces/(?P<workspace>[^/]+)/)?"
    r"datastores/(?P<datastore>[^/]+)/paths(?:/(?P<path>.*))?",
    re.IGNORECASE,
)
_DATASET = re.compile(r"azureml:(?P<name>[^/:@]+)(?::(?P<version>[^/:@]+)|@latest)?")


@dataclass(frozen=True)
class Place:
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
class Dataset:
    """A registered dataset (or data asset); without a version, the latest."""

    name: str
    version: str = ""

    def __str__(self) -> str:
        return f"{self.name}:{self.version}" if self.version else self.name


def in_workspace(text: str) -> bool:
    """Whether a text names something in a workspace rather than a local path."""
    return text.startswith(SCHEME)


def parse(text: str) -> Place | Dataset:
    """What a text names.

    Raises:
        UserError: It is of no form in which data is named.
    """
    found = _ON_DATASTORE.fullmatch(text)
    if found is not None:
        named = tuple(str(found[part]).lower() for part in ("subscription", "group", "workspace"))
        workspace = (named[0], named[1], named[2]) if found["workspace"] else None
        return Place(found["datastore"], (found["path"] or "").strip("/"), workspace)
    found = _DATASET.fullmatch(text)
    if found is None:
        raise UserError(f"{text} names no data of a workspace.", f"Write {FORMS}.")
    return Dataset(found["name"], found["version"] or "")
