"""The kinds of jobs, and which of them can run on a local machine."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..errors import UserError
from .yaml_file import Value, did_you_mean, refuse

COMMAND, SWEEP, PARALLEL, PIPELINE = "command", "sweep", "parallel", "pipeline"
_SPELLINGS: Mapping[str, str] = {
    "command": COMMAND,
    "command_job": COMMAND,
    "component": COMMAND,
    "command_component": COMMAND,
    "sweep": SWEEP,
    "sweep_job": SWEEP,
    "parallel": PARALLEL,
    "parallel_job": PARALLEL,
    "parallel_component": PARALLEL,
    "pipeline": PIPELINE,
    "pipeline_job": PIPELINE,
    "pipeline_component": PIPELINE,
}
#: Types that only run in Azure, with the remedy.
_ELSEWHERE: Mapping[str, str] = {
    "spark": "Put a command job in its place.",
    "spark_component": "Put a command job in its place.",
    "automl": "Put a command job in its place that trains one model.",
    "automl_component": "Put a command job in its place that trains one model.",
    **dict.fromkeys(
        (
            *("import", "data_transfer", "data_transfer_component", "do_while", "if_else", "parallel_for"),
            *("finetuning", "promptflow_parallel"),
        ),
        "Put a command job in its place, or take it out.",
    ),
}


class NotRunnableHere(UserError):
    """A step that cannot run on this machine. It is left out, and the others run."""


def kind_of_job(job: Value, component: Value | None, what: str) -> str:
    """The kind of a job that can run here.

    Args:
        job: The job.
        component: Its component, or None.
        what: The job in a message.

    Raises:
        NotRunnableHere: It runs in Azure only.
        UserError: It is of a kind that does not exist.
    """
    place, named, whose = job, job.get("type"), what
    kind = _kind_from_keys(job) if named is None else ""
    # The type of a component takes precedence over the type of the job that uses it.
    if component is not None and component.get("type") is not None:
        place, named, whose = component, component.get("type"), f"The component of {what[0].lower()}{what[1:]}"
    elif component is not None and not kind:
        kind = _kind_from_keys(component)
    if named is not None:
        text = named.text(f"The type of {whose[0].lower()}{whose[1:]}")
        type_ = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", text).lower()
        own = _SPELLINGS.get(type_, "")
        if own:
            # The trial of a sweep is a command.
            kind = SWEEP if place is component and _is_sweep(job) else own
        elif type_ in _ELSEWHERE:
            raise _azure_only(named, whose, text, _ELSEWHERE[type_])
        else:
            known = (*dict.fromkeys(_SPELLINGS.values()), *_ELSEWHERE)
            raise refuse(named, f"{whose} is of type `{text}`, which is unknown.", did_you_mean(type_, known))
    return kind or COMMAND


def _kind_from_keys(value: Value) -> str:
    """The kind of a job without ``type``, according to its keys."""
    has = value.data if value.is_mapping else {}
    if "trial" in has:
        return SWEEP
    if "jobs" in has:
        return PIPELINE
    return PARALLEL if "task" in has and "mini_batch_size" in has else ""


def _is_sweep(job: Value) -> bool:
    named = job.get("type")
    return "trial" in job.data or (named is not None and _SPELLINGS.get(str(named.data).lower()) == SWEEP)


def _azure_only(place: Value, what: str, type_: str, remedy: str) -> NotRunnableHere:
    return not_runnable_here(place, f"{what} is of type `{type_}`, which cannot run on this machine.", remedy)


def not_runnable_here(place: Value, problem: str, remedy: str) -> NotRunnableHere:
    """Make the error for a step that cannot run on this machine, at the place of the reason."""
    error = refuse(place, problem, remedy)
    return NotRunnableHere(error.problem, error.remedy, file=error.file, line=error.line)
