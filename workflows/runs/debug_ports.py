"""The debug ports of a pipeline's steps, and the names of their launch configurations."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..backends.base import DebugRequest
from ..console import Console
from ..engines import reservations
from ..pipelines.commands import count_started_ranks, published_port
from ..pipelines.definition import Pipeline
from . import submission
from .attachable import configuration_name

#: Ports by step and rank.
Allotted = Mapping[str, Mapping[int, int]]


def allot_ports(
    pipeline: Pipeline, debug: DebugRequest | None, wanted: int, console: Console
) -> dict[str, dict[int, int]]:
    """Choose and reserve debug ports by step and rank, each base + rank; steps that are not debugged get none.

    Args:
        pipeline: The pipeline.
        debug: What is to be debugged of it.
        wanted: The port of the setting; 0 for free ones.
        console: Gets a note if other ports are used.

    Raises:
        UserError: Another program holds the wanted port.
    """
    if debug is None:
        return {}
    with reservations.choosing_lock():
        allotted = _choose_ports(pipeline, debug, wanted, console)
        reservations.reserve(all_ports(allotted), handover=True)
    return allotted


def _choose_ports(pipeline: Pipeline, debug: DebugRequest, setting: int, console: Console) -> dict[str, dict[int, int]]:
    taken: set[int] = set()
    allotted: dict[str, dict[int, int]] = {}
    for step in pipeline.steps:
        if step.kind == "best" or (debug.steps and step.name not in debug.steps):
            continue
        processes = step.ranks if step.ranks > 1 else count_started_ranks(step.command)
        ranks = range(processes) if debug.rank is None else [debug.rank if processes > 1 else 0]
        wanted, count = published_port(step.command), max(ranks) + 1
        if taken:
            # Users only rely on the first port. The others may be any free ones.
            base = submission.free_ports(wanted or max(taken) + 1, count, frozenset(taken))[0]
        else:
            base = submission.wanted_base(console, setting if wanted is None else wanted, count)
        allotted[step.name] = {rank: base + rank for rank in ranks}
        taken.update(allotted[step.name].values())
    return allotted


def all_ports(allotted: Allotted) -> list[int]:
    """List every allotted port."""
    return [port for ports in allotted.values() for port in ports.values()]


def configuration_names(
    pipeline: Pipeline, allotted: Allotted, debug: DebugRequest | None
) -> Callable[[str, int], str]:
    """A function that returns the name of the launch configuration for a step and a rank."""
    # More than one port, or another one than the first: the step's command starts the ranks itself.
    ranks = {
        step.name: max([step.ranks, *(rank + 1 for rank in allotted.get(step.name, ()))]) for step in pipeline.steps
    }
    # A step that was chosen in an editor has a configuration of its own, even if nothing else runs.
    many = len(pipeline.steps) > 1 or bool(pipeline.asked)
    several = len(allotted) > 1 or bool(debug and debug.name_steps and many)

    def name(step: str, rank: int) -> str:
        return configuration_name(step if several or ranks[step] > 1 else None, rank if ranks[step] > 1 else None)

    return name


def experiment_configuration_names(ranks: int, ports: Mapping[int, int]) -> Callable[[str, int], str]:
    """A function that returns the name of the launch configuration for an experiment and a rank.

    Args:
        ranks: The number of processes of the run.
        ports: Its debug ports by rank.
    """
    # More than one port, or another one than the first: the script starts the ranks itself.
    most = max([ranks, *(rank + 1 for rank in ports)])
    return lambda name, rank: experiment_configuration_name(name, rank, most)


def experiment_configuration_name(name: str, rank: int, ranks: int) -> str:
    """The name of the launch configuration of one rank of an experiment."""
    base = f"Azure Machine Learning Experiment: {name}"
    return base if ranks == 1 else f"{base} (rank {rank})"
