"""Which of a distributed job's processes this is, and on which of its nodes, as launchers say it.

Imported at the start of every Python process of a step: what is not always needed is imported late.
"""

from __future__ import annotations

# As good as typing.TYPE_CHECKING, without importing that.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

#: Where a rank comes from, in this order: an engine's word, torch, Open MPI, MPICH, PMIx, Slurm, TensorFlow
#: (:func:`_tensorflow`), and what launchers say that start processes on one machine only.
RANKS = (
    "AZUREML_DEBUGGEE_RANK",
    "RANK",
    "OMPI_COMM_WORLD_RANK",
    "PMI_RANK",
    "PMIX_RANK",
    "SLURM_PROCID",
)
LOCAL_RANKS = ("LOCAL_RANK",)
#: Where their number comes from.
WORLDS = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_NTASKS")
LOCAL_WORLDS = ("LOCAL_WORLD_SIZE",)
#: A node's number: torch's and Slurm's word. OMPI_COMM_WORLD_NODE_RANK is none: it counts the processes of one node.
NODES = ("NODE_RANK", "GROUP_RANK", "SLURM_NODEID")
#: Kinds of TensorFlow's tasks, in the order in which their ranks are counted.
_TASKS = ("chief", "master", "worker", "ps", "evaluator")


def rank_of(environment: Mapping[str, str]) -> Optional[int]:
    """This process's rank among those that a launcher has started."""
    rank = _first_number(environment, RANKS)
    if rank is None:
        told = _tensorflow(environment)
        rank = told[0] if told is not None else None
    return rank if rank is not None else _first_number(environment, LOCAL_RANKS)


def world_of(environment: Mapping[str, str]) -> Optional[int]:
    """How many ranks there are, as far as a launcher says."""
    world = _first_number(environment, WORLDS)
    if world is None:
        told = _tensorflow(environment)
        world = len(told[1]) if told is not None else None
    return world if world is not None else _first_number(environment, LOCAL_WORLDS)


def node_of(environment: Mapping[str, str]) -> Optional[int]:
    """The node that this process is on, counted from 0; None where no launcher says it."""
    node = _first_number(environment, NODES)
    if node is not None:
        return node
    rank, local = (_first_number(environment, ["OMPI_COMM_WORLD_" + name]) for name in ("RANK", "LOCAL_SIZE"))
    if rank is not None and local:
        return rank // local
    told = _tensorflow(environment)
    if told is None or told[0] >= len(told[1]):
        return None
    hosts = [address.rpartition(":")[0] for address in told[1]]
    return list(dict.fromkeys(hosts)).index(hosts[told[0]])


def _first_number(environment: Mapping[str, str], names: Sequence[str]) -> Optional[int]:
    for name in names:
        try:
            return int(environment[name])
        except (KeyError, ValueError):
            continue
    return None


def _tensorflow(environment: Mapping[str, str]) -> Optional[Tuple[int, List[str]]]:
    """The rank that TF_CONFIG gives, and the address of every task by rank; None where it gives none."""
    text = environment.get("TF_CONFIG")
    if not text:
        return None
    import json

    try:
        told: Dict[str, Any] = json.loads(text)
        cluster, task = told["cluster"], told["task"]
        before: List[str] = []
        rank = None
        for kind in _TASKS:
            if kind == task["type"]:
                rank = len(before) + int(task["index"])
            before += [str(address) for address in cluster.get(kind) or []]
    except (ValueError, KeyError, TypeError, AttributeError):
        # Whatever a person has written there is their own program's matter.
        return None
    return (rank, before) if rank is not None and rank >= 0 else None
