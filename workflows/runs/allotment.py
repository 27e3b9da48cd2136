"""Which debug ports the steps of a pipeline get, and what their launch configurations are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..backends.base import DebugRequest
from ..console import Console
from ..engines import reservations
from ..pipelines.commands import published_port, ranks_made
from ..pipelines.definition import Pipeline
from . import submission
from .attachable import configuration_name

#: Ports by step and rank.
Allotted = Mapping[str, Mapping[int, int]]


def allot(pipeline: Pipeline, debug: DebugRequest | None, wanted: int, console: Console) -> dict[str, dict[int, int]]:
    """Debug ports by step and rank, each base + rank, reserved; none for steps that are not debugged.

    Args:
        pipeline: The pipeline.
        debug: What is to be debugged of it.
        wanted: The setting's port; 0 for free ones.
        console: Where to say that others are used.

    Raises:
        UserError: The wanted one is held by another program.
    """
    if debug is None:
        return {}
    with reservations.choosing():
        allotted = _chosen_ports(pipeline, debug, wanted, console)
        reservations.reserve(all_ports(allotted), handover=True)
    return allotted


def _chosen_ports(pipeline: Pipeline, debug: DebugRequest, setting: int, console: Console) -> dict[str, dict[int, int]]:
    taken: set[int] = set()
    allotted: dict[str, dict[int, int]] = {}
    for step in pipeline.steps:
        if step.kind == "best" or (debug.steps and step.name not in debug.steps):
            continue
        processes = step.ranks if step.ranks > 1 else ranks_made(step.command)
        ranks = range(processes) if debug.rank is None else [debug.rank if processes > 1 else 0]
        wanted, count = published_port(step.command), max(ranks) + 1
        if taken:
            # Only the first port is one that a person counts on; the further ones go where they can.
            base = submission.free_ports(wanted or max(taken) + 1, count, frozenset(taken))[0]
        else:
            base = submission.wanted_base(console, setting if wanted is None else wanted, count)
        allotted[step.name] = {rank: base + rank for rank in ranks}
        taken.update(allotted[step.name].values())
    return allotted


def all_ports(allotted: Allotted) -> list[int]:
    """Every port."""
    return [port for ports in allotted.values() for port in ports.values()]


def configuration_names(
    pipeline: Pipeline, allotted: Allotted, debug: DebugRequest | None
) -> Callable[[str, int], str]:
    """The name of the launch configuration for a step and a rank."""
    # More than one port, or another than the first: the step's command makes the ranks itself.
    ranks = {
        step.name: max([step.ranks, *(rank + 1 for rank in allotted.get(step.name, ()))]) for step in pipeline.steps
    }
    # In an editor a step that was asked for has a configuration of its own, also where nothing else runs.
    many = len(pipeline.steps) > 1 or bool(pipeline.asked)
    several = len(allotted) > 1 or bool(debug and debug.name_steps and many)

    def name(step: str, rank: int) -> str:
        return configuration_name(step if several or ranks[step] > 1 else None, rank if ranks[step] > 1 else None)

    return name


def experiment_names(ranks: int, ports: Mapping[int, int]) -> Callable[[str, int], str]:
    """The name of the launch configuration of one rank of an experiment's run.

    Args:
        ranks: Its processes.
        ports: Its debug ports by rank.
    """
    # More than one port, or another than the first: the script makes the ranks itself.
    most = max([ranks, *(rank + 1 for rank in ports)])
    return lambda name, rank: title(name, rank, most)


def title(name: str, rank: int, ranks: int) -> str:
    """The name of the launch configuration of one rank of an experiment."""
    base = f"Azure Machine Learning Experiment: {name}"
    return base if ranks == 1 else f"{base} (rank {rank})"
