"""Finds where data and models are stored: an asset's address becomes a container, a path, and a key to read it with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from ...errors import UserError
from ...received import name, one_line, relative_path
from ...redaction import keep_address, keep_secret
from ..data_references import AssetName, DatastorePath, parse
from ..errors import NotAllowed, NotFound, Report
from ..history import child_object
from .assets import Asset, Assets
from .storage import Container, account_of
from .storage_keys import AccountKey, Anonymous, Key, Signature, Token

_JOB = re.compile(
    r"azureml://jobs/(?P<job>[^/]+)/outputs/(?P<output>[^/]+)(?:/paths)?(?:/(?P<path>.*))?", re.IGNORECASE
)
_RUN = re.compile(r"runs:/+(?P<job>[^/]+)/(?P<path>.*)")
_EXPERIMENT_RUN = re.compile(r"azureml://datastores/(?P<store>[^/]+)/(?P<path>ExperimentRun/.*)", re.IGNORECASE)
#: Files and folders by their containers: ``wasbs`` of blobs, ``abfss`` of Data Lake Storage Gen2.
_CONTAINER = re.compile(r"(?:wasbs?|abfss?)://(?P<container>[^@/]+)@(?P<host>[^/]+)(?:/(?P<path>.*))?", re.IGNORECASE)
_BY_HAND = "Copy it to this machine (`az storage blob download-batch --auth-mode login`), and name the local path."
_ARTIFACTS = "workspaceartifactstore"


@dataclass(frozen=True)
class AssetLocation:
    """Where files are stored.

    Attributes:
        label: Its name in messages.
        store: The container's name in messages.
        path: The path in the container, without slashes at its ends.
        container: The container; None for a file on the web.
        url: The address of a file on the web.
        plain: Whether ``*`` and ``?`` in the path are ordinary characters.
        named: The asset with its version; None for a path on a datastore.
    """

    label: str
    store: str
    path: str
    container: Container | None = None
    url: str = ""
    plain: bool = True
    named: AssetName | None = None


class AssetLocator:
    """Finds where assets are stored.

    Args:
        assets: The workspace's assets.
        report: Called with what is being waited for.
    """

    def __init__(self, assets: Assets, report: Report) -> None:
        self.assets, self._report = assets, report
        self._stores: dict[str, Container] = {}

    def locate(self, wanted: AssetName | DatastorePath) -> AssetLocation:
        """Where an asset, or a path on a datastore, is stored.

        Raises:
            UserError: There is no such asset, or its storage cannot be read from here.
        """
        if isinstance(wanted, DatastorePath):
            return self._on_datastore(wanted, plain=False)
        asset = self.assets.find(wanted)
        uri = asset.uri("modelUri" if wanted.collection == "models" else "dataUri")
        self._report(f"the {wanted.collection.removesuffix('s')} {asset.named} lies at {uri.partition('?')[0]}")
        return self.locate_address(uri, asset)

    def locate_address(self, uri: str, asset: Asset) -> AssetLocation:
        """The location of an asset's address.

        Raises:
            UserError: The address cannot be read from here.
        """
        named = asset.named
        found = _with_name(self._find_location(uri, asset), named)
        relative_path(found.path, "an asset's path") if found.path else None
        return found

    def _find_location(self, uri: str, asset: Asset) -> AssetLocation:
        if match := _EXPERIMENT_RUN.fullmatch(uri):
            return self._on_datastore(DatastorePath(match["store"], match["path"].strip("/")), plain=True)
        if match := _JOB.fullmatch(uri):
            return self._job_output(match["job"], match["output"], (match["path"] or "").strip("/"))
        if match := _RUN.fullmatch(uri):
            return self._job_output(match["job"], "artifacts", match["path"].strip("/"))
        if match := _CONTAINER.fullmatch(uri):
            return self._in_storage(match["host"], match["container"], match["path"] or "", "", asset)
        if uri.startswith("azureml:"):
            place = parse(uri)
            if isinstance(place, DatastorePath):
                return self._on_datastore(place, plain=True)
            return self.locate(place)
        parts = urlsplit(uri)
        if parts.scheme == "https" and account_of(parts.netloc):
            container, _, path = parts.path.strip("/").partition("/")
            return self._in_storage(parts.netloc, unquote(container), unquote(path), parts.query, asset)
        if parts.scheme in ("http", "https") and not asset.named.registry:
            keep_address(uri)
            return AssetLocation(uri.partition("?")[0], parts.netloc, parts.path.rpartition("/")[2], url=uri)
        place_, kind = uri.partition("?")[0] or "no address", asset.named.collection.removesuffix("s")
        raise UserError(f"The {kind} {asset.named} lies at {place_}, which cannot be read from here.", _BY_HAND)

    def _job_output(self, job: str, output: str, path: str) -> AssetLocation:
        """The location of a job's output."""
        name(job, "a job's name")
        if output in ("artifacts", "default"):
            below = f"ExperimentRun/dcid.{job}" + (f"/{path}" if path else "")
            return self._on_datastore(DatastorePath(_ARTIFACTS, below), plain=True)
        response = child_object(self.assets.get(f"jobs/{job}", f"reading the job {job}"), "properties")
        outputs = response.get("outputs")
        one = outputs.get(output) if isinstance(outputs, dict) else None
        uri = one_line((one or {}).get("uri") or "", "an output's address", 8192)
        place = parse(uri) if uri.startswith("azureml:") else None
        if not isinstance(place, DatastorePath):
            raise UserError(f"The workspace does not say where the output {output} of the job {job} is.", _BY_HAND)
        return self._on_datastore(
            DatastorePath(place.datastore, "/".join(filter(None, (place.path, path))), place.workspace), True
        )

    # Datastores

    def _on_datastore(self, place: DatastorePath, plain: bool) -> AssetLocation:
        own = (self.assets.workspace.name.subscription_id, self.assets.workspace.name.resource_group)
        here = tuple(one.lower() for one in (*own, self.assets.workspace.name.workspace))
        if place.workspace not in (None, here):
            there = place.workspace[2] if place.workspace else ""
            raise UserError(
                f"{place} lies in the workspace {there}, not in {self.assets.name}.",
                "Set AML_WORKSPACE and what belongs to it, or copy the data.",
            )
        name(place.datastore, "a datastore's name")
        if place.datastore not in self._stores:
            self._stores[place.datastore] = self._open(place.datastore)
        store = self._stores[place.datastore]
        return AssetLocation(str(place), store.what, place.path, store, plain=plain)

    def _open(self, datastore: str) -> Container:
        try:
            response = self.assets.get(f"datastores/{datastore}", f"reading the datastore {datastore}")
        except NotFound as error:
            listed = self.assets.get("datastores", "listing the datastores").get("value")
            known = (
                [str(one.get("name")) for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
            )
            there = f"Existing ones: {', '.join(sorted(known)[:8])}" if known else "It has none that can be listed"
            raise NotFound(f"There is no datastore {datastore} in the workspace.", f"{there}.") from error
        about = child_object(response, "properties")
        kind = str(about.get("datastoreType"))
        container = about.get("containerName") if kind == "AzureBlob" else about.get("filesystem")
        if kind not in ("AzureBlob", "AzureDataLakeGen2"):
            raise UserError(
                f"The datastore {datastore} is of the kind {kind}, which cannot be read from here.", _BY_HAND
            )
        account = name(about.get("accountName"), "an account's name")
        suffix = one_line(about.get("endpoint") or self.assets.workspace.cloud.storage, "an endpoint", 200)
        host = f"{account}.blob.{suffix}"
        if account_of(host) is None:
            raise UserError(f"The datastore {datastore} names no storage account: {host}.", _BY_HAND)
        key = self._key(datastore, about, account)
        return Container(f"https://{host}", name(container, "a container's name"), key, f"the datastore {datastore}")

    def _key(self, datastore: str, about: dict[str, Any], account: str) -> Key:
        """The key for a datastore: its stored credential where the user may read it, else the user's own identity."""
        own = Token(self.assets.workspace.credential)
        stored = about.get("credentials")
        if str((stored or {}).get("credentialType", "None")) == "None":
            return own
        path = f"datastores/{datastore}/listSecrets"

        def secrets() -> dict[str, Any]:
            body = {"expirableSecret": True, "expireAfterHours": 1}
            return self.assets.post(path, body, f"asking for the key of the datastore {datastore}")

        try:
            found = secrets()
        except (NotAllowed, NotFound):
            return own
        if found.get("sasToken"):

            def query(response: dict[str, Any]) -> str:
                return one_line(response.get("sasToken") or "", "a signature", 8192)

            return Signature(query(found), lambda: query(secrets()))
        if found.get("key"):
            return AccountKey(account, one_line(found["key"], "a key", 8192))
        if found.get("clientSecret"):
            return Token(self._principal(stored or {}, one_line(found["clientSecret"], "a secret", 8192)))
        return own

    def _principal(self, stored: dict[str, Any], secret: str) -> Any:
        from .credentials import require_azure_identity

        require_azure_identity()
        from azure.identity import ClientSecretCredential

        keep_secret(secret)
        tenant, client = (one_line(stored.get(key), "an id", 200) for key in ("tenantId", "clientId"))
        host = self.assets.workspace.cloud.login.partition("://")[2].rstrip("/")
        return ClientSecretCredential(tenant, client, secret, authority=host)

    # Storage accounts by their addresses

    def _in_storage(self, host: str, container: str, path: str, query: str, asset: Asset) -> AssetLocation:
        account = account_of(host)
        if account is None:
            raise UserError(f"{host} is not the address of a storage account.", _BY_HAND)
        account_name, _kind, suffix = account
        # Both hosts of an account serve the same files.
        address = f"https://{host.lower().replace('.dfs.', '.blob.', 1)}"
        where = f"{address}/{container}"
        label, store = f"{where}/{path}".rstrip("/"), f"the container {container} of the storage account {account_name}"
        if asset.named.registry:
            reference = self._registry_key(f"{where}/{path}".rstrip("/"), asset)
            return AssetLocation(label, store, path.strip("/"), Container(address, container, reference, store))
        key: Key = Signature(query) if "sig=" in query else Anonymous(self._user_token(suffix))
        return AssetLocation(label, store, path.strip("/"), Container(address, container, key, store))

    def _user_token(self, suffix: str) -> Key | None:
        """The signed-in user's token, only for accounts of this cloud: no other host may receive it."""
        known = self.assets.workspace.cloud.storage.lower()
        return Token(self.assets.workspace.credential) if known and suffix == known else None

    def _registry_key(self, uri: str, asset: Asset) -> Key:
        """The key for files in a registry's own storage."""
        named = asset.named
        body = {
            "assetId": f"azureml://registries/{named.registry}/{named.collection}/{named.name}/versions/{named.version}",
            "blobUri": uri,
        }
        path = f"datarefs/{named.name}/versions/{named.version}"

        def signature() -> str:
            response = self.assets.post(path, body, f"asking for the files of {named}", named.registry)
            credential = child_object(response, "blobReferenceForConsumption").get("credential")
            found = credential.get("sasUri") if isinstance(credential, dict) else None
            return urlsplit(one_line(found or "", "an address", 8192)).query

        first = signature()
        return (
            Signature(first, signature) if first else Anonymous(self._user_token(self.assets.workspace.cloud.storage))
        )


def _with_name(found: AssetLocation, named: AssetName) -> AssetLocation:
    return AssetLocation(found.label, found.store, found.path, found.container, found.url, found.plain, named)
