"""This process's rank in a distributed job, and its node, from the variables that launchers set.

Every Python process of a step imports this when it starts, so rarely needed modules are imported in functions.
"""

from __future__ import annotations

# As good as typing.TYPE_CHECKING, without importing that.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

#: Variables with the rank, in this order: of an engine of ours, torch, Open MPI, MPICH, PMIx and Slurm. TensorFlow's
#: (:func:`_tensorflow_tasks`) and those of launchers that start processes on one machine only come last.
RANKS = (
    "AZUREML_DEBUGGEE_RANK",
    "RANK",
    "OMPI_COMM_WORLD_RANK",
    "PMI_RANK",
    "PMIX_RANK",
    "SLURM_PROCID",
)
LOCAL_RANKS = ("LOCAL_RANK",)
#: Variables with the number of ranks.
WORLDS = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_NTASKS")
LOCAL_WORLDS = ("LOCAL_WORLD_SIZE",)
#: Variables with a node's number, of torch and Slurm. OMPI_COMM_WORLD_NODE_RANK counts the processes of one node.
NODES = ("NODE_RANK", "GROUP_RANK", "SLURM_NODEID")
#: Kinds of TensorFlow's tasks, in the order in which their ranks are counted.
_TASKS = ("chief", "master", "worker", "ps", "evaluator")


def rank_of(environment: Mapping[str, str]) -> Optional[int]:
    """This process's rank among those that a launcher has started."""
    rank = _first_number(environment, RANKS)
    if rank is None:
        tasks = _tensorflow_tasks(environment)
        rank = tasks[0] if tasks is not None else None
    return rank if rank is not None else _first_number(environment, LOCAL_RANKS)


def world_of(environment: Mapping[str, str]) -> Optional[int]:
    """How many ranks there are; None if no launcher sets it."""
    world = _first_number(environment, WORLDS)
    if world is None:
        tasks = _tensorflow_tasks(environment)
        world = len(tasks[1]) if tasks is not None else None
    return world if world is not None else _first_number(environment, LOCAL_WORLDS)


def node_of(environment: Mapping[str, str]) -> Optional[int]:
    """The number of this process's node, from 0; None if no launcher sets it."""
    node = _first_number(environment, NODES)
    if node is not None:
        return node
    rank, local = (_first_number(environment, ["OMPI_COMM_WORLD_" + name]) for name in ("RANK", "LOCAL_SIZE"))
    if rank is not None and local:
        return rank // local
    tasks = _tensorflow_tasks(environment)
    if tasks is None or tasks[0] >= len(tasks[1]):
        return None
    hosts = [address.rpartition(":")[0] for address in tasks[1]]
    return list(dict.fromkeys(hosts)).index(hosts[tasks[0]])


def _first_number(environment: Mapping[str, str], names: Sequence[str]) -> Optional[int]:
    for name in names:
        try:
            return int(environment[name])
        except (KeyError, ValueError):
            continue
    return None


def _tensorflow_tasks(environment: Mapping[str, str]) -> Optional[Tuple[int, List[str]]]:
    """The rank in TF_CONFIG, and the address of every task by rank; None if it has none."""
    text = environment.get("TF_CONFIG")
    if not text:
        return None
    import json

    try:
        config: Dict[str, Any] = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        before: List[str] = []
        rank = None
        for kind in _TASKS:
            if kind == task["type"]:
                rank = len(before) + int(task["index"])
            before += [str(address) for address in cluster.get(kind) or []]
    except (ValueError, KeyError, TypeError, AttributeError):
        # An invalid value is for the user's own program to report.
        return None
    return (rank, before) if rank is not None and rank >= 0 else None
