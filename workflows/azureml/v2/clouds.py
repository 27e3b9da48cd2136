"""Which of Azure's clouds is meant, by the same variables as azure-ai-ml's own (``_azure_environments.py``, 1.35)."""

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
        manager: Address of its resource manager, whose tokens the workspace's services take, too.
        login: Address at which people and programs sign in.
        machine_learning: The audience of a token for Azure ML itself, which submitting a pipeline takes.
        storage: What storage accounts' names end with, behind ``blob.`` or ``dfs.``; empty where that is not known.
        registries: Address at which registries are looked up; empty where that is not known.
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
    """The cloud of AZUREML_CURRENT_CLOUD, or the one that ARM_CLOUD_METADATA_URL tells of; else the public one.

    Raises:
        UserError: There is no such cloud.
        requests.RequestException: It cannot be asked now.
    """
    environ = os.environ if environ is None else environ
    named, metadata = environ.get("AZUREML_CURRENT_CLOUD"), environ.get("ARM_CLOUD_METADATA_URL")
    if named in _KNOWN:
        return _KNOWN[named]
    if metadata:
        found = _told(metadata, named)
        if found is not None:
            return found
    if named:
        raise UserError(
            f"AZUREML_CURRENT_CLOUD names no cloud of Azure's: {named}.",
            f"Set it to one of {', '.join(_KNOWN)}, or ARM_CLOUD_METADATA_URL to the address that tells of it.",
        )
    return _KNOWN["AzureCloud"]


def _told(address: str, named: str | None) -> Cloud | None:
    """The cloud of a name that an address tells of, or else the one that the address itself belongs to."""
    import requests

    with requests.Session() as http:
        listed = as_json(fetch_response(http, address, "", {}), "a list of clouds")
    for one in listed if isinstance(listed, list) else [listed]:
        told: Mapping[str, Any] = one if isinstance(one, dict) else {}
        manager = str(told.get("resourceManager") or "").rstrip("/")
        if manager and (told.get("name") == named if named else manager in address):
            login, suffixes = told.get("authentication"), told.get("suffixes")
            return Cloud(
                str(told.get("name")),
                web_address(manager, "an address"),
                web_address(login.get("loginEndpoint") if isinstance(login, dict) else None, "an address"),
                _KNOWN["AzureCloud"].machine_learning,
                str(suffixes.get("storage") or "") if isinstance(suffixes, dict) else "",
                # As azure-ai-ml has it for clouds that it does not know.
                os.environ.get("REGISTRY_DISCOVERY_ENDPOINT_URL", ""),
            )
    return None
