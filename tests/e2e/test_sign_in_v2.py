"""Signing in by SDK v2's ways where it fails: real requests, to a token service and a workspace on this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from azureml_server import AzureMLServer, write_configuration
from azureml_server.server import CLIENT
from connect_proxy import ConnectProxy

from workflows.azureml.errors import NotAllowed, SignInRefused
from workflows.azureml.v2 import workspace
from workflows.errors import UserError
from workflows.settings import Settings, resolve

OWN = "azureml_server_credential:ServerCredential"
SECRET = "hush-hush-of-this-test"
PRINCIPAL = {"AZURE_TENANT_ID": "tenant", "AZURE_CLIENT_ID": "client", "AZURE_CLIENT_SECRET": SECRET}
_VARIABLES = ("AZUREML_CURRENT_CLOUD", "IDENTITY_ENDPOINT", "IDENTITY_HEADER", "MSI_ENDPOINT", "MSI_SECRET", *PRINCIPAL)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[AzureMLServer]:
    with AzureMLServer(secure=True) as made:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(made.certificate))
        monkeypatch.setenv("ARM_CLOUD_METADATA_URL", f"{made.url}/metadata/endpoints")
        for name in _VARIABLES:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.syspath_prepend(str(CLIENT))
        yield made
        assert not made.unknown


def settings(server: AzureMLServer, folder: Path, **more: str) -> Settings:
    write_configuration(server, folder)
    return resolve(folder, environ={"AML_AUTH": OWN, **more})


def refused(server: AzureMLServer, folder: Path, **more: str) -> UserError:
    """What is said; of no secret."""
    with pytest.raises(UserError) as caught:
        workspace.connect(settings(server, folder, **more))
    told = caught.value
    assert SECRET not in told.problem + told.remedy and "eyJ" not in told.problem + told.remedy
    assert "\n" not in told.problem + told.remedy and told.remedy
    return told


# A service principal


@pytest.fixture
def principal(server: AzureMLServer, tmp_path: Path) -> Path:
    """A project whose .env has a service principal's variables; the server knows that one."""
    lines = [f"{name}={value}\n" for name, value in PRINCIPAL.items()]
    (tmp_path / ".env").write_text("".join(lines))
    server.state.principals["client"] = SECRET
    return tmp_path


def test_a_service_principal_signs_in(server: AzureMLServer, principal: Path) -> None:
    found = workspace.connect(settings(server, principal, AML_AUTH="service-principal"))
    assert found.access().authorization.startswith("Bearer ey")
    assert [one.path for one in server.requests if one.method == "POST"] == ["/tenant/oauth2/v2.0/token"]


def test_a_wrong_secret_is_told(server: AzureMLServer, principal: Path) -> None:
    server.state.principals["client"] = "another"
    told = refused(server, principal, AML_AUTH="service-principal")
    assert isinstance(told, SignInRefused) and "AADSTS7000215: Invalid client secret" in told.problem
    assert "AZURE_CLIENT_SECRET" in told.remedy and "Trace ID" not in told.problem


@pytest.mark.parametrize(
    ("number", "problem", "remedy"),
    [
        ("7000222", "expired", "make a new one"),
        ("700016", "was not found in the directory", "AZURE_CLIENT_ID"),
        ("90002", "there is no such tenant", "AZURE_TENANT_ID"),
    ],
)
def test_what_is_wrong_with_a_service_principal_is_told(
    server: AzureMLServer, principal: Path, number: str, problem: str, remedy: str
) -> None:
    server.state.sign_in_error = number
    told = refused(server, principal, AML_AUTH="service-principal")
    assert problem in told.problem and remedy in told.remedy


# A managed identity


@pytest.mark.parametrize("names", [("IDENTITY_ENDPOINT", "IDENTITY_HEADER"), ("MSI_ENDPOINT", "MSI_SECRET")])
def test_a_managed_identity_that_is_not_there_is_told(
    server: AzureMLServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, str]
) -> None:
    monkeypatch.setenv(names[0], f"{server.url}/identity")
    monkeypatch.setenv(names[1], SECRET)
    told = refused(server, tmp_path, AML_AUTH="managed-identity")
    assert "No managed identity signs in here" in told.problem and "AML_AUTH=interactive" in told.remedy
    assert any(one.path == "/identity" and one.status == 400 for one in server.requests)


# Somebody at a terminal, or nobody


@pytest.mark.parametrize(
    ("says", "problem"),
    [
        ("ERROR: Please run 'az login' to setup account.", "You are not signed in to Azure, and there is no terminal"),
        (
            "ERROR: AADSTS700082: The refresh token has expired due to inactivity. To re-authenticate, run az login",
            "(az: AADSTS700082: The refresh token has expired",
        ),
    ],
)
def test_az_that_is_not_signed_in_is_told_where_there_is_no_terminal(
    server: AzureMLServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, problem: str
) -> None:
    az = tmp_path / "bin" / "az"
    az.parent.mkdir()
    az.write_text(f'#!/bin/sh\necho "{says}" >&2\nexit 1\n')
    az.chmod(0o755)
    monkeypatch.setenv("PATH", str(az.parent), prepend=os.pathsep)
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        told = refused(server, tmp_path, AML_AUTH="interactive")
    assert problem in told.problem and "az login" in told.remedy


# One's own factory


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("def make():\n    raise RuntimeError('no vault here')\n", "failed: RuntimeError: no vault"),
        (
            "class make:\n    def get_token(self, *scopes, **more):\n        raise RuntimeError('no vault here')\n",
            "made does not sign in: RuntimeError: no vault",
        ),
        (
            "class make:\n    def get_token(self, *scopes, **more):\n        return None\n",
            "does not sign in: AttributeError",
        ),
        (
            f"class make:\n    def get_token(self, *scopes, **more):\n        raise OSError('password={SECRET}')\n",
            "does not sign in: OSError",
        ),
    ],
)
def test_a_factory_that_fails_is_told(
    server: AzureMLServer, tmp_path: Path, request: pytest.FixtureRequest, body: str, problem: str
) -> None:
    name = f"mine_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(body)
    told = refused(server, tmp_path, AML_AUTH=f"{name}:make")
    assert f"AML_AUTH={name}:make" in told.problem and problem in told.problem
    assert "get_token(*scopes)" in told.remedy


# What is signed in, and not let in


def test_no_permission_names_the_role(server: AzureMLServer, tmp_path: Path) -> None:
    server.faults.fail("GET /subscriptions", 403)
    told = refused(server, tmp_path)
    assert isinstance(told, NotAllowed) and "AzureML Data Scientist" in told.remedy


@pytest.mark.parametrize(
    ("clock", "problem"),
    [(7200, "this machine's clock is 2 h behind Azure's"), (-900, "this machine's clock is 15 min ahead of Azure's")],
)
def test_a_clock_that_is_wrong_is_told(
    server: AzureMLServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: float, problem: str
) -> None:
    server.state.clock = clock
    # Tokens begin and end by this machine's clock.
    monkeypatch.setenv("AZUREML_DEBUG_TEST_TOKEN_BEGINS", "0")
    told = refused(server, tmp_path)
    assert isinstance(told, SignInRefused) and problem in told.problem and "Set the clock" in told.remedy


def test_a_token_that_has_expired_is_no_matter_of_the_clock(
    server: AzureMLServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZUREML_DEBUG_TEST_TOKEN_SECONDS", "-60")
    told = refused(server, tmp_path)
    assert "clock" not in told.problem and "It has expired" in told.remedy


# A proxy in between


def test_everything_goes_through_the_proxy_that_https_proxy_names(
    server: AzureMLServer, principal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ConnectProxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:{SECRET}@127.0.0.1:{proxy.port}")
        monkeypatch.setenv("NO_PROXY", "")
        workspace.connect(settings(server, principal, AML_AUTH="service-principal"))
    host = server.url.partition("://")[2]
    # The clouds, the token service, the workspace.
    assert len(proxy.asked) >= 3 and set(proxy.asked) == {host}


@pytest.mark.parametrize("auth", [OWN, "service-principal"])
def test_a_proxy_that_refuses_is_told(
    server: AzureMLServer, principal: Path, monkeypatch: pytest.MonkeyPatch, auth: str
) -> None:
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.delenv("ARM_CLOUD_METADATA_URL")
    with ConnectProxy(status="407 Proxy Authentication Required") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:{SECRET}@127.0.0.1:{proxy.port}")
        told = refused(server, principal, AML_AUTH=auth)
    assert "407 Proxy Authentication Required" in told.problem and "HTTPS_PROXY" in told.remedy


# Whoever answers is not trusted


@pytest.mark.parametrize(
    ("days", "problem"), [(1.0, "certificate is not yet valid"), (-9.0, "certificate has expired")]
)
def test_a_certificate_of_another_time_asks_for_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: float, problem: str
) -> None:
    monkeypatch.syspath_prepend(str(CLIENT))
    server = AzureMLServer(secure=True)
    server.certificate_days = days
    with server:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(server.certificate))
        monkeypatch.setenv("ARM_CLOUD_METADATA_URL", f"{server.url}/metadata/endpoints")
        monkeypatch.delenv("AZUREML_CURRENT_CLOUD", raising=False)
        told = refused(server, tmp_path)
    assert problem in told.problem and "clock" in told.remedy


def test_a_certificate_of_nobody_that_is_trusted_asks_for_its_authorities(
    server: AzureMLServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with AzureMLServer(secure=True) as other:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other.certificate))
        told = refused(server, tmp_path)
    assert "self-signed certificate" in told.problem and "REQUESTS_CA_BUNDLE" in told.remedy
