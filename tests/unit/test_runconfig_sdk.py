"""Run configurations: the SDK saves what is read here, and loads what is written here."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import missing
from test_runconfig_written import CONDA, NASTY, full

from workflows.experiments.runconfig import RunConfig, read, write

# The SDK itself

SAVE = """
from azureml.core import Environment
from azureml.core.conda_dependencies import CondaDependencies
from azureml.core.runconfig import Data, DataLocation, DataReferenceConfiguration, Dataset, RunConfiguration, Uri
config = RunConfiguration()
config.script, config.arguments = "src/train.py", ["--rate", "1e-3", "two words", "", "yes", "'\\""]
config.target, config.framework, config.communicator, config.node_count = "cluster", "PyTorch", "Nccl", 2
config.pytorch.process_count, config.pytorch.node_count, config.mpi.process_count_per_node = 8, 2, 3
environment = Environment("my env")
environment.python.conda_dependencies = CondaDependencies.create(conda_packages=["numpy"], python_version="3.9")
environment.docker.base_image = "an/image:1"
config.environment = environment
config.environment_variables = {"A": "b", "my_var": "1"}
config.docker.use_docker, config.docker.shm_size = True, "8g"
config.amlcompute.vm_size = "STANDARD_D2"
config.history.snapshot_project = False
config.data = {
    "cloud": Data(DataLocation(dataset=Dataset(dataset_id="12")), mechanism="mount", environment_variable_name="cloud"),
    "train_data": Data(DataLocation(uri=Uri("data/x")), environment_variable_name="train_data"),
}
config.data_references = {"store": DataReferenceConfiguration("workspaceblobstore", path_on_datastore="x")}
config.save(project, name, separate_environment_yaml=separate)
"""
LOAD = """
import json
from azureml.core.runconfig import RunConfiguration
config = RunConfiguration.load(project, name)
whole = json.loads(repr(config))
environment = config.environment
python, docker = getattr(environment, "python", None), getattr(environment, "docker", None)
conda = python and python.conda_dependencies
print(json.dumps({"whole": whole, "fields": {
    "script": config.script, "arguments": config.arguments, "target": config.target, "framework": config.framework,
    "communicator": config.communicator, "node_count": config.node_count,
    "mpi_processes": config.mpi.process_count_per_node, "pytorch_processes": config.pytorch.process_count,
    "environment": environment.name or "", "environment_version": environment.version or "",
    "user_managed": bool(python and python.user_managed_dependencies),
    "conda_file": python and python._conda_dependencies_file or "",
    "base_image": docker and docker.base_image or "", "base_dockerfile": docker and docker.base_dockerfile or "",
    "variables": config.environment_variables, "use_docker": config.docker.use_docker,
    "shm_size": config.docker.shm_size,
    "data": {item.environment_variable_name: item.data_location.uri.path
             for item in config.data.values() if item.data_location.uri},
    "output_collection": config.history.output_collection, "snapshot_project": config.history.snapshot_project,
    "directories_to_watch": config.history.directories_to_watch,
}, "conda": conda and json.loads(json.dumps(conda._conda_dependencies))}))
if separate:  # last, since it changes what has been loaded
    config.save(project, name)
"""


#: Imports the SDK once, and runs each text that it is handed, with what the text prints as the answer.
ANSWERS = """
import contextlib, io, json, sys, traceback
import azureml.core.runconfig, azureml.core.conda_dependencies
for line in sys.stdin:
    said, failed = io.StringIO(), ""
    try:
        with contextlib.redirect_stdout(said):
            exec(json.loads(line), {"__name__": "__main__"})
    except Exception:
        failed = traceback.format_exc()
    print("=", json.dumps([said.getvalue(), failed]), flush=True)
"""


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[bool], subprocess.Popen[str]]]:
    """A process with the SDK for each encoding: to import it takes longer than what it is asked for."""
    python = os.environ.get("AZUREML_DEBUG_TEST_SDK")
    if not python:
        missing("AZUREML_DEBUG_TEST_SDK names no Python with azureml-core")
    environ = {**os.environ, "HOME": str(tmp_path_factory.mktemp("home")), "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    with contextlib.ExitStack() as running:

        @functools.cache
        def process(utf8: bool) -> subprocess.Popen[str]:
            started = subprocess.Popen(
                [str(python), "-c", ANSWERS],
                env={**environ, "PYTHONUTF8": str(int(utf8))},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            running.enter_context(started)
            running.callback(started.kill)
            return started

        yield process


@pytest.fixture
def sdk(processes: Callable[[bool], subprocess.Popen[str]]) -> Callable[..., Any]:
    """Run a text with the SDK in a Python that has it."""

    def run(text: str, path: Path, separate: bool = False) -> Any:
        given = f"project, name, separate = {str(path.parent.parent)!r}, {path.name!r}, {separate}\n"
        # The SDK opens files in the encoding of the machine, which may be any; in most it cannot save our letters.
        process = processes(text == LOAD and separate)
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(given + text) + "\n")
        process.stdin.flush()
        answer = next(line for line in process.stdout if line.startswith("= "))
        said, failed = json.loads(answer[2:])
        assert not failed, failed
        return json.loads(said.strip().splitlines()[-1]) if text == LOAD else None

    return run


def fields_of(config: RunConfig) -> dict[str, Any]:
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in vars(config).items()
        if name not in ("conda", "ignored", "places")
    }


@pytest.mark.parametrize("separate", [False, True])
def test_what_the_sdk_saves_is_read_and_what_is_changed_in_it_is_all_that_the_sdk_sees_changed(
    sdk: Callable[..., Any], path: Path, separate: bool
) -> None:
    sdk(SAVE, path, separate)
    saved = sdk(LOAD, path)
    config = read(path)
    assert fields_of(config) == saved["fields"]
    assert config.arguments == ("--rate", "1e-3", "two words", "", "yes", "'\"")
    assert config.data == {"train_data": "data/x"} and config.conda_file == ".azureml/conda_dependencies.yml"
    assert sorted(config.ignored) == [
        *("amlcompute.vmSize", "data.cloud", "dataReferences.store", "history.snapshotProject", "target")
    ]
    changed = replace(
        config,
        arguments=(*NASTY, "x"),
        base_image="other:2",
        variables={"A": "é", "new_one": "yes"},
        data={"train_data": "y", "cloud": "local", "NEW": "z"},
    )
    assert write(path, changed)
    loaded = sdk(LOAD, path)
    assert loaded["fields"] == fields_of(changed)
    before, after = saved["whole"], loaded["whole"]
    for whole in (before, after):
        del whole["arguments"], whole["environment"]["docker"]["baseImage"], whole["environmentVariables"]
        for item in whole["data"].values():
            del item["dataLocation"]["uri"]
    assert after["data"].pop("nEW")["environmentVariableName"] == "NEW"
    assert after == before and loaded["conda"] == saved["conda"]


@pytest.mark.parametrize(
    "config",
    [RunConfig("train.py"), RunConfig("train.py", environment="mine"), full(), full(conda_file="", conda=CONDA)],
)
def test_what_is_written_here_is_loaded_by_the_sdk_with_the_same_values(
    sdk: Callable[..., Any], path: Path, config: RunConfig
) -> None:
    folder = path.parent.parent / "env"
    folder.mkdir()
    (folder / "conda.yml").write_text("dependencies: [python=3.9]\n")
    write(path, config)
    loaded = sdk(LOAD, path)
    assert loaded["fields"] == fields_of(config)
    assert not config.conda or loaded["conda"] == config.conda
    if config.conda_file or config.conda:
        # It saves what it has loaded, but loses one odd letter; a conda file's content goes into a file then.
        sdk(LOAD, path, True)
        lossy = tuple(argument.replace("\x85", " ") for argument in config.arguments)
        again = read(path)
        assert again == replace(config, arguments=lossy, conda=None, conda_file=again.conda_file)
        assert fields_of(again) == sdk(LOAD, path, True)["fields"]
