"""A workspace by SDK v2's routes, over HTTPS: signing in, looking it up, cancelling; without azure-ai-ml itself."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from azureml_server import AzureMLServer, write_configuration
from azureml_server.server import CLIENT

from workflows.azureml.errors import NotAllowed, NotFound, SignInRefused
from workflows.azureml.v2 import clouds, credentials, workspace
from workflows.errors import UserError
from workflows.settings import Settings, resolve

OWN = "azureml_server_credential:ServerCredential"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[AzureMLServer]:
    with AzureMLServer(secure=True) as made:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(made.certificate))
        monkeypatch.setenv("ARM_CLOUD_METADATA_URL", f"{made.url}/metadata/endpoints")
        monkeypatch.delenv("AZUREML_CURRENT_CLOUD", raising=False)
        monkeypatch.syspath_prepend(str(CLIENT))
        yield made
        assert not made.unknown


def settings(server: AzureMLServer, folder: Path, **more: str) -> Settings:
    write_configuration(server, folder)
    return resolve(folder, environ={"AML_AUTH": OWN, **more})


def test_a_workspace_is_found_with_its_services(server: AzureMLServer, tmp_path: Path) -> None:
    found = workspace.connect(settings(server, tmp_path))
    assert (found.history, found.location, found.legacy) == (server.url, "local", False)
    access = found.access()
    assert access.scope == server.state.scope and access.manager == server.url
    assert 3500 < access.expires - time.time() <= 3600
    assert not [name for name in sys.modules if name.startswith("azure.ai")]


def test_a_workspace_that_is_not_there_is_told(server: AzureMLServer, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="There is no Azure ML workspace elsewhere") as caught:
        workspace.connect(settings(server, tmp_path, AML_WORKSPACE="elsewhere"))
    assert "AML_WORKSPACE" in caught.value.remedy


def test_a_token_that_is_refused_is_told(
    server: AzureMLServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZUREML_DEBUG_TEST_TOKEN_SECONDS", "-60")
    with pytest.raises(SignInRefused, match="does not accept the sign-in"):
        workspace.connect(settings(server, tmp_path))


def test_missing_permission_is_told(server: AzureMLServer, tmp_path: Path) -> None:
    server.faults.fail("GET /subscriptions", 403)
    with pytest.raises(NotAllowed, match="no permission for reading the workspace"):
        workspace.connect(settings(server, tmp_path))


def test_a_busy_service_is_asked_again(server: AzureMLServer, tmp_path: Path) -> None:
    server.faults.throttle("GET /subscriptions", retry_after=0.1, times=2)
    said: list[str] = []
    assert workspace.connect(settings(server, tmp_path), said.append).history == server.url
    assert len(said) == 2 and "429" in said[0]


def test_a_workspace_in_legacy_mode_is_refused_for_jobs_of_v2(server: AzureMLServer, tmp_path: Path) -> None:
    server.state.legacy = True
    found = workspace.connect(settings(server, tmp_path))
    with pytest.raises(UserError, match="v1_legacy_mode is on") as caught:
        workspace.require_v2(found)
    assert "AML_SDK=v1" in caught.value.remedy


def test_a_job_is_cancelled(server: AzureMLServer, tmp_path: Path) -> None:
    found = workspace.connect(settings(server, tmp_path))
    run = server.state.add_run("job", "tests")
    found.cancel("job")
    assert run.cancelled.is_set()


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ("no_such_module:Factory", "No module named"),
        ("azureml_server_credential:Nothing", "has no attribute"),
        ("builtins:dict", "made a dict, which gives no tokens"),
    ],
)
def test_a_credential_of_ones_own_that_is_none_is_told(
    server: AzureMLServer, tmp_path: Path, made: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        workspace.connect(settings(server, tmp_path, AML_AUTH=made))


def test_nobody_signed_in_and_no_terminal_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # without az
    cloud = clouds.find_cloud({})
    signing = credentials.make_credential(resolve(tmp_path, environ={"AML_AUTH": "interactive"}), cloud)
    with open("/dev/null") as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        with pytest.raises(SignInRefused, match="there is no terminal") as caught:
            signing.get_token(cloud.scope)
    assert "az login" in caught.value.remedy


def test_a_service_principal_without_its_secret_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="AZURE_CLIENT_SECRET"):
        made = resolve(tmp_path, environ={"AML_AUTH": "service-principal"})
        credentials.make_credential(made, clouds.find_cloud({}))


def test_the_cloud_is_the_one_that_the_variables_name(server: AzureMLServer) -> None:
    url = f"{server.url}/metadata/endpoints"
    assert clouds.find_cloud({}).manager == "https://management.azure.com"
    assert clouds.find_cloud({"AZUREML_CURRENT_CLOUD": "AzureChinaCloud"}).scope.endswith("chinacloudapi.cn/.default")
    assert clouds.find_cloud({"ARM_CLOUD_METADATA_URL": url}).manager == server.url
    assert clouds.find_cloud({"ARM_CLOUD_METADATA_URL": url, "AZUREML_CURRENT_CLOUD": "TestCloud"}).login == server.url
    with pytest.raises(UserError, match="names no cloud of Azure: Moon"):
        clouds.find_cloud({"AZUREML_CURRENT_CLOUD": "Moon"})
