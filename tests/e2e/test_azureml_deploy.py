"""A registered model's image: packaged by the workspace, brought here, debugged; through the real SDK."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from azureml_projects import (
    SCORE,
    SCORE_LINE,
    Workspace,
    make_workspace_project,
    python_with_sdk_v2,
    python_with_the_sdk,
    watch_imports,
)
from azureml_server import AzureMLServer
from conftest import make_project
from pipelines import make_pipeline_project
from projects import PLAIN_LINE, ROOT, Project, post, until
from ready import Ready, deciding
from services import Posting, attach, stop_of, value_of

from workflows.engines.docker import DockerEngine
from workflows.environments.definition import load_definition

PACKAGE = ("--source", "azureml", "--model")


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """A project with a workspace; images that it leaves are taken away."""
    python = python_with_the_sdk()
    with AzureMLServer(python=python) as server:
        project = make_workspace_project(server, tmp_path / "a project", python)
        yield Workspace(server, project)
        project.clean_up()
        # A build goes on though nobody waits for it.
        states = server.state.operations.values()
        until(lambda: all(one["state"] in ("Succeeded", "Failed") for one in states), "the end of every build")
        _remove_images(server.url.removeprefix("http://"), project)
        assert server.unknown == []


def _remove_images(host: str, project: Project) -> None:
    """By id, so that the tag that is run does not go on holding them; what they build on is kept for the next test."""
    names = images(f"{host}/*")
    with contextlib.suppress(OSError, KeyError, ValueError):
        names.append(json.loads((project.state / "package.json").read_text())["name"])
    for name in names:
        with contextlib.suppress(subprocess.CalledProcessError):
            found = str(inspected(name)["Id"])
            subprocess.run(["docker", "rmi", "-f", found], capture_output=True)
    for name in images(f"{host}/*/*"):
        subprocess.run(["docker", "rmi", name], capture_output=True)


def images(pattern: str) -> list[str]:
    listed = subprocess.run(
        ["docker", "images", "--filter", f"reference={pattern}", "--format", "{{.Repository}}:{{.Tag}}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [line for line in listed.split() if "<none>" not in line]


def inspected(name: str) -> dict[str, object]:
    found: list[dict[str, object]] = json.loads(
        subprocess.run(["docker", "image", "inspect", name], capture_output=True, text=True, check=True).stdout
    )
    return found[0]


# It works


@pytest.mark.docker
def test_a_packaged_model_is_built_pulled_tagged_run_and_stopped_in(workspace: Workspace, docker_engine: None) -> None:
    project, host = workspace.project, workspace.server.url.removeprefix("http://")
    workspace.register("houses", times=2)
    done = project.ok("deploy.debug", *PACKAGE, "houses", "--json")
    result = done.json
    assert re.fullmatch(re.escape(host) + r"/package@sha256:[0-9a-f]{64}", result["package"]), result
    assert result["package"] in done.err, "the full path is shown"
    assert "build: " in done.err and "Pushing" in done.err and re.search(r"pulling .*/package:", done.err)
    assert inspected(project.environ["AML_IMAGE_TAG"])["Id"] == inspected(result["package"])["Id"]
    assert post(result["scoring_url"]) == {"length": 10, "text": "1 2 3"}
    (mapping,) = result["path_mappings"]
    assert mapping["remoteRoot"] == "/var/azureml-app/service"
    with attach(project, result, SCORE_LINE) as client:
        posting = Posting(result["scoring_url"])
        frame = stop_of(client)
        assert (frame["line"], frame["source"]["path"]) == (SCORE_LINE, str(project.score))
        assert value_of(client, frame, "__import__('os').environ['AZUREML_MODEL_DIR']").endswith("/houses/2'")
        client.request("continue", {"threadId": frame["thread"]}, 20)
        assert posting.finish() == {"length": 10, "text": "1 2 3"}
        client.disconnect()

    # The rest of the chain is the usual one, and nothing is packaged a second time.
    packaged = _packaged(workspace)
    project.write_score(SCORE.replace("len(text)", "len(text) + 1"))
    project.ok("deploy.reload")
    assert post(result["scoring_url"])["length"] == 12
    again = project.ok("deploy.build", *PACKAGE, "houses:2")
    assert "(reused)" in again.out and _packaged(workspace) == packaged
    project.ok("deploy.tag", "--source", "azureml")
    project.inv("deploy.tag", *PACKAGE, "other").says("is of houses:2, not of other", "deploy.build")
    assert "hushhush" not in done.err and "registry-password" not in done.err + done.out


def _packaged(workspace: Workspace) -> int:
    return sum(one.method == "POST" and one.path.endswith("/packages") for one in workspace.server.requests)


@pytest.mark.docker
def test_a_build_context_is_saved_and_built_here(workspace: Workspace, docker_engine: None) -> None:
    project = workspace.project
    workspace.register("houses", "4 5")
    result = project.debug(*PACKAGE, "houses", "--generate-dockerfile")
    context = project.folder / ".azureml-debug" / "packages" / "houses-1"
    assert (context / "Dockerfile").is_file() and (context / "azureml-app" / "service" / "score.py").is_file()
    assert result["package"].startswith("azureml-debug/package:")
    labels = inspected(result["package"])["Config"]["Labels"]  # type: ignore[index]
    assert (labels["azureml-debug.kind"], labels["azureml-debug.environment"]) == ("package", "")
    assert project.ok("deploy.inspect", f"score.py:{SCORE_LINE}", "--eval", "text", "--json").json["values"] == {
        "text": "'4 5'"
    }


@pytest.mark.docker
def test_an_image_that_builds_on_one_of_ours_is_not_taken_for_it(tmp_path: Path, docker_engine: None) -> None:
    (tmp_path / "requirements.txt").write_text("")
    definition = load_definition(tmp_path, default_dockerfile=ROOT / "env" / "training" / "Dockerfile")
    engine, derived = DockerEngine(), "127.0.0.1:9/derived:1"
    built = engine.build(definition, None, print)
    own = inspected(built.name)["Id"]
    try:
        subprocess.run(["docker", "build", "-q", "-t", derived, "-"], input=f"FROM {built.name}\nRUN true\n", text=True,
                       check=True, capture_output=True)  # fmt: skip
        # As a packaged model's is: it has come from a registry, and inherits the labels.
        assert inspected(derived)["Config"]["Labels"]["azureml-debug.digest"] == built.digest  # type: ignore[index]
        assert engine.find(definition, None) is not None and inspected(built.name)["Id"] == own
        subprocess.run(["docker", "rmi", built.name], check=True, capture_output=True)
        assert engine.find(definition, None) is None
    finally:
        for name in (derived, built.name):
            subprocess.run(["docker", "rmi", name], capture_output=True)


@pytest.mark.docker
def test_passing_faults_are_waited_out_and_told(workspace: Workspace, docker_engine: None) -> None:
    project, faults = workspace.project, workspace.server.faults
    workspace.register("houses")
    workspace.server.behaviour.package_fails = "seen through"
    faults.throttle("GET .*/workspaces/workspace$", retry_after=1, times=2)
    faults.fail("GET .*/models", 500, times=2)
    faults.drop("GET .*/operations/", times=2)
    faults.fail("GET .*build.log", 503, times=1)
    result = project.inv("deploy.build", *PACKAGE, "houses")
    result.says("Azure ML could not build the image (Failed): seen through.", "definition")
    for told in ("fewer requests (429); again in 1.", "error of its own (500)", "connection to Azure ML failed"):
        assert told in result.out, result.out
    assert "error of its own (503)" in result.out


# It does not


@pytest.mark.docker
def test_a_failed_build_shows_the_end_of_its_log_and_leaves_nothing(workspace: Workspace, docker_engine: None) -> None:
    workspace.register("houses")
    workspace.server.behaviour.package_fails = "no space left on the builder"
    result = workspace.project.inv("deploy.debug", *PACKAGE, "houses")
    result.says("Azure ML could not build the image (Failed): no space left on the builder.", "then run this again")
    assert "ERROR: no space left on the builder" in result.err
    assert not (workspace.project.state / "package.json").exists()
    assert not images(workspace.server.url.removeprefix("http://") + "/*")
    workspace.project.inv("deploy.tag", "--source", "azureml").says("No package has been built.", "deploy.build")


@pytest.mark.docker
def test_ctrl_c_during_the_build_leaves_nothing_half_made_here(workspace: Workspace, docker_engine: None) -> None:
    project = workspace.project
    workspace.register("houses")
    child = project.start("deploy.debug", *PACKAGE, "houses", "--generate-dockerfile")
    until(lambda: any("/operations/" in one.path for one in workspace.server.requests), "the build")
    child.send_signal(signal.SIGINT)
    result = project.finish(child, 60)
    result.says("Interrupted in build.", code=130)
    assert "Azure ML may go on with the build" in result.out
    assert not list((project.folder / ".azureml-debug" / "packages").iterdir())
    assert not (project.state / "package.json").exists() and not (project.state / "session.json").exists()


@pytest.mark.docker
def test_a_model_that_does_not_exist_names_those_that_do(workspace: Workspace, docker_engine: None) -> None:
    project = workspace.project
    project.inv("deploy.build", *PACKAGE, "house").says("There is no model house", "It has no models")
    workspace.register("houses", times=2)
    project.inv("deploy.build", *PACKAGE, "house").says("There is no model house in the workspace", "houses")
    project.inv("deploy.build", *PACKAGE, "houses:7").says("There is no model houses:7", "Its versions: 2, 1.")


def test_flags_that_cannot_be_read(workspace: Workspace) -> None:
    for arguments in (
        ("--source", "azure", "--model", "houses"),
        ("--source", "azureml"),
        ("--model", "houses"),
        (*PACKAGE, "houses:new"),
    ):
        result = workspace.project.inv("deploy.build", *arguments)
        assert result.code == 2 and len(result.err.strip().splitlines()) == 2, result


def test_without_an_engine_for_images(workspace: Workspace) -> None:
    workspace.project.inv("deploy.build", *PACKAGE, "houses", AML_ENGINE="process").says(
        "needs a Docker engine", "AML_ENGINE"
    )


FAULTS = {
    "expired": ({}, "does not accept the sign-in", "az login"),
    "wrong workspace": ({"AML_WORKSPACE": "nope"}, "There is no Azure ML workspace nope", "Correct AML_WORKSPACE"),
    "wrong subscription": ({"AML_SUBSCRIPTION_ID": "9" * 8}, "no access to the subscription 99999999", "Correct"),
    "nobody there": ({"AML_AUTH": "interactive"}, "You are not signed in to Azure", "az login"),
    "no secret": ({"AML_AUTH": "service-principal"}, "needs AZURE_TENANT_ID", ".env"),
    "no identity": ({"AML_AUTH": "managed-identity"}, "Signing in to Azure failed", "AML_AUTH"),
    "no module": ({"AML_AUTH": "nowhere:sign_in"}, "AML_AUTH=nowhere:sign_in failed", "MODULE:FACTORY"),
    "no authentication": ({"AML_AUTH": "builtins:dict"}, "not an authentication", "MODULE:FACTORY"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_connection_that_cannot_be_made(tmp_path: Path, fault: str) -> None:
    variables, wrong, todo = FAULTS[fault]
    python = python_with_the_sdk()
    with AzureMLServer(python=python) as server:
        seconds = -60 if fault == "expired" else 3600
        project = make_workspace_project(server, tmp_path / "a project", python, seconds)
        result = project.inv("azureml.check", "--json", **variables)
        failed = [one for one in result.json["findings"] if one["ok"] is False]
        assert result.code == 1 and not result.json["ok"] and "Traceback" not in result.err
        assert wrong in failed[-1]["text"] and todo in failed[-1]["remedy"], failed
        project.clean_up()


def test_a_secret_is_never_shown(tmp_path: Path) -> None:
    python = python_with_the_sdk()
    with AzureMLServer(python=python) as server:
        project = make_workspace_project(server, tmp_path / "a project", python)
        (project.folder / ".env").write_text(
            "AML_AUTH=service-principal\nAZURE_TENANT_ID=tenant\nAZURE_CLIENT_ID=client\nAZURE_CLIENT_SECRET=hushhush\n"
        )
        del project.environ["AML_AUTH"]
        result = project.inv("azureml.check", "--json")
        assert result.code == 1 and "sign-in" in result.out
        assert "hushhush" not in result.out + result.err
        project.clean_up()


def test_no_permission_and_no_service(workspace: Workspace) -> None:
    project, server = workspace.project, workspace.server
    fault = server.faults.fail("GET .*/workspaces/workspace$", 403)
    found = project.inv("azureml.check", "--json").json["findings"][-1]
    assert "no permission for reading the workspace" in found["text"] and "Data Scientist" in found["remedy"]
    server.faults.remove(fault)
    with server.down():
        result = project.inv("azureml.check", "--json")
    found = result.json["findings"][-1]
    assert "cannot be reached when reading the workspace" in found["text"] and "HTTPS_PROXY" in found["remedy"]
    assert "again in" in result.err


def test_no_workspace_is_named(workspace: Workspace) -> None:
    (workspace.project.folder / "config.json").unlink()
    found = workspace.project.inv("azureml.check", "--json").json["findings"]
    assert "No Azure ML workspace is named" in found[-1]["text"] and "AML_WORKSPACE" in found[-1]["remedy"]


def test_without_the_extra_the_command_that_installs_it_is_told(tmp_path: Path) -> None:
    if importlib.util.find_spec("azureml") is not None:
        pytest.skip("the extra is installed where the tests run")
    project = make_project(tmp_path / "a project", "process")
    variables = {"AML_SUBSCRIPTION_ID": "a", "AML_RESOURCE_GROUP": "b", "AML_WORKSPACE": "c"}
    found = project.inv("azureml.check", "--json", **variables).json["findings"]
    assert "No SDK of Azure ML is installed" in found[-1]["text"]
    assert re.search(r"pip install .*\[azureml\]", found[-1]["remedy"])
    project.clean_up()


# azureml.check


@pytest.mark.docker
def test_the_check_says_of_each_thing_whether_it_will_work(workspace: Workspace, docker_engine: None) -> None:
    project, server = workspace.project, workspace.server
    network = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/net/subnets/inner"
    server.add_compute("inside", subnet=network)
    server.add_compute("empty", nodes=0)
    result = project.ok("azureml.check", "--json", "--compute-target", "inside")
    found: dict[str, list[dict[str, object]]] = {}
    for one in result.json["findings"]:
        found.setdefault(one["name"], []).append(one)
        assert any(line.startswith(("ok", "warning")) and str(one["text"]) in line for line in result.err.splitlines())
    assert list(found) == [
        "SDK", "settings", "sign-in", "workspace", "permissions", "compute", "registry", "datastore"
    ]  # fmt: skip
    said = {str(one["text"]).split(":")[0]: one for one in found["compute"]}
    assert said["inside"]["ok"] is True and "net/inner" in str(said["inside"]["text"])
    assert said["empty"]["ok"] is None and said["cpu"]["ok"] is None
    assert found["permissions"][0]["ok"] is True and found["registry"][0]["ok"] is True
    assert server.url.removeprefix("http://") in str(found["registry"][0]["text"])

    server.state.actions = ["*/read"]
    result = project.inv("azureml.check", "--json", AML_COMPUTE_TARGET="gpu")
    failed = [one for one in result.json["findings"] if one["ok"] is False]
    assert result.code == 1 and [one["name"] for one in failed] == ["compute"]
    assert "gpu is not a compute target" in failed[0]["text"] and "cpu, empty, inside" in failed[0]["remedy"]
    assert any("not allowed: submitting runs" in str(one["text"]) for one in result.json["findings"])
    text = project.ok("azureml.check").out
    assert re.search(r"^warning  permissions  not allowed: .*\n {22}Ask the workspace's owner", text, re.MULTILINE)


# Whoever does without Azure ML


@pytest.mark.parametrize("python_with", ["neither SDK", "SDK v2"])
def test_no_task_that_works_on_this_machine_imports_anything_of_either_sdk(tmp_path: Path, python_with: str) -> None:
    python = python_with_sdk_v2() if python_with == "SDK v2" else sys.executable
    place, seen = watch_imports(tmp_path, python)
    variables = {"PYTHONPATH": os.pathsep.join([place, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)}
    project = make_project(tmp_path / "service", "process")
    pipeline = make_pipeline_project(tmp_path / "pipeline", "process")
    project.python = pipeline.python = python
    # What the program imports as a whole is seen when the process begins of which all commands are forks.
    watched = Ready(python, ROOT, deciding({**os.environ, **variables}, str(ROOT)))
    project.source = pipeline.source = watched
    try:
        project.environ |= variables
        project.ok("--list")
        project.debug()
        (project.folder / "sample.json").write_text('{"data": [1, 2, 3]}')
        project.ok("deploy.inspect", f"score.py:{PLAIN_LINE}", "--request", "sample.json")
        for task in ("deploy.build", "deploy.tag", "deploy.reload", "container.logs", "container.list", "deploy.stop"):
            project.ok(task)
        project.ok("experiment.list")
        project.ok("remote.tunnels")
        pipeline.environ |= variables
        pipeline.ok("pipeline.debug")
        for task in ("pipeline.status", "pipeline.list", "pipeline.attach", "pipeline.cancel"):
            pipeline.ok(task)
    finally:
        project.clean_up()
        pipeline.clean_up()
        watched.close()
    assert not seen.exists(), seen.read_text()
