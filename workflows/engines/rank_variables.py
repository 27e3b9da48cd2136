"""The environment variables by which the processes of a distributed step find each other."""

from __future__ import annotations

import json

from .steps import StepSpec


def rank_variables(spec: StepSpec, rank: int, master_port: int) -> dict[str, str]:
    """The variables that Azure ML's launchers set for one process; none for a step without distribution.

    Args:
        spec: The step.
        rank: The process's rank over all instances, from 0.
        master_port: A free port on which rank 0 may listen.
    """
    if not spec.distribution:
        return {}
    node, local = divmod(rank, spec.processes)
    own = {"AZUREML_DEBUGGEE_RANK": str(rank)}
    if spec.distribution == "tensorflow":
        workers = [f"127.0.0.1:{master_port + number}" for number in range(spec.ranks)]
        return {
            **own,
            "TF_CONFIG": json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": rank}}),
        }
    variables = {**own, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(master_port), "NODE_RANK": str(node)}
    if spec.distribution == "mpi":
        # Open MPI's: https://docs.open-mpi.org/en/main/tuning-apps/environment-var.html
        return {
            **variables,
            "OMPI_COMM_WORLD_RANK": str(rank),
            "OMPI_COMM_WORLD_SIZE": str(spec.ranks),
            "OMPI_COMM_WORLD_LOCAL_RANK": str(local),
            "OMPI_COMM_WORLD_LOCAL_SIZE": str(spec.processes),
        }
    # torch's: https://pytorch.org/docs/stable/elastic/run.html#environment-variables
    return {
        **variables,
        "RANK": str(rank),
        "LOCAL_RANK": str(local),
        "WORLD_SIZE": str(spec.ranks),
        "LOCAL_WORLD_SIZE": str(spec.processes),
    }
