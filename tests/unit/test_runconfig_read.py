"""Run configurations: what is read from a file, and what is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from runconfigs import EDITED, SAVED, SAVED_2018, SAVED_2018_CONFIG, SAVED_CONFIG, of

from workflows.errors import UserError
from workflows.experiments.runconfig import RunConfig, read, write

# Reading


@pytest.mark.parametrize(("text", "config"), [(SAVED, SAVED_CONFIG), (SAVED_2018, SAVED_2018_CONFIG)])
@pytest.mark.parametrize("change", ["as it is", "CRLF", "byte order mark", "no newline at the end"])
def test_files_of_the_sdk_are_read_and_what_it_writes_by_itself_is_not_reported(
    path: Path, text: str, config: RunConfig, change: str
) -> None:
    if change == "CRLF":
        text = text.replace("\n", "\r\n")
    elif change == "byte order mark":
        text = "\ufeff" + text
    elif change == "no newline at the end":
        text = text.rstrip("\n")
    found = of(path, text)
    assert found == config
    assert found.ignored == ()


BASE = "script: train.py\nenvironment:\n  name: mine\n"


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        (BASE, {"environment": "mine"}),
        ("script: a b.py\n", {"script": "a b.py", "environment": ""}),
        (BASE + "arguments: [on, 0x10, 1.10, null, 12:30, true, '', 2020-01-01]\n", {
            "arguments": ("on", "0x10", "1.10", "", "12:30", "true", "", "2020-01-01")
        }),
        (BASE + "arguments:\ndocker:\nmpi:\ndata:\nenvironmentVariables:\nhistory:\n", {}),
        (BASE + "node_count: 2\nNodeCount: 3\n", {"node_count": 3}),
        (BASE + "environment_variables:\n  My_Var: yes\n  other:\n", {"variables": {"My_Var": "yes", "other": ""}}),
        (
            "script: train.py\nenvironment:\n  environmentVariables: {A: '1', B: '1', EXAMPLE_ENV_VAR: EXAMPLE_VALUE}\n"
            "environmentVariables: {B: '2'}\n",
            {"environment": "", "variables": {"A": "1", "B": "2"}},
        ),
        (
            "script: train.py\nenvironment:\n  environmentVariables: {EXAMPLE_ENV_VAR: mine}\n",
            {"environment": "", "variables": {"EXAMPLE_ENV_VAR": "mine"}},
        ),
        (
            BASE + "  version: 12\n  python:\n    condaDependencies:\n      name: e\n      dependencies:\n"
            "      - python=3.9\n      - pip:\n        - my_package\n    baseCondaEnvironment:\n",
            {
                "environment_version": "12",
                "conda": {"name": "e", "dependencies": ["python=3.9", {"pip": ["my_package"]}]},
            },
        ),
        (
            BASE + "  python:\n    condaDependencies: {some_key: 1}\n    condaDependenciesFile:\n",
            {"conda": {"some_key": "1"}},
        ),
        (BASE + "  python: {condaDependenciesFile: a.yml, condaDependencies: {name: x}}\n", {"conda_file": "a.yml"}),
        (BASE + "  python: {user_managed_dependencies: true}\n", {"user_managed": True}),
        (BASE + '  docker:\n    baseImage:\n    baseDockerfile: "FROM x\\nRUN y\\n"\n', {
            "base_dockerfile": "FROM x\nRUN y\n"
        }),
        (BASE + "  docker: {enabled: true, shmSize: 8g}\ndocker: {useDocker: false, shmSize: 2g}\n", {
            "use_docker": True, "shm_size": "8g"
        }),
        (BASE + "docker: {useDocker: True, shmSize: 4g}\n", {"use_docker": True, "shm_size": "4g"}),
        (BASE + "communicator: IntelMpi\nnodeCount: '2'\nmpi: {processCountPerNode: 4, nodeCount: 2}\n", {
            "communicator": "IntelMpi", "node_count": 2, "mpi_processes": 4
        }),
        (BASE + "framework: PyTorch\ncommunicator: nccl\nnodeCount: 2\npytorch: {processCount: 8}\n", {
            "framework": "PyTorch", "communicator": "nccl", "node_count": 2, "pytorch_processes": 8
        }),
        (BASE + "history: {outputCollection: false, snapshotProject: true, directoriesToWatch: []}\n", {
            "output_collection": False, "directories_to_watch": ()
        }),
        (
            BASE + "data:\n  trainData:\n    dataLocation: {dataset: , uri: {path: data/x, isFile: false}}\n"
            "    environmentVariableName: train_data\n  other_one:\n    dataLocation: {uri: {path: '/y'}}\n",
            {"data": {"train_data": "data/x", "other_one": "/y"}},
        ),
        ("x: &e {name: mine}\nscript: train.py\nenvironment: {<<: *e, version: 2}\n", {"environment_version": "2"}),
    ],
)  # fmt: skip
def test_a_field_is_read_however_it_is_written(path: Path, text: str, fields: dict[str, Any]) -> None:
    assert of(path, text) == replace(RunConfig("train.py", environment="mine"), **fields)


@pytest.mark.parametrize(
    ("text", "ignored"),
    [
        ("target: my-cluster\n", ["target"]),
        ("target: Local\nframework: PYTORCH\n", []),
        ("framework: PySpark\ncommunicator: ParameterServer\n", ["framework", "communicator"]),
        ("maxRunDurationSeconds: 60\npriority: 1\n", ["maxRunDurationSeconds", "priority"]),
        ("amlcompute: {vmSize: STANDARD_D2, retainCluster: false}\n", ["amlcompute.vmSize"]),
        ("tensorflow: {workerCount: 4, parameterServerCount: 1}\n", ["tensorflow.workerCount"]),
        ("hdi: {yarnDeployMode: client}\n", ["hdi.yarnDeployMode"]),
        ("spark: {configuration: {spark.app.name: x}}\n", ["spark.configuration.spark.app.name"]),
        ("docker: {arguments: [--gpus], sharedVolumes: false}\n", ["docker.arguments", "docker.sharedVolumes"]),
        ("datacaches: [{datacacheId: x}]\n", ["datacaches"]),
        ("command: python train.py\n", ["command"]),
        ("nodeCount: 2\nmpi: {nodeCount: 3}\npytorch: {nodeCount: 2}\n", ["mpi.nodeCount"]),
        ("history: {directoriesToWatch: [logs, more]}\n", ["history.directoriesToWatch"]),
        ("argumnets: [a]\nother_key: 1\nempty:\n", ["argumnets", "otherKey"]),
        ("data: {a: {dataLocation: {dataset: {id: 1}}}, b: {dataLocation: {uri: {path: 'https://x/y'}}}}\n", [
            "data.a", "data.b"
        ]),
        ("data: {a: {dataLocation: {uri: {path: x}}, pathOnCompute: /y}}\n", ["data.a.pathOnCompute"]),
        ("dataReferences: {a: {dataStoreName: s}, b: {dataStoreName: s}}\ndata: {a: {dataLocation: {uri: {path: x}}}}\n"
         , ["dataReferences.b"]),
        ("", []),
    ],
)  # fmt: skip
def test_what_is_set_and_not_acted_on_is_named(path: Path, text: str, ignored: list[str]) -> None:
    assert sorted(of(path, BASE + text).ignored) == sorted(ignored)


@pytest.mark.parametrize(
    ("text", "ignored"),
    [
        ("  python:\n    interpreterPath: python3\n    baseCondaEnvironment: base\n", [
            "environment.python.interpreterPath", "environment.python.baseCondaEnvironment"
        ]),
        ("  python: {condaDependenciesFile: a.yml, condaDependencies: {name: x}}\n", [
            "environment.python.condaDependencies"
        ]),
        ("  docker:\n    buildContext: {location: x}\n    baseImageRegistry: {password: secret}\n", [
            "environment.docker.buildContext.location", "environment.docker.baseImageRegistry.password"
        ]),
        ("  spark: {packages: [{group: a}]}\n  r: {rVersion: 3}\n", [
            "environment.spark.packages", "environment.r.rVersion"
        ]),
    ],
)  # fmt: skip
def test_what_an_environment_sets_and_is_not_acted_on_is_named(path: Path, text: str, ignored: list[str]) -> None:
    assert list(of(path, BASE + text).ignored) == ignored


def test_fields_have_the_line_that_they_are_written_in(path: Path) -> None:
    places = of(path, EDITED).places
    found = {name: line for name, (file, line) in places.items() if file == path}
    assert found["script"] == 2 and found["conda_file"] == 13
    assert found["base_image"] == 15 and found["data.train"] == 29 and found["variables.MODE"] == 20


def test_the_environment_is_read_and_changed_in_the_file_that_it_is_kept_in(path: Path) -> None:
    file = path.with_name("environment.yml")
    file.write_text("# separate\nname: mine\npython:\n  condaDependenciesFile: conda.yml  # here\n")
    text = "script: train.py\nenvironment: .azureml/environment.yml\n"
    config = of(path, text)
    assert (config.environment, config.conda_file) == ("mine", "conda.yml")
    assert config.places["conda_file"] == (file, 4)
    assert write(path, replace(config, conda_file="other.yml", base_image="x:1"))
    assert path.read_text() == text
    assert file.read_text() == (
        "# separate\nname: mine\npython:\n  condaDependenciesFile: other.yml  # here\ndocker:\n  baseImage: x:1\n"
    )
    assert write(path, replace(read(path), target="there", environment="yours"))
    assert (read(path).target, read(path).environment) == ("there", "yours")


def test_files_from_before_version_1_are_read_and_not_changed(path: Path) -> None:
    text = "ArgumentVector:\n- train.py\n- --x\nTarget: local\nCondaDependenciesFile: a.yml\n" + (
        "EnvironmentVariables: {A: b}\nFramework: PySpark\nSparkDependenciesFile: s.yml\nTrackedRun: true\n"
    )
    config = of(path, text)
    assert config == RunConfig("train.py", ("--x",), framework="PySpark", conda_file="a.yml", variables={"A": "b"})
    assert config.ignored == ("sparkDependenciesFile", "framework")
    assert not write(path, config)
    with pytest.raises(UserError, match="before its version 1"):
        write(path, replace(config, arguments=()))
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("", 1, "empty"),
        ("- script\n", 1, "holds a list"),
        ("script: [\n", 2, "not valid YAML"),
        ("script: train.py\n\tnodeCount: 1\n", 2, "not valid YAML"),
        ("nodeCount: 1\n", 1, "It names no script"),
        ("nodeCount: 1\nscript:\n", 1, "It names no script"),
        ("nodeCount: 1\nscript: '  '\n", 2, "It names no script"),
        ("script:\n# a\ncommand: [ls]\n", 3, "a command, not a script"),
        ("script: {a: b}\n", 1, "`script` must be a string, not a mapping"),
        (BASE + "arguments: --a\n", 4, "`arguments` has to be a list"),
        (BASE + "arguments:\n- a\n- {b: c}\n", 6, "An entry of `arguments` must be a string"),
        (BASE + "nodeCount: two\n", 4, "`nodeCount` has to be a number from 1, not `two`"),
        (BASE + "nodeCount: 0\n", 4, "number from 1"),
        (BASE + "mpi: {processCountPerNode: -1}\n", 4, "`mpi.processCountPerNode`"),
        (BASE + "communicator: Nccl\nnodeCount: 2\npytorch:\n  processCount: 3\n", 7, "3 processes cannot be divided"),
        (BASE + "docker:\n  useDocker: no\n", 5, "has to be true or false, not `no`"),
        (BASE + "docker: true\n", 4, "`docker` has to be a mapping"),
        ("script: a\nenvironment: [x]\n", 2, "`environment` has to be a mapping"),
        ("script: a\nenvironment:\n  python: x\n", 3, "`environment.python` has to be a mapping"),
        ("script: a\nenvironment:\n  python:\n    condaDependencies: x\n", 4, "condaDependencies` has to be a mapping"),
        ("script: a\nenvironment:\n  python:\n    condaDependenciesFile: [x]\n", 4, "must be a string, not a list"),
        ("script: a\nenvironment: missing.yml\n", 2, "There is no environment file"),
        (BASE + "environmentVariables: [A]\n", 4, "has to be a mapping, not a list"),
        (BASE + "environmentVariables:\n  A: [b]\n", 5, "`A` in `environmentVariables` must be a string"),
        (BASE + "data:\n- train\n", 4, "`data` has to be a mapping"),
        (BASE + "data:\n  train: data/x\n", 5, "`data.train` has to be a mapping"),
        (BASE + "data:\n  train:\n    dataLocation: x\n", 6, "`dataLocation` has to be a mapping"),
        (BASE + "dataReferences: [a]\n", 4, "`dataReferences` has to be a mapping"),
        (BASE + "script: b\n", 4, "`script` is there twice"),
        ("a: &a {b: *a}\nscript: x\n", 1, "contains itself"),
    ],
)
def test_a_malformed_file_is_refused_with_its_line_and_never_written_to(
    path: Path, text: str, line: int, problem: str
) -> None:
    for attempt in (lambda: of(path, text), lambda: write(path, RunConfig("train.py"))):
        with pytest.raises(UserError, match=re.escape(problem)) as refused:
            attempt()
        assert (refused.value.file, refused.value.line) == (path, line)
    assert path.read_text() == text


def test_a_missing_file_is_named_with_those_that_there_are(path: Path) -> None:
    path.with_name("other.runconfig").touch()
    with pytest.raises(UserError, match=r"There is no run configuration .*mine\.runconfig") as refused:
        read(path)
    assert "other.runconfig" in refused.value.remedy
    with pytest.raises(UserError, match="is a folder"):
        read(path.parent)
    path.write_bytes(b"script: a\n# \xff\n")
    with pytest.raises(UserError, match="not UTF-8") as refused:
        read(path)
    assert refused.value.line == 2
