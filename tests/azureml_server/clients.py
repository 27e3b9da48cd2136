"""Processes that use the server as if it were Azure."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from .server import CLIENT, AzureMLServer
from .tokens import make_token


def client_environment(
    server: AzureMLServer,
    home: Path,
    environ: Mapping[str, str] | None = None,
    sign_in: bool = True,
    token_seconds: float = 3600,
) -> dict[str, str]:
    """The environment of a process whose SDK talks to the server.

    Args:
        server: The server, started.
        home: A folder in the home folder's place: the SDK keeps what it has discovered below it.
        environ: What to begin with; this process's environment by default.
        sign_in: Whether the SDK's own authentication classes are replaced. Without it, the program has to be given
            `azureml_server_authentication.ServerAuthentication`.
        token_seconds: For how long the token holds; with a negative number it has expired.
    """
    home.mkdir(parents=True, exist_ok=True)
    found = dict(os.environ if environ is None else environ)
    path = [*filter(None, [found.get("PYTHONPATH")]), str(CLIENT)]
    if server.url.startswith("https:"):
        # SDK v2 is led by these two; the name of a cloud would count more.
        cloud = {
            "ARM_CLOUD_METADATA_URL": f"{server.url}/metadata/endpoints",
            "REQUESTS_CA_BUNDLE": str(server.authorities),
        }
        found.pop("AZUREML_CURRENT_CLOUD", None)
    else:
        cloud = {"AZUREML_CURRENT_CLOUD": "AzureCloud"}
    return {
        **found,
        "HOME": str(home),
        "USERPROFILE": str(home),
        "PYTHONPATH": os.pathsep.join(path),
        **cloud,
        "AZUREML_DEBUG_TEST_SERVER": server.url,
        "AZUREML_DEBUG_TEST_TOKEN": make_token(token_seconds),
        "AZUREML_DEBUG_TEST_SUBSCRIPTION": server.state.subscription,
        "AZUREML_DEBUG_TEST_SIGN_IN": "1" if sign_in else "",
    }


def client_environment_v2(server: AzureMLServer, home: Path, token_seconds: float = 3600) -> dict[str, str]:
    """The environment of a process that talks to a server (``secure=True``) by SDK v2's ways.

    It signs in with AML_AUTH=azureml_server_credential:ServerCredential.

    Args:
        server: The server, started.
        home: A folder in the home folder's place.
        token_seconds: For how long its tokens hold; with a negative number they have expired.
    """
    home.mkdir(parents=True, exist_ok=True)
    return {
        "HOME": str(home),
        "USERPROFILE": str(home),
        "PYTHONPATH": os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), str(CLIENT)]),
        "REQUESTS_CA_BUNDLE": str(server.authorities),
        "ARM_CLOUD_METADATA_URL": f"{server.url}/metadata/endpoints",
        "AZUREML_DEBUG_TEST_SERVER": server.url,
        "AZUREML_DEBUG_TEST_TOKEN_SECONDS": str(token_seconds),
        "AML_AUTH": "azureml_server_credential:ServerCredential",
    }


def write_configuration(server: AzureMLServer, folder: Path) -> Path:
    """`config.json`, as it is downloaded from a workspace."""
    state = server.state
    path = folder / "config.json"
    path.write_text(
        json.dumps(
            {
                "subscription_id": state.subscription,
                "resource_group": state.group,
                "workspace_name": state.workspace,
            },
            indent=4,
        )
    )
    return path
