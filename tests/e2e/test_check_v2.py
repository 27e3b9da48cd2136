"""`azureml.check` with SDK v2: real requests to a workspace over HTTPS, and none that changes anything in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azureml_projects import python_with_sdk_v2, watch_imports
from azureml_server import AzureMLServer, client_environment_v2, write_configuration
from conftest import make_project
from projects import Project


@pytest.fixture
def server() -> Iterator[AzureMLServer]:
    with AzureMLServer(secure=True) as made:
        made.state.services_host = "local.api.localhost"
        yield made
        assert not made.unknown


@pytest.fixture
def project(server: AzureMLServer, tmp_path: Path) -> Iterator[Project]:
    made = make_project(tmp_path / "a project", "process")
    made.python = python_with_sdk_v2()
    made.environ |= client_environment_v2(server, tmp_path / "home")
    # Nothing is installed.
    made.environ["REQUESTS_CA_BUNDLE"] = str(server.certificate)
    write_configuration(server, made.folder)
    yield made
    made.clean_up()


def by_name(found: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    names: dict[str, list[dict[str, Any]]] = {}
    for one in found:
        names.setdefault(one["name"], []).append(one)
    return names


def test_each_thing_is_looked_at_and_nothing_is_changed(
    project: Project, server: AzureMLServer, tmp_path: Path
) -> None:
    network = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/net/subnets/inner"
    server.add_compute("inside", subnet=network)
    server.add_compute("empty", nodes=0)
    server.add_compute("own", type="ComputeInstance")
    place, seen = watch_imports(tmp_path, project.python)
    project.environ["PYTHONPATH"] += f"{os.pathsep}{place}"
    result = project.ok("azureml.check", "--json")
    found = by_name(result.json["findings"])
    assert list(found) == [
        "SDK", "settings", "sign-in", "workspace", "legacy mode", "permissions", "compute", "quota", "relay",
        "datastore",
    ]  # fmt: skip
    assert found["SDK"][0]["text"].startswith("azure-ai-ml 1.")
    assert server.url in found["sign-in"][0]["text"] and "https://ml.azure.com" in found["sign-in"][0]["text"]
    computes = {one["text"].split(":")[0]: one for one in found["compute"]}
    assert list(computes) == ["cpu", "empty", "inside", "own"]
    assert computes["cpu"]["ok"] is True and computes["empty"]["ok"] is None
    assert "0 of 4 nodes" in computes["cpu"]["text"] and "net/inner" in computes["inside"]["text"]
    assert found["relay"][0]["ok"] is True and "ssh-check.local.nodes.localhost" in found["relay"][0]["text"]
    assert found["datastore"][0]["ok"] is True and "account storage" in found["datastore"][0]["text"]
    assert {one.method for one in server.requests} == {"GET"} and len(server.requests) > 8
    assert not seen.exists(), seen.read_text()


def test_what_will_not_work_is_said_of_each_thing(project: Project, server: AzureMLServer) -> None:
    state = server.state
    state.actions, state.legacy = ["*/read"], True
    state.usages = [("Total Cluster Dedicated Regional vCPUs", 23, 24), ("Standard Dv2 Family Cluster vCPUs", 0, 24)]
    state.services_host = "other.api.nowhere.invalid"
    result = project.inv("azureml.check", "--json", AML_COMPUTE_TARGET="gpu")
    found = by_name(result.json["findings"])
    assert result.code == 1 and "Traceback" not in result.err
    said = {name: (ones[0]["ok"], ones[0]["text"], ones[0]["remedy"]) for name, ones in found.items()}
    assert said["legacy mode"][0] is False and "AML_SDK=v1" in said["legacy mode"][2]
    assert said["permissions"][0] is None and "submitting jobs" in said["permissions"][1]
    assert said["compute"][0] is False and "There is cpu" in said["compute"][2]
    assert said["quota"][0] is None and "1 vCPUs left of Total Cluster Dedicated" in said["quota"][1]
    assert said["relay"][0] is None and "cannot be reached" in said["relay"][1] and "AML_REACH" in said["relay"][2]


def test_the_quota_that_may_not_be_asked_for_is_a_warning(project: Project, server: AzureMLServer) -> None:
    server.faults.fail("GET .*/usages", 403)
    found = by_name(project.ok("azureml.check", "--json").json["findings"])
    assert found["quota"][0]["ok"] is None and "no permission for reading the quota" in found["quota"][0]["text"]
    assert found["datastore"][0]["ok"] is True


def test_the_way_over_the_network_is_judged_where_the_relay_is_not_wanted(project: Project) -> None:
    found = by_name(project.ok("azureml.check", "--json", AML_REACH="network").json["findings"])
    assert "relay" not in found and "machine beside them" in found["compute"][0]["remedy"]


def test_a_workspace_or_a_sign_in_that_is_not_there_ends_the_check(project: Project) -> None:
    result = project.inv("azureml.check", "--json", AML_WORKSPACE="nope")
    assert result.code == 1 and "There is no Azure ML workspace nope" in result.json["findings"][-1]["text"]
    result = project.inv("azureml.check", "--json", AML_AUTH="nowhere:sign_in")
    assert result.code == 1 and result.json["findings"][-1]["name"] == "sign-in"
    (project.folder / "config.json").unlink()
    result = project.inv("azureml.check", "--json")
    assert result.code == 1 and result.json["findings"][-1]["name"] == "settings"


def test_the_older_sdk_that_is_asked_for_and_not_there_is_told(project: Project) -> None:
    found = project.inv("azureml.check", "--json", AML_SDK="v1").json["findings"]
    assert [one["name"] for one in found] == ["SDK"] and "[azureml-v1]" in found[0]["remedy"]


def test_a_refused_sign_in_is_one_line_and_what_to_do(project: Project, server: AzureMLServer) -> None:
    secret = "hush-hush-of-this-test"
    lines = ["AZURE_TENANT_ID=tenant", "AZURE_CLIENT_ID=client", f"AZURE_CLIENT_SECRET={secret}"]
    (project.folder / ".env").write_text("\n".join(lines) + "\n")
    result = project.inv("azureml.check", AML_AUTH="service-principal")
    lines = result.out.splitlines()
    assert result.code == 1 and lines[-2].startswith("FAILED   sign-in      Signing in to Azure failed: AADSTS7000215")
    assert lines[-1].strip().startswith("Correct AZURE_CLIENT_SECRET")
    # What azure-identity logs of it is not shown beside that.
    assert not result.err and secret not in result.out
    server.state.principals["client"] = secret
    found = by_name(project.ok("azureml.check", "--json", AML_AUTH="service-principal").json["findings"])
    assert found["sign-in"][0]["ok"] is True and "service-principal, for" in found["sign-in"][0]["text"]
