"""An experiment whose data lies in a workspace: brought here by the real SDK, over real HTTP, and debugged."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from azureml_projects import OWN, python_with_the_sdk
from azureml_server import AzureMLServer, client_environment, write_configuration
from azureml_server.state import DATASTORE
from experiments import TRAIN_LINE, ExperimentProject, make_experiment_project
from pipelines import go_on, session, stop_of, value_of
from projects import cache_of_its_own, until

from workflows.environments.base_image import BASE_IMAGE

PLACE = "azureml://datastores/workspaceblobstore/paths/sums/2026"
ARGUMENTS = ("--script", "train.py", "--data", f"numbers={PLACE}")
TO_SCRIPT = ("--", "--numbers", "$AZUREML_DATAREFERENCE_numbers")
READS = rf"GET /{DATASTORE}/."


@pytest.fixture
def server() -> Iterator[AzureMLServer]:
    with AzureMLServer(python=python_with_the_sdk()) as made:
        for name, text in {"numbers.txt": "10 20 30\n", "more/a b.txt": "x" * 3000, "../20260.txt": "9"}.items():
            blob(made, f"sums/2026/{name}", text)
        yield made
        assert made.unknown == []


def blob(server: AzureMLServer, name: str, text: str) -> None:
    path = server.state.file(DATASTORE, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def experiment(server: AzureMLServer, tmp_path: Path) -> Iterator[ExperimentProject]:
    made = make_experiment_project(tmp_path / "a project", "process")
    made.python = python_with_the_sdk()
    write_configuration(server, made.folder)
    environ = client_environment(server, tmp_path / "home", {}, sign_in=False)
    made.environ |= {**environ, "AML_AUTH": OWN, "XDG_CACHE_HOME": str(cache_of_its_own(tmp_path))}
    yield made
    made.clean_up()


def reads(server: AzureMLServer) -> list[str]:
    """The files that were asked for, each as often as it was."""
    start = f"/{DATASTORE}/"
    return [seen.path.removeprefix(start) for seen in server.requests if seen.path.startswith(start)]


def kept(tmp_path: Path) -> list[str]:
    """The files that were brought here, below the folder of their place and listing."""
    root = tmp_path / "cache" / "azureml-debug" / "data"
    return sorted("/".join(path.relative_to(root).parts[2:]) for path in root.rglob("*/*") if path.is_file())


def test_data_of_a_datastore_is_brought_here_once_and_seen_by_the_debugged_script(
    experiment: ExperimentProject, server: AzureMLServer, tmp_path: Path
) -> None:
    result = experiment.ok("experiment.debug", "sums", "--json", *ARGUMENTS, *TO_SCRIPT)
    (endpoint,) = result.json["endpoints"]
    assert "data" in result.json["seconds"] and "numbers (3.0 kB, fetched)" in result.err
    with session(endpoint, {experiment.script: [TRAIN_LINE]}) as client:
        frame = stop_of(client)
        assert value_of(client, frame, "numbers") == "[10, 20, 30]"
        go_on(client, frame)
    assert experiment.until_final()["status"] == "Completed"
    assert kept(tmp_path) == ["more/a b.txt", "numbers.txt"]
    assert f"path: {PLACE}" in experiment.configuration().read_text()
    before = len(reads(server))
    assert before == 2
    # Without flags, the run configuration is repeated.
    again = experiment.run("sums")
    assert again["status"] == "Completed" and len(reads(server)) == before
    blob(server, "sums/2026/numbers.txt", "1 1 1 1\n")
    changed = experiment.run("sums")
    assert "total 4 note" in experiment.log(changed["run_id"]) and reads(server)[before:].count("sums/2026/numbers.txt")
    # A file is a file.
    experiment.write("one.py", "import sys\nprint(len(open(sys.argv[1]).read()), 'read')\n")
    data = ("--data", f"one={PLACE}/more/a b.txt", "--", "$AZUREML_DATAREFERENCE_one")
    assert "3000 read" in experiment.log(experiment.run("one", "--script", "one.py", *data)["run_id"])


def test_a_dataset_is_brought_from_where_its_files_lie(
    experiment: ExperimentProject, server: AzureMLServer, tmp_path: Path
) -> None:
    state = server.state
    state.add_dataset("sums", "sums/2026/more/**")
    state.add_dataset("sums", "/sums/2026/*.txt")
    assert experiment.run("sums", "--script", "train.py", "--data", "numbers=azureml:sums", *TO_SCRIPT)
    assert "total 60" in experiment.log() and kept(tmp_path) == ["numbers.txt"]
    experiment.run("sums", "--data", "numbers=azureml:sums:1", "--")
    assert kept(tmp_path) == ["a b.txt", "numbers.txt"]
    # A data asset of v2 names its place in full.
    uri = f"azureml:/{state.scope.replace('resourceGroups', 'resourcegroups')}/datastores/workspaceblobstore/paths/sums"
    state.data_assets["folder", "v3"] = {"dataType": "UriFolder", "dataUri": f"{uri}/2026/"}
    blob(server, "sums/2026/numbers.txt", "4 5")
    experiment.run("sums", "--data", "numbers=azureml:folder:v3", *TO_SCRIPT)
    assert "total 9" in experiment.log()


def test_what_the_workspace_does_not_have_is_told(experiment: ExperimentProject, server: AzureMLServer) -> None:
    state = server.state
    state.datastores["secured"] = "identity"
    state.add_dataset("table", "sums/2026", then="ParseDelimitedBlock")
    state.add_dataset("two", "sums", "more")
    state.data_assets["table", "7"] = {"dataType": "MLTable", "dataUri": "azureml://datastores/x/paths/y"}
    for place, *words in (
        ("azureml://datastores/elsewhere/paths/sums", "There is no datastore elsewhere", "secured, workspaceblobstore"),
        ("azureml://datastores/workspaceblobstore/paths/sums/20", "There is nothing at", "sums/20"),
        ("azureml://datastores/secured/paths/sums", "has no stored key", "az storage blob download-batch"),
        ("azureml:table", "dataset table:1 is more than its files", "ParseDelimitedBlock", f"--data NAME={PLACE}"),
        ("azureml:two:1", "is made of 2 places", "paths/sums"),
        ("azureml:two:9", "There is no dataset two:9", "https://ml.azure.com"),
        ("azureml:none", "There is no dataset none", "azureml:NAME:VERSION"),
        ("azureml:table:7", "The data asset table:7 is of the type MLTable", "azureml://datastores/STORE/paths/PATH"),
        (f"azureml://subscriptions/s/resourcegroups/g/workspaces/w/{PLACE[10:]}", "lies in the workspace w, not in"),
        ("azureml://stores/sums", "is not the name of data in a workspace", "azureml://datastores/STORE/paths/PATH"),
    ):
        failed = experiment.inv("experiment.debug", "sums", "--script", "train.py", "--data", f"numbers={place}")
        assert failed.code == 1, failed.err
        failed.says(*words)
        assert not experiment.configuration().exists() and not list(experiment.runs.glob("*/run.json"))
    (experiment.folder / "config.json").unlink()
    experiment.inv("experiment.debug", "sums", *ARGUMENTS).says("No Azure ML workspace is named", "config.json")


def test_a_registered_environment_is_built_here_as_the_workspace_defines_it(
    experiment: ExperimentProject, server: AzureMLServer, tmp_path: Path
) -> None:
    # Built here, and not by an earlier run of this test.
    (tmp_path / "cache" / "azureml-debug" / "environments").unlink()
    package = tmp_path / "package"
    package.mkdir()
    text = "from setuptools import setup\nsetup(name='ours', version='7', py_modules=['ours'])\n"
    (package / "setup.py").write_text(text)
    (package / "ours.py").write_text("WORD = 'of the workspace'\n")
    experiment.write("ours_too.py", "import ours\nprint(ours.WORD)\n")
    conda = {"name": "ours", "channels": [], "dependencies": ["python", {"pip": [str(package)]}]}
    python = {"interpreterPath": "python", "userManagedDependencies": False, "condaDependencies": conda}
    image = {"baseImage": "an-image", "platform": {"os": "Linux", "architecture": "amd64"}}
    entry = {"name": "ours", "version": "1", "environmentVariables": {}, "docker": image, "python": python}
    server.state.environments["ours"] = [entry]
    experiment.ok("experiment.create", "sums")
    typed = ("experiment.run", "sums", "--follow", "--script", "ours_too.py", "--environment")
    told = experiment.ok(*typed, "azureml:ours").out
    assert "ours, as the workspace has it" in told and "of the workspace" in experiment.log()
    assert "an-image is not used without Docker" in told
    experiment.inv(*typed, "azureml:ours:2").says("The workspace has no environment ours:2", "Correct the name")
    # Without a workspace it is as it was: the training environment, and a note.
    (experiment.folder / "config.json").unlink()
    told = experiment.inv(*typed, "azureml:ours").out
    assert "environment azureml:ours is not on this machine" in told


@pytest.mark.usefixtures("docker_engine")
def test_a_curated_environments_dockerfile_is_built_here(experiment: ExperimentProject, server: AzureMLServer) -> None:
    dockerfile = f"FROM {BASE_IMAGE}\nENV COLOUR=curated\nRUN ln -s $(which python3) /usr/bin/python\n"
    entry = {
        "name": "AzureML-ours",
        "version": "3",
        "environmentVariables": {},
        "docker": {"baseImage": None, "baseDockerfile": dockerfile, "platform": {"os": "Linux"}},
        "python": {"interpreterPath": "python", "userManagedDependencies": True, "condaDependencies": None},
    }
    server.state.environments["AzureML-ours"] = [entry]
    typed = ("--script", "train.py", "--environment", "AzureML-ours", "--on-error")
    experiment.ok("experiment.debug", "sums", *typed, AML_ENGINE="docker")
    assert experiment.until_final()["status"] == "Completed"
    assert experiment.log().splitlines()[-1].endswith("colour curated")


def test_an_experiment_that_names_nothing_of_a_workspace_imports_nothing_of_the_sdk(
    experiment: ExperimentProject, server: AzureMLServer
) -> None:
    experiment.ok("experiment.create", "sums")
    typed = ("experiment.run", "sums", "--script", "train.py", "--data", "numbers=some data")
    told = experiment.ok(*typed, PYTHONPROFILEIMPORTTIME="1")
    assert "workflows.experiments.workspace_data" in told.err
    assert "azureml.core" not in told.err and "msrest" not in told.err and server.requests == []


def test_a_download_that_is_ended_half_way_leaves_nothing(
    experiment: ExperimentProject, server: AzureMLServer, tmp_path: Path
) -> None:
    fault = server.faults.slow(f"{READS}*numbers.txt", 600)
    child = experiment.start("experiment.debug", "sums", *ARGUMENTS, *TO_SCRIPT)
    until(lambda: fault.hit and "more/a b.txt" in kept(tmp_path), "the second file to be asked for")
    child.send_signal(signal.SIGINT)
    experiment.finish(child, 60).says("Interrupted in data", code=130)
    server.faults.remove(fault)
    assert kept(tmp_path) == [] and not experiment.configuration().exists()
    # What passes is tried again: a whole file, or none.
    server.faults.cut(f"{READS}*a%20b.txt", times=1)
    experiment.ok("experiment.create", "sums")
    result = experiment.ok("experiment.run", "sums", "--follow", *ARGUMENTS, *TO_SCRIPT)
    assert "the connection to Azure ML failed" in result.out and "numbers (3.0 kB, fetched)" in result.out
    assert kept(tmp_path) == ["more/a b.txt", "numbers.txt"]
