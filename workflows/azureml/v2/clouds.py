"""Finds which of Azure's clouds is used, from the same variables as azure-ai-ml (``_azure_environments.py``, 1.35)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import UserError
from ...received import as_json, web_address
from ..limited_requests import fetch_response


@dataclass(frozen=True)
class Cloud:
    """One of Azure's clouds.

    Attributes:
        name: Its name.
        manager: Address of its resource manager. The workspace's services accept the same tokens.
        login: Address for signing in.
        machine_learning: The audience of a token for Azure ML itself, which is needed to submit a pipeline.
        storage: The end of storage accounts' host names, after ``blob.`` or ``dfs.``; empty where unknown.
        registries: Address at which registries are looked up; empty where unknown.
    """

    name: str
    manager: str
    login: str
    machine_learning: str
    storage: str = ""
    registries: str = ""

    @property
    def scope(self) -> str:
        """The scope of tokens for the resource manager and the workspace's services."""
        return f"{self.manager.rstrip('/')}/.default"


_KNOWN = {
    cloud.name: cloud
    for cloud in (
        Cloud(
            "AzureCloud",
            "https://management.azure.com",
            "https://login.microsoftonline.com",
            "https://ml.azure.com",
            "core.windows.net",
            "https://eastus.api.azureml.ms",
        ),
        Cloud(
            "AzureChinaCloud",
            "https://management.chinacloudapi.cn",
            "https://login.chinacloudapi.cn",
            "https://ml.azure.cn",
            "core.chinacloudapi.cn",
            "https://chinaeast2.api.ml.azure.cn",
        ),
        Cloud(
            "AzureUSGovernment",
            "https://management.usgovcloudapi.net",
            "https://login.microsoftonline.us",
            "https://ml.azure.us",
            "core.usgovcloudapi.net",
            "https://usgovarizona.api.ml.azure.us",
        ),
    )
}


def is_known(cloud: Cloud) -> bool:
    """Whether it is one of Microsoft's own."""
    return _KNOWN.get(cloud.name) == cloud


def find_cloud(environ: Mapping[str, str] | None = None) -> Cloud:
    """The cloud of AZUREML_CURRENT_CLOUD, or the one that ARM_CLOUD_METADATA_URL describes; else the public one.

    Raises:
        UserError: There is no such cloud.
        requests.RequestException: The description cannot be read now.
    """
    environ = os.environ if environ is None else environ
    named, metadata = environ.get("AZUREML_CURRENT_CLOUD"), environ.get("ARM_CLOUD_METADATA_URL")
    if named in _KNOWN:
        return _KNOWN[named]
    if metadata:
        found = _cloud_from_metadata(metadata, named)
        if found is not None:
            return found
    if named:
        raise UserError(
            f"AZUREML_CURRENT_CLOUD names no cloud of Azure: {named}.",
            f"Set it to one of {', '.join(_KNOWN)}, or ARM_CLOUD_METADATA_URL to the address that describes it.",
        )
    return _KNOWN["AzureCloud"]


def _cloud_from_metadata(address: str, named: str | None) -> Cloud | None:
    """The cloud of a name in the metadata at an address; without a name, the cloud that the address belongs to."""
    import requests

    with requests.Session() as http:
        listed = as_json(fetch_response(http, address, "", {}), "a list of clouds")
    for one in listed if isinstance(listed, list) else [listed]:
        entry: Mapping[str, Any] = one if isinstance(one, dict) else {}
        manager = str(entry.get("resourceManager") or "").rstrip("/")
        if manager and (entry.get("name") == named if named else manager in address):
            login, suffixes = entry.get("authentication"), entry.get("suffixes")
            return Cloud(
                str(entry.get("name")),
                web_address(manager, "an address"),
                web_address(login.get("loginEndpoint") if isinstance(login, dict) else None, "an address"),
                _KNOWN["AzureCloud"].machine_learning,
                str(suffixes.get("storage") or "") if isinstance(suffixes, dict) else "",
                # azure-ai-ml uses the same variable for clouds that it does not know.
                os.environ.get("REGISTRY_DISCOVERY_ENDPOINT_URL", ""),
            )
    return None
