"""The fields of a run configuration, independent of the file format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..paths import shown

#: Where the SDK looks for them; in a project that has the second, older one, only there.
FOLDERS = (".azureml", "aml_config")
#: Communicators that start one process for each rank, in lower case, and what starts them.
DISTRIBUTIONS = {"openmpi": "mpi", "intelmpi": "mpi", "nccl": "pytorch", "gloo": "pytorch"}


@dataclass(frozen=True)
class RunConfig:
    """The fields of a run configuration. The defaults are the SDK's.

    Attributes:
        script: The script, relative to the project's folder.
        arguments: Its arguments, each as it is written in the file.
        target: The compute target.
        framework: ``Python``, ``PyTorch``, ``TensorFlow``, ``PySpark``, ``CNTK``.
        communicator: ``None``, ``OpenMpi``, ``IntelMpi``, ``Nccl``, ``Gloo``, ``ParameterServer``.
        node_count: Nodes.
        mpi_processes: With MPI, processes of each node.
        pytorch_processes: With PyTorch, processes of all nodes together; None for one on each node.
        environment: The environment's name.
        environment_version: Its version, where one is named.
        user_managed: Whether nothing is installed: the script runs with the existing Python.
        conda_file: A conda file, relative to the project's folder; it takes precedence over ``conda``.
        conda: A conda file's content, where the run configuration itself contains it.
        base_image: The image that the environment builds on. The SDK always writes one.
        base_dockerfile: The text of a Dockerfile, in place of a base image.
        variables: Environment variables of the run.
        use_docker: Whether the SDK would run it in a container; by default it writes false.
        shm_size: Size of /dev/shm in the container.
        data: Local paths by name, relative to the project's folder, or names of a workspace's data, ``azureml:…``.
        output_collection: Whether logs, metrics and outputs are kept.
        snapshot_project: Whether the project is kept with the run.
        directories_to_watch: Folders whose files are kept while the script writes them.
        ignored: Keys that are set in the file but not supported, such as ``amlcompute.vmSize``; not written.
        places: File and line of the fields that are set, by attribute, ``data.NAME``, ``variables.NAME``; not written.
    """

    script: str
    arguments: tuple[str, ...] = ()
    target: str = "local"
    framework: str = "Python"
    communicator: str = "None"
    node_count: int = 1
    mpi_processes: int = 1
    pytorch_processes: int | None = None
    environment: str = ""
    environment_version: str = ""
    user_managed: bool = False
    conda_file: str = ""
    conda: Mapping[str, Any] | None = None
    base_image: str = ""
    base_dockerfile: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    use_docker: bool = False
    shm_size: str = "2g"
    data: Mapping[str, str] = field(default_factory=dict)
    output_collection: bool = True
    snapshot_project: bool = True
    directories_to_watch: tuple[str, ...] = ("logs",)
    ignored: tuple[str, ...] = field(default=(), compare=False)
    places: Mapping[str, tuple[Path, int]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def only_named(self) -> bool:
        """Whether the file has only the name of a registered or curated environment."""
        defined = self.conda_file or self.conda or self.base_image or self.base_dockerfile
        return not defined and not self.user_managed

    @property
    def distribution(self) -> str:
        """``mpi`` or ``pytorch``; empty for a single process."""
        return DISTRIBUTIONS.get(self.communicator.lower(), "")

    @property
    def processes(self) -> int:
        """Processes of each node."""
        if self.distribution == "mpi":
            return self.mpi_processes
        if self.distribution == "pytorch" and self.pytorch_processes is not None:
            return self.pytorch_processes // self.node_count
        return 1


def error_at(config: RunConfig, field_name: str, problem: str, remedy: str) -> UserError:
    """An error with the file and line at which a run configuration sets a field, where it sets it."""
    file, line = config.places.get(field_name, (None, None))
    return UserError(problem, remedy, file=None if file is None else shown(file), line=line)
