"""Data of a workspace: what lies on its datastores, listed and read by azureml-core alone.

The SDK's own ``Dataset.download`` needs azureml-dataprep, which this program does without; a datastore's blobs are
reached by the client that azureml-core brings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..settings import Settings
from .errors import NotThere, Say, attempt
from .workspace import connect, find_workspace

#: The storage client waits in silence, 15 s and more; see :func:`~workflows.azureml.errors.attempt`.
_ONCE = {"retry_total": 0}
#: Seconds without a byte after which a connection is given up; the client's own limit is half an hour and more.
_READ_TIMEOUT = 60
_BY_HAND = "Copy it to this machine (`az storage blob download-batch --auth-mode login`), and name the local path."


@dataclass(frozen=True)
class Place:
    """Where data lies.

    Attributes:
        datastore: The datastore's name.
        path: The path on it; ``*``, ``**`` and ``?`` as in a FileDataset's.
    """

    datastore: str
    path: str

    def __str__(self) -> str:
        return f"azureml://datastores/{self.datastore}/paths/{self.path}"


@dataclass(frozen=True)
class Blob:
    """A file on a datastore.

    Attributes:
        name: Its path on the datastore.
        size: Bytes.
        version: Changes with its content (the blob's ETag).
    """

    name: str
    size: int
    version: str


class WorkspaceData:
    """The data of the workspace that the settings name.

    Args:
        settings: Which workspace, and who signs in.
        say: Shown what is waited for.

    Raises:
        UserError: It cannot be reached; see :func:`~workflows.azureml.workspace.connect`.
    """

    def __init__(self, settings: Settings, say: Say) -> None:
        self._say = say
        #: Which workspace it is.
        self.name = str(find_workspace(settings))
        self._workspace = connect(settings, say)
        self._datastores: dict[str, Any] = {}

    def blobs(self, datastore: str, prefix: str) -> tuple[Blob, ...]:
        """The files whose paths begin so, in the order of their names; folders are none.

        Raises:
            UserError: There is no such datastore, it cannot be read from here, or not by this person.
        """
        container = self._container(datastore)

        def listed() -> list[Any]:
            found = container.list_blobs(name_starts_with=prefix or None, include=["metadata"], **_ONCE)
            return list(found)

        entries = attempt(listed, f"listing {Place(datastore, prefix)}", self._say)
        # With a hierarchical namespace folders are listed too: as empty blobs, marked as such.
        files = (one for one in entries if not one.name.endswith("/") and "hdi_isfolder" not in (one.metadata or {}))
        found = (Blob(one.name, int(one.size), str(one.etag)) for one in files)
        return tuple(sorted(found, key=lambda blob: blob.name))

    def fetch(self, datastore: str, blob: Blob, target: Path, received: Callable[[int], None]) -> None:
        """Write a file's content into a new file.

        Args:
            datastore: Where it lies.
            blob: What was listed.
            target: The file to write; its folder is there.
            received: Told how many bytes of it are there by now; begins again where the connection was lost.

        Raises:
            UserError: It cannot be read, or is no longer what was listed.
        """
        client = self._container(datastore).get_blob_client(blob.name)

        def read() -> int:
            received(0)
            count = 0
            with target.open("wb") as file:
                for chunk in client.download_blob(read_timeout=_READ_TIMEOUT, **_ONCE).chunks():
                    file.write(chunk)
                    count += len(chunk)
                    received(count)
            return count

        count = attempt(read, f"reading {Place(datastore, blob.name)}", self._say)
        if count != blob.size:
            raise UserError(
                f"{Place(datastore, blob.name)} has changed while it was read.", "Run this again once it is written."
            )

    def _container(self, name: str) -> Any:
        """The client of a datastore's container."""
        if name not in self._datastores:
            self._datastores[name] = self._open(name)
        return self._datastores[name]

    def _open(self, name: str) -> Any:
        from azureml.core import Datastore
        from azureml.data.azure_storage_datastore import AzureBlobDatastore

        try:
            store: Any = attempt(lambda: Datastore.get(self._workspace, name), "reading the datastore", self._say)
        except NotThere as error:
            known = self._known()
            there = f"Those there are: {', '.join(known)}" if known else "It has none that can be listed"
            raise NotThere(f"There is no datastore {name} in the workspace.", f"{there}.") from error
        if not isinstance(store, AzureBlobDatastore):
            kind = getattr(store, "datastore_type", type(store).__name__)
            raise UserError(f"The datastore {name} is of the kind {kind}, which is not read from here.", _BY_HAND)
        if not store.sas_token and not store.account_key:
            raise UserError(f"The datastore {name} keeps no key, and SDK v1 reads none by identity.", _BY_HAND)
        return store.blob_service.get_container_client(store.container_name)

    def _known(self) -> list[str]:
        stores: dict[str, Any] = attempt(lambda: self._workspace.datastores, "listing the datastores", self._say)
        return sorted(stores)
