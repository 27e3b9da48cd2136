"""The workspace, as Azure's resource manager describes it: discovery, computes, datastores, registry keys."""

from __future__ import annotations

from typing import Any

from .state import ARTIFACTS, DATASTORE, Compute, State
from .storage import ACCOUNT_KEY
from .web import HttpError, Request, Route, not_found, page, route

PROVIDER = "Microsoft.MachineLearningServices"
REGISTRY_USER, REGISTRY_PASSWORD = "registry", "registry-password"


class Workspaces:
    def __init__(self, state: State) -> None:
        self._state = state

    def routes(self) -> list[Route]:
        group = "/subscriptions/{subscription}/resource[Gg]roups/{group}"
        region = "/subscriptions/{subscription}/providers/Microsoft.MachineLearningServices/locations/{location}"
        provider = f"{group}/providers/Microsoft.MachineLearningServices/workspaces"
        return [
            route("GET", "{ws}", self.workspace),
            route("GET", "/rp/workspaces{ws}", self.workspace),
            route("GET", provider, self.workspaces),
            route("GET", group, self.group),
            route("POST", "{ws}/listKeys", self.keys),
            route("GET", "{ws}/providers/Microsoft.Authorization/permissions", self.permissions),
            route("GET", "/", self.nothing, authorized=False),
            route("GET", "/discovery", self.discovery, authorized=False),
            route("GET", "/metadata/endpoints", self.clouds, authorized=False),
            route("GET", "{ws}/datastores", self.v2_datastores),
            route("GET", "{ws}/datastores/{datastore}", self.v2_datastore),
            route("POST", "{ws}/datastores/{datastore}/listSecrets", self.v2_secrets),
            route("GET", "(/rp/workspaces)?{ws}/computes", self.computes),
            route("GET", "(/rp/workspaces)?{ws}/computes/{compute}", self.compute),
            route("GET", f"{region}/usages", self.usages),
            route("GET", f"{region}/vmSizes", self.sizes),
            route("GET", "/datastore/v1.0{ws}/default", self.datastore),
            route("GET", "/datastore/v1.0{ws}/datastores", self.datastores),
            route("GET", "/datastore/v1.0{ws}/datastores/{datastore}", self.datastore),
        ]

    def workspace(self, request: Request) -> Any:
        state = self._state
        storage = f"/subscriptions/{state.subscription}/resourceGroups/{state.group}/providers"
        return {
            "id": state.scope,
            "name": state.workspace,
            "type": "Microsoft.MachineLearningServices/workspaces",
            "location": "local",
            "tags": {},
            "sku": {"name": "Basic", "tier": "Basic"},
            "identity": {"type": "SystemAssigned", "principalId": "principal", "tenantId": "tenant"},
            "properties": {
                "workspaceId": state.workspace_id,
                "friendlyName": state.workspace,
                "description": "",
                "creationTime": "2026-01-01T00:00:00Z",
                "discoveryUrl": f"{state.url}/discovery",
                "provisioningState": "Succeeded",
                "v1LegacyMode": state.legacy,
                "containerRegistry": f"{storage}/Microsoft.ContainerRegistry/registries/registry",
                "storageAccount": f"{storage}/Microsoft.Storage/storageAccounts/storage",
                "keyVault": f"{storage}/Microsoft.Keyvault/vaults/vault",
                "applicationInsights": f"{storage}/Microsoft.insights/components/insights",
            },
        }

    def nothing(self, request: Request) -> Any:
        """What a storage account or the relay says to somebody who only sees whether it is there."""
        raise HttpError(400, "InvalidQueryParameterValue", "Value for one of the query parameters is invalid.")

    def workspaces(self, request: Request) -> Any:
        return {"value": [self.workspace(request)]}

    def group(self, request: Request) -> Any:
        scope = f"/subscriptions/{self._state.subscription}/resourceGroups/{self._state.group}"
        return {"id": scope, "name": self._state.group, "location": "local"}

    def discovery(self, request: Request) -> Any:
        services = (
            "api catalog experimentation gallery history hyperdrive labeling modelmanagement pipelines studio "
            "notebooks inference mlflow inferencing"
        )
        host = self._state.services_host
        port = self._state.url.rpartition(":")[2]
        return dict.fromkeys(services.split(), f"https://{host}:{port}" if host else self._state.url)

    def clouds(self, request: Request) -> Any:
        """Where Azure is: the SDK asks ARM_CLOUD_METADATA_URL for clouds other than those that it knows."""
        url = self._state.url
        return [
            {
                "name": "TestCloud",
                "portal": "https://ml.azure.com/",
                "resourceManager": f"{url}/",
                "authentication": {"loginEndpoint": url},
                "suffixes": {"storage": f"localhost:{url.rpartition(':')[2]}"},
            }
        ]

    def permissions(self, request: Request) -> Any:
        """What the role AzureML Data Scientist allows, or what the test says."""
        return {"value": [{"actions": self._state.actions, "notActions": [f"{PROVIDER}/workspaces/delete"]}]}

    def keys(self, request: Request) -> Any:
        host = self._state.url.removeprefix("http://")
        return {
            "userStorageKey": "c3RvcmFnZQ==",
            "userStorageResourceId": "storage",
            "appInsightsInstrumentationKey": "insights",
            "containerRegistryCredentials": {
                "location": host,
                "username": REGISTRY_USER,
                "passwords": [
                    {"name": "password", "value": REGISTRY_PASSWORD},
                    {"name": "password2", "value": REGISTRY_PASSWORD},
                ],
            },
        }

    # Computes

    def computes(self, request: Request) -> Any:
        with self._state.lock:
            # The client takes a `nextLink` that is there for one that leads somewhere.
            return {"value": [self._compute(one) for one in self._state.computes.values()]}

    def compute(self, request: Request) -> Any:
        with self._state.lock:
            one = self._state.computes.get(request["compute"])
            if one is None:
                raise HttpError(404, "ComputeNotFound", f"ComputeNotFound: {request['compute']} was not found.")
            return self._compute(one)

    def _compute(self, one: Compute) -> dict[str, Any]:
        working = sum(
            run.target == one.name and run.status in ("Preparing", "Running") for run in self._state.runs.values()
        )
        properties: dict[str, Any] = {
            "vmSize": "STANDARD_D2_V2",
            "vmPriority": "Dedicated",
            "scaleSettings": {"minNodeCount": 0, "maxNodeCount": one.nodes, "nodeIdleTimeBeforeScaleDown": "PT120S"},
            "subnet": {"id": one.subnet} if one.subnet else None,
            "userAccountCredentials": {"adminUserName": "azureuser", "adminUserPassword": None},
            "remoteLoginPortPublicAccess": "Disabled",
            "allocationState": "Steady",
            "allocationStateTransitionTime": "2026-01-01T00:00:00Z",
            "errors": None,
            "currentNodeCount": working,
            "targetNodeCount": working,
            "nodeStateCounts": {
                "preparingNodeCount": 0,
                "runningNodeCount": working,
                "idleNodeCount": 0,
                "unusableNodeCount": 0,
                "leavingNodeCount": 0,
                "preemptedNodeCount": 0,
            },
        }
        if one.type == "ComputeInstance":
            address = f"{self._state.url}/instance/{one.name}"
            applications = [
                {"displayName": "Jupyter", "endpointUri": one.jupyter or f"{address}/tree/"},
                {"displayName": "Jupyter Lab", "endpointUri": f"{address}/lab"},
            ]
            properties |= {
                "state": one.power,
                "applications": applications[1 if one.jupyter == "" else 0 :],
                "connectivityEndpoints": {"publicIpAddress": None, "privateIpAddress": one.node},
                "sshSettings": {
                    "sshPublicAccess": "Enabled" if one.public_key else "Disabled",
                    "adminUserName": "azureuser",
                    "sshPort": 22,
                    "adminPublicKey": one.public_key or None,
                },
                "createdBy": {"userName": one.owner.title(), "userOrgId": "tenant", "userId": one.owner},
                "applicationSharingPolicy": "Personal",
            }
        return {
            "id": f"{self._state.scope}/computes/{one.name}",
            "name": one.name,
            "type": "Microsoft.MachineLearningServices/workspaces/computes",
            "location": "local",
            "tags": {},
            "properties": {
                "computeType": one.type,
                "computeLocation": "local",
                "description": "",
                "resourceId": None,
                "provisioningState": one.state,
                "provisioningErrors": None,
                "isAttachedCompute": False,
                "createdOn": "2026-01-01T00:00:00Z",
                "modifiedOn": "2026-01-01T00:00:00Z",
                "disableLocalAuth": True,
                "properties": properties,
            },
        }

    def usages(self, request: Request) -> Any:
        """As its public description has it; the names as people have seen them."""
        return page(
            [
                {
                    "id": f"{request.path}/{name}",
                    "type": f"{PROVIDER}/workspaces/usages",
                    "unit": "Count",
                    "currentValue": used,
                    "limit": limit,
                    "name": {"value": name, "localizedValue": name},
                }
                for name, used, limit in self._state.usages
            ]
        )

    def sizes(self, request: Request) -> Any:
        size = {"name": "Standard_D2_v2", "family": "standardDv2Family", "vCPUs": 2, "gpus": 0, "memoryGB": 7}
        return page([size | {"supportedComputeTypes": ["AMLCompute"]}])

    # Datastores

    def datastores(self, request: Request) -> Any:
        return page([self._datastore(name) for name in self._state.datastores])

    def datastore(self, request: Request) -> Any:
        name = request.names.get("datastore", "workspaceblobstore")
        if name not in self._state.datastores:
            raise not_found(f"The datastore {name}")
        return self._datastore(name)

    def v2_datastores(self, request: Request) -> Any:
        found = [self._v2_datastore(name) for name in self._state.datastores]
        default = request.query.get("isDefault") == "true"
        return page([one for one in found if one["properties"]["isDefault"] or not default])

    def v2_datastore(self, request: Request) -> Any:
        if request["datastore"] not in (*self._state.datastores, "workspaceartifactstore"):
            raise not_found(f"The datastore {request['datastore']}")
        return self._v2_datastore(request["datastore"])

    def v2_secrets(self, request: Request) -> Any:
        if self._state.datastores.get(request["datastore"]) == "account":
            return {"secretsType": "AccountKey", "key": ACCOUNT_KEY}
        return {"secretsType": "Sas", "sasToken": "sv=2024&sig=x"}

    def _v2_datastore(self, name: str) -> dict[str, Any]:
        kind = self._state.datastores.get(name)
        container = ARTIFACTS if "artifact" in name else DATASTORE
        return {
            "id": f"{self._state.scope}/datastores/{name}",
            "name": name,
            "type": f"{PROVIDER}/workspaces/datastores",
            "properties": {
                "datastoreType": {"gen2": "AzureDataLakeGen2", "file": "AzureFile"}.get(str(kind), "AzureBlob"),
                "accountName": "storage",
                "filesystem" if kind == "gen2" else "containerName": container,
                "endpoint": f"localhost:{self._state.url.rpartition(':')[2]}",
                "protocol": "https",
                "isDefault": name == "workspaceblobstore",
                "credentials": {"credentialType": "None" if kind in (None, "identity") else "AccountKey"},
            },
        }

    def _datastore(self, name: str) -> dict[str, Any]:
        kind = self._state.datastores[name]
        # Without a key of its own, a datastore is read by whoever is signed in.
        key = {"credentialType": "Sas", "credential": "sig=x", "sasToken": "sig=x", "isSas": True}
        return {
            "name": name,
            "dataStoreType": "AzureBlob",
            "hasBeenValidated": True,
            "tags": {},
            "azureStorageSection": {
                "accountName": "storage",
                "containerName": DATASTORE,
                "endpoint": "core.windows.net",
                "protocol": "https",
                **(key if kind == "key" else {"credentialType": "None", "isSas": False}),
                "subscriptionId": self._state.subscription,
                "resourceGroup": self._state.group,
            },
        }
