"""Assets of SDK v2: code, environments, components and data, by name and version."""

from __future__ import annotations

import uuid
from typing import Any

from .state import SNAPSHOTS, State
from .web import HttpError, Request, Route, not_found, page, route

KINDS = ("codes", "environments", "components", "data", "models")
NAMES_OF_A_PAGE = 10
REGISTRY = (
    "/mferp/managementfrontend/subscriptions/{subscription}/resourceGroups/registries"
    "/providers/Microsoft.MachineLearningServices/registries/{registry}"
)


class Assets:
    def __init__(self, state: State) -> None:
        self._state = state
        self._assets: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._registered: dict[tuple[str, str, str, str], dict[str, Any]] = {}

    def routes(self) -> list[Route]:
        found = []
        for kind in KINDS:
            place = f"{{ws}}/(?P<kind>{kind})/{{name}}"
            found += [
                route("GET", f"{place}/versions", self.versions),
                route("GET", f"{place}/versions/{{version}}", self.get),
                route("PUT", f"{place}/versions/{{version}}", self.put),
                route("POST", f"{place}/versions/{{version}}/startPendingUpload", self.begin_upload),
                route("GET", place, self.container),
                route("GET", f"{{ws}}/(?P<kind>{kind})", self.containers),
            ]
            place = f"{REGISTRY}/(?P<kind>{kind})/{{name}}"
            found += [
                route("GET", f"{place}/versions", self.versions),
                route("GET", f"{place}/versions/{{version}}", self.get),
                route("GET", place, self.container),
            ]
        found += [
            route("GET", "/registrymanagement/v1.0/registries/{registry}/discovery", self.discovery),
            route("POST", f"{REGISTRY}/datarefs/{{name}}/versions/{{version}}", self.reference),
        ]
        return found

    # Registries

    def discovery(self, request: Request) -> Any:
        with self._state.lock:
            if not any(registry == request["registry"] for registry, *_ in self._registered):
                raise not_found(f"The registry {request['registry']}")
        return {
            "registryName": request["registry"],
            "primaryRegionResourceProviderUri": f"{self._state.url}/",
            "resourceGroup": "registries",
            "subscriptionId": self._state.subscription,
        }

    def reference(self, request: Request) -> Any:
        """A signature for the files of a registry's asset."""
        kind = str(request.json["assetId"]).split("/")[4]
        with self._state.lock:
            if (request["registry"], kind, request["name"], request["version"]) not in self._registered:
                raise not_found("The asset")
        sas = f"{request.json['blobUri']}?sv=2024&sig=of-the-registry"
        return {"blobReferenceForConsumption": {"credential": {"credentialType": "SAS", "sasUri": sas}}}

    def register(self, registry: str, kind: str, name: str, version: str, properties: dict[str, Any]) -> None:
        """For tests: an asset of a registry, or with an empty name of it one of the workspace."""
        asset = {"id": f"{registry}/{kind}/{name}/{version}", "name": version, "properties": properties}
        with self._state.lock:
            if registry:
                self._registered[registry, kind, name, version] = asset
            else:
                self._assets[kind, name, version] = asset

    def _of(self, request: Request) -> dict[tuple[str, str, str], dict[str, Any]]:
        """The assets of the registry, or the workspace, that is asked."""
        registry = request.names.get("registry")
        if registry is None:
            return self._assets
        return {key[1:]: asset for key, asset in self._registered.items() if key[0] == registry}

    # The workspace

    def containers(self, request: Request) -> Any:
        """A page of names; the next one begins where `$skip` says."""
        with self._state.lock:
            names = sorted({name for kind, name, _ in self._assets if kind == request["kind"]})
        first = int(request.query.get("$skip", "0"))
        shown = names[first : first + NAMES_OF_A_PAGE]
        more = first + len(shown) < len(names)
        link = f"{self._state.url}{request.path}?$skip={first + len(shown)}" if more else None
        return {"value": [{"name": name, "properties": {}} for name in shown], "nextLink": link}

    def versions(self, request: Request) -> Any:
        """By name; or by content, whatever the name: so code that the workspace has is not sent again."""
        wanted = request.query.get("hash")
        with self._state.lock:
            found = [
                asset
                for (kind, name, _), asset in self._of(request).items()
                if kind == request["kind"]
                and (
                    wanted in (asset["properties"].get("properties") or {}).values()
                    if wanted
                    else name == request["name"]
                )
            ]
        # In the order in which they were made, or the other way round.
        return page(found[::-1] if request.query.get("$orderBy", "").endswith(" desc") else found)

    def container(self, request: Request) -> Any:
        with self._state.lock:
            known = [version for kind, name, version in self._of(request) if (kind, name) == self._name(request)]
        if not known:
            raise not_found(f"{request['kind']} {request['name']}")
        latest = max(known, key=lambda version: (version.isdecimal(), version.zfill(20)))
        id_ = f"{self._state.scope}/{request['kind']}/{request['name']}"
        return {"id": id_, "name": request["name"], "type": "x", "properties": {"latestVersion": latest}}

    def _name(self, request: Request) -> tuple[str, str]:
        return request["kind"], request["name"]

    def get(self, request: Request) -> Any:
        with self._state.lock:
            found = self._of(request).get((*self._name(request), request["version"]))
        if found is None:
            raise not_found(f"{request['kind']} {request['name']}:{request['version']}")
        return found

    def put(self, request: Request) -> Any:
        kind, name, version = *self._name(request), request["version"]
        with self._state.lock:
            if (kind, name, version) in self._assets and kind in ("codes", "environments", "components"):
                # What is there does not change; Azure answers with what it has where nothing differs.
                return self._assets[kind, name, version]
            asset = {
                "id": f"{self._state.scope}/{kind}/{name}/versions/{version}",
                "name": version,
                "type": f"Microsoft.MachineLearningServices/workspaces/{kind}/versions",
                "systemData": {"createdAt": "2026-01-01T00:00:00Z", "createdBy": "Tester", "createdByType": "User"},
                "properties": request.json["properties"],
            }
            self._assets[kind, name, version] = asset
            return asset

    def begin_upload(self, request: Request) -> Any:
        """A container of its own, and a signature for it."""
        place = f"{self._state.url}/{SNAPSHOTS}/{request['kind']}-{request['name']}-{request['version']}"
        return {
            "pendingUploadId": str(uuid.uuid4()),
            "pendingUploadType": "TemporaryBlobReference",
            "blobReferenceForConsumption": {
                "blobUri": place,
                "storageAccountArmId": "/x/storage",
                "credential": {"credentialType": "SAS", "sasUri": f"{place}?sv=2024&sr=c&sig=x"},
            },
        }

    # For jobs

    def properties(self, kind: str, reference: str) -> dict[str, Any]:
        """What an asset is, by its id.

        Raises:
            HttpError: The workspace does not have it.
        """
        parts = reference.removeprefix("azureml:").rstrip("/").split("/")
        with self._state.lock:
            found = self._assets.get((kind, parts[-3], parts[-1])) if len(parts) > 3 else None
            if reference.startswith("azureml://registries/") and len(parts) > 5:
                found = self._registered.get((parts[-5], kind, parts[-3], parts[-1]))
        if found is None:
            raise HttpError(400, "UserError", f"There is no {kind} {reference} in the workspace.")
        properties: dict[str, Any] = found["properties"]
        return properties

    def snapshot(self, code: str) -> str:
        """The snapshot of a code asset, for a job."""
        place = str(self.properties("codes", code)["codeUri"]).partition(f"/{SNAPSHOTS}/")[2].split("?")[0].rstrip("/")
        prefix = f"{place}/"
        with self._state.lock:
            self._state.snapshots[place] = {
                name.removeprefix(prefix): name for name in self._state.files(SNAPSHOTS, prefix)
            }
        return place
