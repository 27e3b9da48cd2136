"""Run configurations in azureml-core's format: what is read, what is refused, what a change leaves alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import missing

from workflows.errors import UserError
from workflows.experiments.runconfig import RunConfig, read, write

#: As SDK 1.61 saves one, shortened where nothing differs from a new one.
SAVED = """\
script: train.py
arguments:
- --rate
- 1e-3
- two words
target: local
framework: Python
communicator: None
maxRunDurationSeconds:
nodeCount: 1
priority:
environment:
  name: mine
  version:
  environmentVariables:
    EXAMPLE_ENV_VAR: EXAMPLE_VALUE
  python:
    userManagedDependencies: false
    interpreterPath: python
    condaDependenciesFile: .azureml/conda_dependencies.yml
    baseCondaEnvironment:
  docker:
    enabled: false
    baseImage: mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:20251130.v1
    baseDockerfile:
    buildContext:
    sharedVolumes: true
    shmSize: 2g
    arguments: []
    baseImageRegistry:
      address:
      username:
      password:
      registryIdentity:
    platform:
      os: Linux
      architecture: amd64
  spark:
    repositories: []
    packages: []
    precachePackages: true
  databricks:
    mavenLibraries: []
    pypiLibraries: []
  r:
  inferencingStackVersion:
  assetId:
history:
  outputCollection: true
  snapshotProject: true
  directoriesToWatch:
  - logs
spark:
  configuration:
    spark.app.name: Azure ML Experiment
    spark.yarn.maxAppAttempts: 1
docker:
  useDocker: false
  sharedVolumes: true
  arguments: []
  shmSize: 2g
hdi:
  yarnDeployMode: cluster
tensorflow:
  workerCount: 1
  parameterServerCount: 1
mpi:
  processCountPerNode: 1
  nodeCount: 1
pytorch:
  communicationBackend: nccl
  processCount:
  nodeCount: 1
paralleltask:
  maxRetriesPerWorker: 0
  workerCountPerNode: 1
  terminalExitCodes:
dataReferences: {}
data: {}
datacaches: []
outputData: {}
sourceDirectoryDataStore:
amlcompute:
  vmSize:
  vmPriority:
  retainCluster: false
  name:
  clusterMaxNodeCount:
autoClusterComputeSpecification:
kubernetescompute:
  instanceType:
credentialPassthrough: false
command: ''
environmentVariables:
  MODE: quick
applicationEndpoints: {}
"""
SAVED_CONFIG = RunConfig(
    "train.py",
    ("--rate", "1e-3", "two words"),
    environment="mine",
    conda_file=".azureml/conda_dependencies.yml",
    base_image="mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:20251130.v1",
    variables={"MODE": "quick"},
)

#: As versions from 2018 save one: comments at the beginning of the line, everything docker in the environment.
SAVED_2018 = """\
# The script to run.
script: train.py
# The arguments to the script file.
arguments: []
target: local
framework: Python
communicator: None
# Automatically prepare the run environment as part of the run itself.
autoPrepareEnvironment: true
maxRunDurationSeconds:
nodeCount: 1
# Environment details.
environment:
# Environment variables set for the run.
  environmentVariables:
    EXAMPLE_ENV_VAR: EXAMPLE_VALUE
# Python details
  python:
    userManagedDependencies: false
    interpreterPath: python
# Path to the conda dependencies file to use for this run.
    condaDependenciesFile: aml_config/conda_dependencies.yml
  docker:
    enabled: true
    baseImage: mcr.microsoft.com/azureml/base:0.2.1
    sharedVolumes: true
    gpuSupport: false
    arguments: []
    baseImageRegistry:
      address:
      username:
      password:
  spark:
    repositories:
    - https://mmlspark.azureedge.net/maven
    packages:
    - group: com.microsoft.ml.spark
      artifact: mmlspark_2.11
      version: '0.12'
    precachePackages: true
history:
  outputCollection: true
  snapshotProject: true
mpi:
# When using MPI, number of processes per node.
  processCountPerNode: 1
dataReferences: {}
sourceDirectoryDataStore:
amlcompute:
  vmSize:
  retainCluster: false
  clusterMaxNodeCount: 1
"""
SAVED_2018_CONFIG = RunConfig(
    "train.py",
    conda_file="aml_config/conda_dependencies.yml",
    base_image="mcr.microsoft.com/azureml/base:0.2.1",
    use_docker=True,
)

#: What a person has been at: comments everywhere, an own key, quotes, braces.
EDITED = """\
# Mine.
script: 'train.py'   # the quick one

arguments:  # as in the paper
# rates
- --rate
- 1e-3   # not 1e-2
- '12'

environment:
    # indented by four
    name: mine
    python: {userManagedDependencies: false, condaDependenciesFile: conda.yml}
    docker:
        baseImage: "an/image:1"  # pinned
        # the end of it

myNotes: {who: me}
environmentVariables:
    MODE: quick   # or slow
    # a list of them
    OTHER: x
data:
  # from the other team
  train:
    dataLocation:
      dataset:
        id: 1234
      uri: {path: data/train}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / ".azureml").mkdir()
    return tmp_path / ".azureml" / "mine.runconfig"


def of(path: Path, text: str) -> RunConfig:
    path.write_bytes(text.encode())
    return read(path)


def edit(path: Path, text: str, **fields: Any) -> str:
    """The text after some fields were changed, which are then read as they were given."""
    before = of(path, text)
    wanted = replace(before, **fields)
    assert write(path, wanted) is (wanted != before)
    assert read(path) == wanted and read(path).ignored == before.ignored
    return path.read_bytes().decode()


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
        ("script: {a: b}\n", 1, "`script` has to be a text, not a mapping"),
        (BASE + "arguments: --a\n", 4, "`arguments` has to be a list"),
        (BASE + "arguments:\n- a\n- {b: c}\n", 6, "An entry of `arguments` has to be a text"),
        (BASE + "nodeCount: two\n", 4, "`nodeCount` has to be a number from 1, not `two`"),
        (BASE + "nodeCount: 0\n", 4, "number from 1"),
        (BASE + "mpi: {processCountPerNode: -1}\n", 4, "`mpi.processCountPerNode`"),
        (BASE + "communicator: Nccl\nnodeCount: 2\npytorch:\n  processCount: 3\n", 7, "3 processes cannot be shared"),
        (BASE + "docker:\n  useDocker: no\n", 5, "has to be true or false, not `no`"),
        (BASE + "docker: true\n", 4, "`docker` has to be a mapping"),
        ("script: a\nenvironment: [x]\n", 2, "`environment` has to be a mapping"),
        ("script: a\nenvironment:\n  python: x\n", 3, "`environment.python` has to be a mapping"),
        ("script: a\nenvironment:\n  python:\n    condaDependencies: x\n", 4, "condaDependencies` has to be a mapping"),
        ("script: a\nenvironment:\n  python:\n    condaDependenciesFile: [x]\n", 4, "has to be a text, not a list"),
        ("script: a\nenvironment: missing.yml\n", 2, "There is no environment file"),
        (BASE + "environmentVariables: [A]\n", 4, "has to be a mapping, not a list"),
        (BASE + "environmentVariables:\n  A: [b]\n", 5, "`A` in `environmentVariables` has to be a text"),
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


# Writing

#: Texts that one version of YAML or another takes for something else.
NASTY = (
    *("1e-3", "0o14", "012", "0b1", "1_000", "12:30", "2020-01-01", ".5", ".inf", "-.inf"),
    *("yes", "No", "True", "null", "~", "", " x ", "=", "<<", "-", "--", "- a", "a:", "a: b", "a #b", "#"),
    *("{x}", "[", "'", '"', "\\", "C:\\x", "*a", "&a", "!a", "%", "@", "`", "--a=b,c"),
    *("a\nb", "\t", "\x7f", "\x85", "\u2028", "\ufeff", "é😀"),
)


def full(**fields: Any) -> RunConfig:
    """A run configuration with a value in every field."""
    config = RunConfig(
        "src/train model.py",
        NASTY,
        target="my cluster",
        framework="PyTorch",
        communicator="Nccl",
        node_count=2,
        mpi_processes=3,
        pytorch_processes=4,
        environment="mine",
        environment_version="7",
        user_managed=True,
        conda_file="env/conda.yml",
        base_image="mcr.microsoft.com/azureml/base:1",
        variables={"A": "b", "my_var": "1", "Other": "yes", "é": ""},
        use_docker=True,
        shm_size="8g",
        data={
            "train": "data/train",
            "train_data": "../x y",
            "trainData": "z",
            "_x": "/abs",
            "_": ".",
            "TRAIN": "C:\\a",
            "1": "1",
        },
        output_collection=False,
        snapshot_project=False,
        directories_to_watch=("logs", "1"),
    )
    return replace(config, **fields)


CONDA = {"name": "e", "channels": ["conda-forge"], "dependencies": ["python=3.9", "pip", {"pip": ["-r x.txt", "a>=1"]}]}


@pytest.mark.parametrize(
    "config",
    [
        RunConfig("train.py"),
        RunConfig("train.py", environment="azureml:AzureML-sklearn-1.0@latest"),
        full(),
        full(conda_file="", conda=CONDA, base_image="", base_dockerfile="FROM x\n\n  RUN y\n"),
        full(conda_file="", conda={"dependencies": [], "x": {}}, base_dockerfile=" FROM x\n", base_image=""),
    ],
    ids=["least", "registered", "full", "inline", "odd inline"],
)
def test_what_is_written_is_read_again_and_written_once(path: Path, config: RunConfig) -> None:
    path.parent.rmdir()
    assert write(path, config)
    assert read(path) == config
    text = path.read_text()
    assert text.endswith("\n") and not text.endswith("\n\n") and text.isascii()
    assert not write(path, config)
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_a_new_file_leaves_out_what_is_seldom_set(path: Path) -> None:
    write(path, RunConfig("train.py", ("--a", "1"), environment="mine", conda_file="conda.yml"))
    assert [line for line in path.read_text().splitlines() if not line.startswith("#")] == [
        *("script: train.py", "arguments:", "- --a", "- '1'", "target: local", "framework: Python"),
        *("communicator: None", "nodeCount: 1", "environment:", "  name: mine", "  python:"),
        *("    userManagedDependencies: false", "    condaDependenciesFile: conda.yml", "  docker:", "    baseImage:"),
        *("docker:", "  useDocker: false", "  shmSize: '2g'", "data: {}", "environmentVariables: {}"),
    ]


def test_an_environment_that_is_only_named_stays_a_reference_for_the_sdk(path: Path) -> None:
    write(path, RunConfig("train.py", environment="mine", environment_version="7"))
    assert "\nenvironment:\n  name: mine\n  version: '7'\ndocker:\n" in path.read_text()


def test_data_is_kept_under_keys_that_the_sdk_does_not_change(path: Path) -> None:
    write(path, full())
    data = path.read_text().partition("\ndata:\n")[2].partition("\nenvironmentVariables:")[0]
    assert re.findall(r"^  (\S+):$", data, re.M) == ["train", "trainData", "trainData2", "x", "data", "tRAIN", "'1'"]


@pytest.mark.parametrize("text", [SAVED, SAVED_2018, EDITED, BASE], ids=["saved", "saved 2018", "edited", "least"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_every_field_of_any_file_can_be_changed_and_changed_back(path: Path, text: str, newline: str) -> None:
    text = "\ufeff" + text.replace("\n", newline)
    before = of(path, text)
    wanted = full(data={**before.data, **full().data}, variables={**before.variables, **full().variables})
    assert write(path, wanted) and read(path) == wanted
    raw = path.read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf") and raw.endswith(newline.encode())
    assert raw.count(b"\n") == raw.count(newline.encode())
    # The comments stay, also of a list that is longer now.
    for comment in re.findall(r"#.*", text.replace("\r", "")):
        assert comment in raw.decode() or comment == "# not 1e-2"
    assert write(path, before) and read(path) == before


@pytest.mark.parametrize(
    ("fields", "lines"),
    [
        ({"script": "b.py"}, {2: "script: b.py   # the quick one"}),
        ({"arguments": ("--rate", "1e-2", "12")}, {7: "- '1e-2'   # not 1e-2"}),
        ({"environment": "x y"}, {12: "    name: 'x y'"}),
        ({"base_image": "an/image:2"}, {15: "        baseImage: an/image:2  # pinned"}),
        ({"base_image": ""}, {15: "        baseImage:  # pinned"}),
        ({"variables": {"MODE": "slow", "OTHER": "x"}}, {20: "    MODE: slow   # or slow"}),
        ({"variables": {"OTHER": "x"}}, {20: None}),
        ({"node_count": 2}, {29: "      uri: {path: data/train}\nnodeCount: 2"}),
        ({"variables": {"MODE": "quick", "OTHER": "x", "new_one": "1"}}, {22: "    OTHER: x\n    new_one: '1'"}),
        ({"base_dockerfile": "FROM x\nRUN y\n"}, {
            15: '        baseImage: "an/image:1"  # pinned\n'
            + "        baseDockerfile: |\n          FROM x\n          RUN y"
        }),
        ({"variables": {"MODE": "quick", "OTHER": "x\ny"}}, {22: "    OTHER: |-\n      x\n      y"}),
        ({"arguments": ()}, {4: "arguments: []  # as in the paper", 6: None, 7: None, 8: None}),
        ({"arguments": ("a",)}, {6: "- a", 7: None, 8: None}),
        ({"conda_file": "x.yml"}, {13: "    python: {userManagedDependencies: false, condaDependenciesFile: x.yml}"}),
        ({"conda_file": ""}, {13: "    python:\n      userManagedDependencies: false\n      condaDependenciesFile:"}),
        ({"data": {"train": "a,b"}}, {29: "      uri: {path: 'a,b'}"}),
        ({}, {}),
    ],
)  # fmt: skip
def test_a_change_touches_only_its_own_lines(path: Path, fields: dict[str, Any], lines: dict[int, str | None]) -> None:
    text = EDITED.replace("        id: 1234\n", "")  # no cloud data in this one
    text = text.replace("      dataset:\n", "")
    before: dict[int, str | None] = dict(enumerate(text.split("\n"), 1))
    before |= {number - 2 if number > 27 and "uri" in str(line) else number: line for number, line in lines.items()}
    assert edit(path, text, **fields) == "\n".join(line for line in before.values() if line is not None)


def test_local_data_goes_beside_what_it_is_in_the_cloud(path: Path) -> None:
    text = (
        BASE
        + "data:\n  train:\n    dataLocation:\n      dataset:\n        id: 12  # registered\n    mechanism: mount\n"
    )
    before = of(path, text)
    assert (before.data, before.ignored) == ({}, ("data.train",))
    assert write(path, replace(before, data={"train": "data/x"}))
    assert read(path).data == {"train": "data/x"} and read(path).ignored == ()
    after = path.read_text()
    assert after == text.replace("# registered\n", "# registered\n      uri:\n        path: data/x\n")


def test_a_text_of_several_lines_takes_in_nothing_of_what_follows(path: Path) -> None:
    assert edit(path, BASE + "environmentVariables:\n  A: b\n    # deeper\n", variables={"A": "x\ny"}) == (
        BASE + 'environmentVariables:\n  A: "x\\ny"\n    # deeper\n'
    )
    text = BASE + "  docker:\n    baseImage:"
    assert edit(path, text, base_dockerfile="FROM x\nRUN y\n") == (
        text + "\n    baseDockerfile: |\n      FROM x\n      RUN y\n"
    )


def test_a_twin_of_an_older_version_is_changed_with_it(path: Path) -> None:
    text = BASE + "  docker: {enabled: true, shmSize: 8g}\n"
    assert "enabled: true" not in edit(path, text, use_docker=False)
    assert edit(path, text, shm_size="2g").count("2g") == 2


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("environmentVariables: {A: b, C: d}  # mine\n", "environmentVariables:  # mine\n  A: b\n"),
        ("environmentVariables: {A: b}\n", "environmentVariables: {A: b}\n"),
        ("environmentVariables:\n  # first\n  C: d\n", "environmentVariables:\n  # first\n  A: b\n"),
        ("", "environmentVariables:\n  A: b\n"),
    ],
)
def test_a_variable_is_taken_out_wherever_it_stands(path: Path, text: str, after: str) -> None:
    environment = "  environmentVariables:\n    C: e  # older\n    EXAMPLE_ENV_VAR: EXAMPLE_VALUE\n"
    left = "  environmentVariables:\n    EXAMPLE_ENV_VAR: EXAMPLE_VALUE\n"
    assert edit(path, BASE + environment + text, variables={"A": "b"}) == BASE + left + after


def test_a_file_in_braces_becomes_one_of_lines(path: Path) -> None:
    text = '{"script": "train.py", "arguments": ["1", "2"], "nodeCount": 1, "mine": {"a": [1, null, {}]}}'
    assert edit(path, text, arguments=("1", "3")) == text.replace('"2"', "'3'") + "\n"
    assert edit(path, text, environment="e", arguments=()) == (
        "script: train.py\narguments: []\nnodeCount: 1\nmine:\n  a:\n  - 1\n  - null\n  - {}\nenvironment:\n  name: e\n"
    )


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("x: &n 2\nscript: train.py\nnodeCount: *n\n", {"node_count": 3}),
        ("x: &n 2\nscript: train.py\nnodeCount: *n\n", {"node_count": 2, "target": "there"}),
        ("script: train.py\narguments: &a [x]\nmore: *a\n", {"arguments": ("y", "z")}),
        ("script: train.py\nmore: &d {useDocker: true}\ndocker: *d\n", {"shm_size": "9g"}),
    ],
)
def test_what_cannot_be_changed_without_changing_something_else_is_refused(
    path: Path, text: str, fields: dict[str, Any]
) -> None:
    config = replace(of(path, text), **fields)
    try:
        write(path, config)
    except UserError as error:
        assert error.line is not None and "--edit" in error.remedy
        assert path.read_text() == text
    else:
        assert read(path) == config and path.read_text().startswith(text)


def test_what_is_not_utf8_is_refused_before_anything_is_written(path: Path) -> None:
    for config in (RunConfig("train.py", ("\udc80",)), RunConfig("train.py", data={"\udc80": "x"})):
        with pytest.raises(UserError, match="not UTF-8"):
            write(path, config)
    assert not list(path.parent.iterdir())


def test_a_write_that_fails_leaves_the_file_and_nothing_else(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text(BASE)

    def full_disk(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(UserError, match=r"cannot be written: No space left"):
        write(path, replace(read(path), target="x"))
    assert path.read_text() == BASE
    path.unlink()
    path.parent.rmdir()
    with pytest.raises(UserError, match="cannot be written"):
        write(path, RunConfig("train.py"))
    assert not path.parent.exists()


@pytest.mark.skipif(os.name == "nt", reason="modes and links are POSIX's")
def test_a_link_stays_a_link_and_the_mode_stays(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "kept elsewhere"
    target.write_text(BASE)
    target.chmod(0o640)
    path.symlink_to(target)
    write(path, replace(read(path), target="x"))
    assert path.is_symlink() and target.stat().st_mode & 0o777 == 0o640
    assert read(path).target == "x"


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


@pytest.fixture
def sdk(tmp_path: Path) -> Callable[..., Any]:
    """Run a text with the SDK in a Python that has it."""
    python = os.environ.get("AZUREML_DEBUG_TEST_SDK")
    if not python:
        missing("AZUREML_DEBUG_TEST_SDK names no Python with azureml-core")
    home = tmp_path / "home"
    home.mkdir()

    def run(text: str, path: Path, separate: bool = False) -> Any:
        given = f"project, name, separate = {str(path.parent.parent)!r}, {path.name!r}, {separate}\n"
        # The SDK opens files in the encoding of the machine, which may be any; in most it cannot save our letters.
        utf8 = "1" if text == LOAD and separate else "0"
        environ = {**os.environ, "HOME": str(home), "LC_ALL": "C", "PYTHONUTF8": utf8, "PYTHONCOERCECLOCALE": "0"}
        done = subprocess.run([str(python), "-c", given + text], env=environ, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.strip().splitlines()[-1]) if text == LOAD else None

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
