"""The stories with names of a workspace, by SDK v2: a run has its data, a service its model, both an environment."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from azureml_projects import python_with_sdk_v2
from azureml_server import AzureMLServer, client_environment_v2, write_configuration
from azureml_server.state import DATASTORE
from conftest import make_project, missing
from experiments import TRAIN_LINE, ExperimentProject, make_experiment_project
from pipelines import PipelineProject, go_on, make_pipeline_project, session, stop_of, value_of
from projects import Project, cache_of_its_own, post, until

from workflows.environments.base_image import BASE_IMAGE

STORE = "azureml://datastores/workspaceblobstore/paths"
TO_SCRIPT = ("--", "--numbers", "$AZUREML_DATAREFERENCE_numbers")
#: Reads the model that Azure ML would have put there.
SCORE = """import os


def init():
    global text
    with open(os.path.join(os.environ["AZUREML_MODEL_DIR"], "net", "weights.txt")) as file:
        text = file.read()


def run(raw_data):
    return {"text": text}
"""
PIPELINE = """$schema: https://azuremlschemas.azureedge.net/latest/pipelineJob.schema.json
type: pipeline
jobs:
  sum:
    type: command
    command: python sum.py ${{inputs.numbers}} ${{inputs.net}} ${{inputs.one}}
    code: .
    environment: ENVIRONMENT
    inputs:
      numbers: {type: uri_folder, path: azureml:sums@latest}
      net: {type: custom_model, path: "azureml:net:2"}
      one: {type: uri_file, path: azureml://datastores/workspaceblobstore/paths/sums/2/numbers.txt}
"""
SUM = """import pathlib, sys
numbers, net, one = map(pathlib.Path, sys.argv[1:])
total = sum(map(int, (numbers / "numbers.txt").read_text().split()))
print("total", total, (net / "weights.txt").read_text(), one.name, one.read_text())
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[AzureMLServer]:
    with AzureMLServer(secure=True) as made:
        made.state.open_storage = False
        for version, text in (("1", "10 20 30\n"), ("2", "1 2 3\n")):
            blob(made, f"sums/{version}/numbers.txt", text)
            made.assets.register(
                "", "data", "sums", version, {"dataType": "uri_folder", "dataUri": f"{STORE}/sums/{version}/"}
            )
        blob(made, "models/net/weights.txt", "of the workspace")
        made.assets.register("", "models", "net", "2", {"modelType": "custom_model", "modelUri": f"{STORE}/models/net"})
        yield made
        assert made.unknown == []


def blob(server: AzureMLServer, name: str, text: str) -> None:
    path = server.state.file(DATASTORE, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def reads(server: AzureMLServer) -> list[str]:
    start = f"/{DATASTORE}/"
    return [seen.path.removeprefix(start) for seen in server.requests if seen.path.startswith(start)]


def connect(project: Project, server: AzureMLServer, tmp_path: Path) -> None:
    """Let a project have the server as its workspace."""
    project.python = python_with_sdk_v2()
    write_configuration(server, project.folder)
    project.environ |= client_environment_v2(server, tmp_path / "home")
    project.environ |= {"REGISTRY_DISCOVERY_ENDPOINT_URL": server.url, "AML_SDK": "v2"}
    project.environ |= {"XDG_CACHE_HOME": str(cache_of_its_own(tmp_path))}


@pytest.fixture
def experiment(server: AzureMLServer, tmp_path: Path) -> Iterator[ExperimentProject]:
    made = make_experiment_project(tmp_path / "a project", "process")
    connect(made, server, tmp_path)
    yield made
    made.clean_up()


@pytest.fixture
def pipeline(server: AzureMLServer, tmp_path: Path) -> Iterator[PipelineProject]:
    made = make_pipeline_project(tmp_path / "a project", "process")
    connect(made, server, tmp_path)
    yield made
    made.clean_up()


def environment(image: str = "", conda: str = "", **more: Any) -> dict[str, Any]:
    return {"image": image or None, "condaFile": conda or None, "osType": "Linux", **more}


def own_package(folder: Path, word: str) -> str:
    """A conda file that installs a package of this machine which says a word."""
    folder.mkdir()
    (folder / "setup.py").write_text(
        "from setuptools import setup\nsetup(name='ours', version='7', py_modules=['ours'])\n"
    )
    (folder / "ours.py").write_text(f"WORD = {word!r}\n")
    return f"name: ours\nchannels: []\ndependencies: [python, {{pip: ['{folder}']}}]\n"


def test_a_data_asset_is_brought_here_once_and_seen_by_the_debugged_script(
    experiment: ExperimentProject, server: AzureMLServer
) -> None:
    typed = ("--script", "train.py", "--data", "numbers=azureml:sums:1")
    result = experiment.ok("experiment.debug", "sums", "--json", *typed, *TO_SCRIPT)
    (endpoint,) = result.json["endpoints"]
    assert "numbers (9 bytes, fetched)" in result.err
    with session(endpoint, {experiment.script: [TRAIN_LINE]}) as client:
        frame = stop_of(client)
        assert value_of(client, frame, "numbers") == "[10, 20, 30]"
        go_on(client, frame)
    assert experiment.until_final()["status"] == "Completed"
    assert "path: azureml:sums:1" in experiment.configuration().read_text()
    before = len(reads(server))
    assert experiment.run("sums")["status"] == "Completed" and len(reads(server)) == before == 1
    experiment.run("sums", "--data", "numbers=azureml:sums@latest", *TO_SCRIPT)
    assert "total 6" in experiment.log()


def test_what_the_workspace_does_not_have_or_give_is_told_and_nothing_is_left(
    experiment: ExperimentProject, server: AzureMLServer, tmp_path: Path
) -> None:
    blob(server, "sums/3/numbers.txt", "1 " * 600_000)
    experiment.environ["AML_DOWNLOAD_MB"] = "1"
    large = f"{STORE}/sums/3"
    for place, *words in (
        ("azureml:sum", "There is no data asset sum in the workspace", "There are: sums"),
        ("azureml:sums:7", "There is no data asset sums:7", "Its versions: 2, 1"),
        (large, "numbers has 1.2 MB", "without asking", "Allow it: --download-mb 2, or AML_DOWNLOAD_MB"),
    ):
        failed = experiment.inv("experiment.debug", "sums", "--script", "train.py", "--data", f"numbers={place}")
        assert failed.code == 1, failed.err
        failed.says(*words)
        assert not list(experiment.runs.glob("*/run.json")) and reads(server) == []
    server.faults.fail(rf"GET /{DATASTORE}/", 403)
    experiment.ok("experiment.create", "sums")
    typed = ("experiment.run", "sums", "--script", "train.py", "--data", "numbers=azureml:sums:1")
    failed = experiment.inv(*typed)
    failed.says("You have no permission to read the datastore workspaceblobstore", "Storage Blob Data Reader")
    server.faults.clear()
    allowed = ("--script", "train.py", "--data", f"numbers={large}", "--download-mb", "2", *TO_SCRIPT)
    experiment.run("sums", *allowed)
    assert "total 600000" in experiment.log()
    assert reads(server)[-1] == "sums/3/numbers.txt"


def test_without_the_extra_its_command_is_told(experiment: ExperimentProject, server: AzureMLServer) -> None:
    with contextlib.suppress(metadata.PackageNotFoundError):
        metadata.version("azure-ai-ml")
        missing("azure-ai-ml is installed for the Python of these tests")
    experiment.python = sys.executable
    experiment.ok("experiment.create", "sums")
    failed = experiment.inv("experiment.run", "sums", "--script", "train.py", "--data", "numbers=azureml:sums:1")
    failed.says("azure-ai-ml is not installed", "Install the extra: pip install")
    assert server.requests == []


def test_a_download_that_is_interrupted_goes_on_with_the_next_command(
    experiment: ExperimentProject, server: AzureMLServer, tmp_path: Path
) -> None:
    blob(server, "sums/1/more.txt", "x" * 3000)
    fault = server.faults.slow(rf"GET /{DATASTORE}/sums/1/numbers.txt", 600)
    typed = ("--script", "train.py", "--data", "numbers=azureml:sums:1", *TO_SCRIPT)
    child = experiment.start("experiment.debug", "sums", *typed)
    root = tmp_path / "cache" / "azureml-debug" / "data"
    until(lambda: fault.hit and list(root.rglob("*.part/files/more.txt")), "the second file to be asked for")
    child.send_signal(signal.SIGINT)
    experiment.finish(child, 60).says("Interrupted in data", code=130)
    server.faults.remove(fault)
    experiment.ok("experiment.create", "sums")
    before = len(reads(server))
    result = experiment.ok("experiment.run", "sums", "--follow", *typed)
    assert "numbers (3.0 kB, fetched)" in result.out and reads(server)[before:] == ["sums/1/numbers.txt"]
    assert "total 60" in experiment.log() and not list(root.rglob("*.part"))


def test_an_experiment_that_names_nothing_of_a_workspace_imports_nothing_of_it(
    experiment: ExperimentProject, server: AzureMLServer
) -> None:
    experiment.ok("experiment.create", "sums")
    typed = ("experiment.run", "sums", "--script", "train.py", "--data", "numbers=some data")
    told = experiment.ok(*typed, PYTHONPROFILEIMPORTTIME="1")
    assert "workflows.azureml.v2.assets" not in told.err and "azure.ai" not in told.err and server.requests == []


def test_an_environment_by_its_name_is_built_here(
    experiment: ExperimentProject, server: AzureMLServer, tmp_path: Path
) -> None:
    (tmp_path / "cache" / "azureml-debug" / "environments").unlink()
    conda = own_package(tmp_path / "package", "of the workspace")
    other = own_package(tmp_path / "other", "of the registry")
    server.assets.register("", "environments", "ours", "1", environment("an-image"))
    server.assets.register("", "environments", "ours", "2", environment("an-image", conda))
    server.assets.register("common", "environments", "ours", "5", environment("an-image", other))
    experiment.write("ours_too.py", "import ours\nprint(ours.WORD)\n")
    experiment.ok("experiment.create", "sums")
    typed = ("experiment.run", "sums", "--follow", "--script", "ours_too.py", "--environment")
    for name, where, says in (
        ("azureml:ours@latest", "the workspace", "of the workspace"),
        ("azureml:ours:2", "the workspace", "of the workspace"),
        ("azureml://registries/common/environments/ours/versions/5", "its registry", "of the registry"),
    ):
        told = experiment.ok(*typed, name).out
        assert f"as {where} has it" in told
        assert experiment.log().splitlines()[-1].endswith(says)
        assert "the image an-image is not used without Docker" in told


def test_an_environment_that_is_not_there_is_told_and_who_is_offline_goes_on_without(
    experiment: ExperimentProject, server: AzureMLServer
) -> None:
    server.assets.register("", "environments", "ours", "2", environment("an-image"))
    experiment.ok("experiment.create", "sums")
    typed = ("experiment.run", "sums", "--follow", "--script", "train.py", "--environment")
    experiment.inv(*typed, "azureml:our:1").says("There is no environment our:1 in the workspace", "There are: ours.")
    experiment.inv(*typed, "azureml:ours:3").says("There is no environment ours:3", "Its versions: 2.")
    server.faults.fail("GET /subscriptions", 401)
    told = experiment.ok(*typed, "azureml:ours:2").out
    assert "environment azureml:ours:2 is not on this machine: Azure ML does not accept the sign-in" in told


@pytest.mark.usefixtures("docker_engine")
def test_a_registrys_build_context_is_built_here(experiment: ExperimentProject, server: AzureMLServer) -> None:
    dockerfile = (
        f"FROM {BASE_IMAGE}\nCOPY colour /colour\nENV COLOUR=copied\nRUN ln -s $(which python3) /usr/bin/python\n"
    )
    blob(server, "contexts/7/docker/Dockerfile.cpu", dockerfile)
    blob(server, "contexts/7/colour", "red")
    uri = f"https://storage.blob.localhost:{server.url.rpartition(':')[2]}/{DATASTORE}/contexts/7"
    build = {"contextUri": uri, "dockerfilePath": "docker/Dockerfile.cpu"}
    server.assets.register("common", "environments", "coloured", "1", environment(build=build))
    name = "azureml://registries/common/environments/coloured/labels/latest"
    typed = ("--script", "train.py", "--environment", name, "--on-error")
    experiment.ok("experiment.debug", "sums", *typed, AML_ENGINE="docker")
    assert experiment.until_final()["status"] == "Completed"
    assert experiment.log().splitlines()[-1].endswith("colour copied")


def test_inputs_of_a_pipeline_by_name_are_brought_here(
    pipeline: PipelineProject, server: AzureMLServer, tmp_path: Path
) -> None:
    file = pipeline.folder / "by name.yml"
    file.write_text(PIPELINE.replace("ENVIRONMENT", "azureml:none@latest"))
    (pipeline.folder / "sum.py").write_text(SUM)
    pipeline.inv("pipeline.submit", "--file", str(file)).says("There is no environment none", "by name.yml:8")
    server.assets.register("", "environments", "none", "1", environment(conda=own_package(tmp_path / "package", "x")))
    told = pipeline.ok("pipeline.submit", "--file", str(file), "--no-wait", "--follow").out
    # The first command had brought them before it came to the environment.
    assert "sums:2 (6 bytes, reused)" in told and "net:2 (16 bytes, reused)" in told
    logs = "".join(path.read_text() for path in pipeline.folder.rglob("*_driver_log.txt"))
    assert "total 6 of the workspace numbers.txt 1 2 3" in logs
    shown = pipeline.ok("pipeline.submit", "--file", str(file), "--dry-run").out
    assert "azureml:sums@latest" in shown
    file.write_text(file.read_text().replace("azureml:net:2", "azureml:net:3"))
    pipeline.inv("pipeline.submit", "--file", str(file)).says("There is no model net:3", "Its versions: 2.")
    # With SDK v1, as before.
    pipeline.inv("pipeline.submit", "--file", str(file), "--sdk", "v1").says("is not on this machine", "--input")


@pytest.fixture
def service(server: AzureMLServer, tmp_path: Path) -> Iterator[Project]:
    made = make_project(tmp_path / "a project", "process")
    connect(made, server, tmp_path)
    made.score.write_text(SCORE)
    yield made
    made.clean_up()


def test_a_service_has_the_registered_model_in_its_folder(service: Project, server: AzureMLServer) -> None:
    result = service.ok("deploy.debug", "--model", "azureml:net:2", "--json")
    assert post(result.json["scoring_url"]) == {"text": "of the workspace"}
    before = len(reads(server))
    again = service.ok("deploy.debug", "--model", "azureml:net", "--json")
    assert "net:2 (16 bytes, reused)" in again.err and len(reads(server)) == before
    service.inv("deploy.debug", "--model", "azureml:nets").says("There is no model nets", "There are: net.")
    service.inv("deploy.debug", "--model", "azureml:net:2", "--model-dir", ".").says("both say which model", code=2)
    service.inv("deploy.debug", "--model", "azureml://datastores/a/paths/b").says("is not the name of a model", code=2)
    service.inv("deploy.debug", "--model", "azureml:net", "--sdk", "v1").says("azureml")


def test_a_deployments_file_may_name_a_registered_model_and_environment(
    service: Project, server: AzureMLServer, tmp_path: Path
) -> None:
    file = service.folder / "blue.yml"
    file.write_text(
        "name: blue\nendpoint_name: sums\nmodel: azureml:net@latest\nenvironment: azureml:ours:1\n"
        f"code_configuration: {{code: '{service.score.parent}', scoring_script: {service.score.name}}}\n"
    )
    failed = service.inv("deploy.debug", "--deployment", str(file))
    failed.says("There is no environment ours:1", "blue.yml:4")
    conda = own_package(tmp_path / "package", "x")
    server.assets.register("", "environments", "ours", "1", environment(conda=conda))
    before = len(reads(server))
    shown = service.ok("deploy.debug", "--deployment", str(file), "--dry-run", "--json").json["findings"]
    (model,) = [one for one in shown if one["name"] == "model"]
    assert model["text"].startswith("azureml:net@latest: not looked for here, it would be brought from the workspace")
    assert model["ok"] is None and len(reads(server)) == before
    result = service.ok("deploy.debug", "--deployment", str(file), "--json")
    assert post(result.json["scoring_url"]) == {"text": "of the workspace"}
