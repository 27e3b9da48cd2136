"""Describes what would be submitted, without submitting it and without the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...backends.base import DebugRequest, DryJob, DryJobStep
from ...errors import UserError
from ...paths import shown
from ...pipelines.commands import count_started_ranks
from ...pipelines.definition import Step
from ...pipelines.problems import split_errors
from ...settings import Settings
from ..workspace import find_workspace
from .job_file import OTHER, LoadedJob, component_of
from .selection import binding
from .submission import JobSubmission

_WAYS = {
    "auto": "through the relay of the job's own ssh service, else over the network",
    "relay": "through the relay of the job's own ssh service",
    "network": "over the network",
}


def describe_dry_run(
    file: Path, loaded: LoadedJob | None, error: UserError | None, debug: DebugRequest | None, settings: Settings
) -> DryJob:
    """Describe how a job would be submitted, with all errors that prevent it.

    Args:
        file: The job's file.
        loaded: The job; None where it cannot be read.
        error: The SDK's error for it.
        debug: What is to be debugged.
        settings: The settings.
    """
    errors = list(split_errors(error))
    try:
        find_workspace(settings)
    except UserError as wrong:
        errors.append(wrong)
    if loaded is None:
        return DryJob(file, (), (), tuple(errors))
    notes = list(loaded.notes)
    chosen: tuple[str, ...] = ()
    if debug is not None:
        try:
            submission = JobSubmission(loaded, replace(debug, steps=loaded.asked), settings)
        except UserError as wrong:
            errors.append(wrong)
        else:
            assert submission.debug is not None
            notes, chosen = submission.notes, submission.debug.steps
    steps = []
    for step in loaded.steps:
        node = loaded.nodes.get(step.name)
        if step.name in chosen and step.code is not None and not step.code.exists():
            errors.append(
                UserError(
                    f"The code of step {step.name} does not exist: {shown(step.code)}.",
                    "Correct `code`.",
                    file=shown(step.file),
                )
            )
        steps.append(_step(loaded, step, node, debug if step.name in chosen else None, settings))
    notes.append("compute targets, environments and data by name are looked for when it is submitted")
    return DryJob(file, tuple(steps), tuple(dict.fromkeys(notes)), tuple(errors))


def _step(loaded: LoadedJob, step: Step, node: Any, debug: DebugRequest | None, settings: Settings) -> DryJobStep:
    compute = settings.compute_target or step.compute or _default_compute(loaded)
    if node is None:
        return DryJobStep(step, OTHER, compute, without=f"{loaded.undebugged[step.name]}, and left to Azure")
    holder = component_of(node)
    if debug is None:
        return DryJobStep(step, _environment(holder), compute, without="it just runs", inputs=_ports(node.inputs))
    processes = step.ranks if step.ranks > 1 else count_started_ranks(step.command)
    ranks = tuple(range(processes)) if debug.rank is None else (debug.rank if processes > 1 else 0,)
    return DryJobStep(
        step, _environment(holder), compute, ranks=ranks, way=_WAYS[settings.reach], inputs=_ports(node.inputs)
    )


def _default_compute(loaded: LoadedJob) -> str:
    found = getattr(getattr(loaded.job, "settings", None), "default_compute", None)
    return str(found).removeprefix("azureml:") if isinstance(found, str) else ""


def _environment(holder: Any) -> str:
    """An environment as the file names it."""
    found = getattr(holder, "environment", None)
    if found is None or isinstance(found, str):
        return found or "none"
    named = getattr(found, "name", None)
    if named and named != "CliV2AnonymousEnvironment":
        return str(named)
    return str(getattr(found, "image", None) or "defined in the file")


def _ports(ports: Mapping[str, Any]) -> dict[str, str]:
    """The value or expression that each input is bound to."""
    found = {}
    for name, port in ports.items():
        bound = binding(port)
        path = getattr(bound, "path", None)
        found[name] = "not given" if bound is None else str(path if path is not None else bound)
    return found
