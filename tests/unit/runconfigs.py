"""Run configurations of the tests, as the SDK and as people write them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

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
