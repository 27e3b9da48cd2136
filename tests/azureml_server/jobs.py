"""Parses what a client has submitted into what a run executes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .nodes import Node
from .state import Run


@dataclass
class Job:
    """What a run does.

    Attributes:
        run: The run.
        snapshot: Its source folder's snapshot.
        script: The script, relative to it.
        command: A command line in the script's place.
        arguments: Its arguments.
        variables: Its environment variables.
        communicator: `mpi`, `pytorch`, `tensorflow`, or empty.
        nodes: Nodes.
        processes: Processes of each node.
        servers: How many of the processes are TensorFlow's parameter servers: the last ones.
        where: Its nodes; empty where they are this machine.
        folders: Folders that have to be there first.
    """

    run: Run
    snapshot: str | None = None
    script: str = ""
    command: str = ""
    arguments: list[str] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    communicator: str = ""
    nodes: int = 1
    processes: int = 1
    servers: int = 0
    where: list[Node] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)

    @property
    def ranks(self) -> int:
        return self.workers + self.servers if self.communicator == "tensorflow" else self.nodes * self.processes

    @property
    def workers(self) -> int:
        return self.nodes * self.processes

    def node_of(self, rank: int) -> int:
        """The node that a process is on."""
        if rank >= self.workers:
            return (rank - self.workers) % self.nodes
        return rank // self.processes


def read_configuration(job: Job, configuration: Mapping[str, Any]) -> None:
    """Take from a run configuration what is said of environment variables and of the distribution."""
    environment = configuration.get("environment") or {}
    for variables in (environment.get("environmentVariables"), configuration.get("environmentVariables")):
        job.variables.update({name: str(value) for name, value in (variables or {}).items()})
    communicator = str(configuration.get("communicator") or "None").lower()
    framework = str(configuration.get("framework") or "").lower()
    job.nodes = int(configuration.get("nodeCount") or 1)
    if communicator in ("mpi", "openmpi", "intelmpi"):
        job.communicator = "mpi"
        job.processes = int((configuration.get("mpi") or {}).get("processCountPerNode") or 1)
    elif communicator in ("nccl", "gloo") or framework == "pytorch":
        job.communicator = "pytorch"
        total = (configuration.get("pytorch") or {}).get("processCount")
        job.processes = max(1, int(total) // job.nodes) if total else 1
    elif communicator == "parameterserver" or framework == "tensorflow":
        job.communicator = "tensorflow"


def rank_variables(job: Job, rank: int, port: int) -> dict[str, str]:
    """What tells one process of a distributed job from the others."""
    if not job.communicator:
        return {}
    local, node = rank % job.processes, rank // job.processes
    if job.communicator == "tensorflow":
        return {"TF_CONFIG": json.dumps(_cluster(job, rank, port))}
    if job.communicator == "mpi":
        return {
            "OMPI_COMM_WORLD_RANK": str(rank),
            "OMPI_COMM_WORLD_SIZE": str(job.ranks),
            "OMPI_COMM_WORLD_LOCAL_RANK": str(local),
            "OMPI_COMM_WORLD_LOCAL_SIZE": str(job.processes),
            "OMPI_COMM_WORLD_NODE_RANK": str(local),
            "AZ_BATCH_MASTER_NODE": f"127.0.0.1:{port}",
            "AZ_BATCHAI_MPI_MASTER_NODE": "127.0.0.1",
        }
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(job.ranks),
        "LOCAL_RANK": str(local),
        "LOCAL_WORLD_SIZE": str(job.processes),
        "NODE_RANK": str(node),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _cluster(job: Job, rank: int, port: int) -> dict[str, Any]:
    """Every process's address, and which one this is."""
    places = [f"10.0.0.{4 + job.node_of(one)}:{port + one}" for one in range(job.ranks)]
    cluster = {"worker": places[: job.workers], **({"ps": places[job.workers :]} if job.servers else {})}
    kind, index = ("ps", rank - job.workers) if rank >= job.workers else ("worker", rank)
    return {"cluster": cluster, "task": {"type": kind, "index": index}, "environment": "cloud"}
