"""Data of a workspace by SDK v1: files on its datastores, listed and read with azureml-core alone.

The SDK's own ``Dataset.download`` needs azureml-dataprep, which this program does not install. A datastore's blobs are
read with the storage client that azureml-core includes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import received
from ..errors import UserError
from ..private import open_file
from ..settings import Settings
from .data_references import DATA, AssetName, DatastorePath, parse
from .downloads import Blob
from .errors import NotFound, Report, attempt
from .workspace import connect, find_workspace

#: The storage client's own retries wait 15 s and more without a message; see :func:`~workflows.azureml.errors.attempt`.
_NO_RETRIES = {"retry_total": 0}
#: Seconds without a byte after which a connection is given up; the client's own limit is half an hour and more.
_READ_TIMEOUT = 60
_ASSET = received.fields(
    {"dataVersion": received.fields({}, {"dataType": received.one_line, "dataUri": received.one_line})}
)
_INSTEAD = "Name where its files lie, azureml://datastores/STORE/paths/PATH, or a local path."
_FILES = "Microsoft.DPrep.GetDatastoreFilesBlock"
_BY_HAND = "Copy it to this machine (`az storage blob download-batch --auth-mode login`), and name the local path."


class WorkspaceData:
    """The data of the workspace that the settings name.

    Args:
        settings: Which workspace, and who signs in.
        report: Called with what is being waited for.

    Raises:
        UserError: It cannot be reached; see :func:`~workflows.azureml.workspace.connect`.
    """

    def __init__(self, settings: Settings, report: Report) -> None:
        self._report = report
        #: Which workspace it is.
        named = find_workspace(settings)
        self.name = str(named)
        self._own = (named.subscription_id.lower(), named.resource_group.lower(), named.workspace.lower())
        self._workspace = connect(settings, report)
        self._datastores: dict[str, Any] = {}

    def resolve(self, named: DatastorePath | AssetName) -> DatastorePath:
        """The datastore path of a reference.

        Raises:
            UserError: It is in another workspace, it does not exist, or it is more than the files at one path.
        """
        found = self._find_asset(named) if isinstance(named, AssetName) else named
        # The names become parts of a folder's name here.
        received.name(found.datastore, "a datastore's name")
        received.text(found.path, "a path on a datastore", received.PATH_BYTES)
        if found.workspace not in (None, self._own):
            there = f"the workspace {found.workspace[2]}, not in {self.name}" if found.workspace else ""
            raise UserError(f"{found} lies in {there}.", "Set AML_WORKSPACE and what belongs to it, or copy the data.")
        return found

    def _find_asset(self, dataset: AssetName) -> DatastorePath:
        if dataset.registry or dataset.label not in ("", "latest") or dataset.collection != DATA or dataset.workspace:
            raise UserError(
                f"SDK v1 reads no {dataset.collection} by a name like that of {dataset}.",
                "Set AML_SDK=v2, or name a dataset of the workspace: azureml:NAME[:VERSION].",
            )
        try:
            if dataset.version and not dataset.version.isdigit():
                return self._data_asset_path(dataset)
            return self._registered_dataset_path(dataset)
        except NotFound as error:
            if dataset.version.isdigit():
                return self._data_asset_path(dataset)
            raise _asset_not_found(dataset) from error

    def _registered_dataset_path(self, dataset: AssetName) -> DatastorePath:
        """The path of a dataset of SDK v1, from the definition that was saved with it."""
        from azureml.data import _dataset_rest_helper

        workspace = self._workspace

        def get() -> Any:
            client: Any = _dataset_rest_helper._restclient(workspace)
            names = (workspace.subscription_id, workspace.resource_group, workspace.name)
            return client.dataset.get_dataset_by_name(*names, dataset.name, version_id=dataset.version or None)

        saved = attempt(get, f"reading the dataset {dataset}", self._report).latest
        return _path_in_definition(saved, AssetName(dataset.name, str(saved.version_id or dataset.version)))

    def _data_asset_path(self, dataset: AssetName) -> DatastorePath:
        """The path of a data asset of SDK v2."""
        from azureml.data import _dataset_rest_helper

        def get() -> Any:
            answer = _dataset_rest_helper._fetch_v2_data_asset(self._workspace, dataset.name, dataset.version)
            return _ASSET(received.message(answer.content, "a data asset"), "a data asset")

        try:
            asset = attempt(get, f"reading the data asset {dataset}", self._report)["dataVersion"]
        except NotFound as error:
            raise _asset_not_found(dataset) from error
        kind, uri = asset.get("dataType", "none"), asset.get("dataUri", "")
        found = parse(uri) if uri.startswith("azureml://") else None
        if kind.lower() not in ("uri_file", "urifile", "uri_folder", "urifolder") or not isinstance(
            found, DatastorePath
        ):
            where = f" at {uri}" if isinstance(found, DatastorePath) else ""
            raise UserError(f"The data asset {dataset} is of the type {kind}{where}, which is not read here.", _INSTEAD)
        return found

    def blobs(self, datastore: str, prefix: str) -> tuple[Blob, ...]:
        """The files whose paths begin with a prefix, sorted by name, without folders.

        Raises:
            UserError: There is no such datastore, it cannot be read from here, or the user has no access.
        """
        container = self._container(datastore)

        def listed() -> list[Any]:
            found = container.list_blobs(name_starts_with=prefix or None, include=["metadata"], **_NO_RETRIES)
            return list(found)

        entries = attempt(listed, f"listing {DatastorePath(datastore, prefix)}", self._report)
        # With a hierarchical namespace, folders are listed as well: as empty blobs with a mark.
        files = (one for one in entries if not one.name.endswith("/") and "hdi_isfolder" not in (one.metadata or {}))
        found = (Blob(str(one.name), received.size(one.size, "a file's size"), str(one.etag)) for one in files)
        return tuple(sorted(found, key=lambda blob: blob.name))

    def fetch(self, datastore: str, blob: Blob, target: Path, report_bytes: Callable[[int], None]) -> None:
        """Download a file of a datastore into a new file.

        Args:
            datastore: The datastore's name.
            blob: The file, as it was listed.
            target: The file to write; its folder exists.
            report_bytes: Called with the number of bytes received so far; it restarts at 0 after a lost connection.

        Raises:
            UserError: It cannot be read, or has changed since it was listed.
        """
        client = self._container(datastore).get_blob_client(blob.name)

        def read() -> int:
            report_bytes(0)
            count = 0
            with open_file(target, "wb") as file:
                for chunk in client.download_blob(read_timeout=_READ_TIMEOUT, **_NO_RETRIES).chunks():
                    count += len(chunk)
                    if count > blob.size:
                        break
                    file.write(chunk)
                    report_bytes(count)
            return count

        count = attempt(read, f"reading {DatastorePath(datastore, blob.name)}", self._report)
        if count != blob.size:
            raise UserError(
                f"{DatastorePath(datastore, blob.name)} has changed while it was read.",
                "Run this again once it is written.",
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
            store: Any = attempt(lambda: Datastore.get(self._workspace, name), "reading the datastore", self._report)
        except NotFound as error:
            known = self._datastore_names()
            there = f"Existing ones: {', '.join(known)}" if known else "It has none that can be listed"
            raise NotFound(f"There is no datastore {name} in the workspace.", f"{there}.") from error
        if not isinstance(store, AzureBlobDatastore):
            kind = getattr(store, "datastore_type", type(store).__name__)
            raise UserError(f"The datastore {name} is of the kind {kind}, which cannot be read from here.", _BY_HAND)
        if not store.sas_token and not store.account_key:
            raise UserError(
                f"The datastore {name} has no stored key, and SDK v1 cannot read it with your identity.", _BY_HAND
            )
        return store.blob_service.get_container_client(store.container_name)

    def _datastore_names(self) -> list[str]:
        stores: dict[str, Any] = attempt(lambda: self._workspace.datastores, "listing the datastores", self._report)
        return sorted(stores)


def _asset_not_found(dataset: AssetName) -> UserError:
    remedy = "https://ml.azure.com, Data, has those there are"
    more = "." if dataset.version else "; a data asset of SDK v2 needs its version, azureml:NAME:VERSION."
    return NotFound(f"There is no dataset {dataset} in the workspace.", remedy + more)


def _path_in_definition(saved: Any, dataset: AssetName) -> DatastorePath:
    """The datastore path that a dataset's saved definition reads.

    A definition is a dataflow of azureml-dataprep, a list of steps. A FileDataset has one step, which lists datastores
    with paths (``azureml.data._dataset_persistence``). Older datasets have only a path.

    Raises:
        UserError: The dataset is more than the files at one path.
    """
    if not saved.dataflow and saved.data_path is not None and saved.data_path.datastore_name:
        return DatastorePath(saved.data_path.datastore_name, (saved.data_path.relative_path or "").strip("/"))
    try:
        blocks = received.as_json(saved.dataflow or "", "a dataset")["blocks"]
        sources = blocks[0]["arguments"]["datastores"] if blocks[0]["type"] == _FILES else []
        places = [_path_of_source(one) for one in sources]
    except (received.Refused, LookupError, TypeError, AttributeError):
        places, blocks = [], []
    if not places:
        raise UserError(f"Where the files of the dataset {dataset} lie cannot be told from its definition.", _INSTEAD)
    if len(places) > 1:
        raise UserError(
            f"The dataset {dataset} is made of {len(places)} places.",
            f"Name each by itself, beginning with --data NAME={places[0]}",
        )
    if len(blocks) > 1:
        kinds = ", ".join(_kind(block) for block in blocks[1:])
        raise UserError(
            f"The dataset {dataset} is more than its files: it goes on with {kinds}, which needs azureml-dataprep.",
            f"Name its files: --data NAME={places[0]}",
        )
    return places[0]


def _kind(block: Any) -> str:
    kind = block.get("type") if isinstance(block, dict) else None
    return received.display_text(str(kind), "a step's kind", 60).removeprefix("Microsoft.DPrep.")


def _path_of_source(one: dict[str, str]) -> DatastorePath:
    parts = [str(one.get(part) or "").lower() for part in ("subscription", "resourceGroup", "workspaceName")]
    named = (parts[0], parts[1], parts[2]) if all(parts) else None
    return DatastorePath(received.name(one["datastoreName"], "a datastore's name"), one["path"].strip("/"), named)
