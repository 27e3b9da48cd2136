"""The dry run of a pipeline: each step's command, environment and inputs, and what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import engines
from ..backends.base import DryJob, DryJobStep
from ..console import Console
from ..engines.base import Engine
from ..environments.references import ResolvedEnvironment
from ..environments.step_environments import resolve_step_environments
from ..errors import UserError
from ..paths import shown
from ..pipelines.command_preview import MISSING, shown_command, shown_input
from ..pipelines.definition import EnvironmentReference, Input, Pipeline, Step
from ..pipelines.problems import combine_errors, split_errors
from ..redaction import scrub
from ..settings import Settings


@dataclass(frozen=True)
class DryStep:
    """One step as it would run.

    Attributes:
        step: The step.
        command: The command, with everything filled in that is known before a run.
        environment: What it runs in.
        state: The state of that: ``there``, ``to be built``, ``to be pulled``, or empty if it is not known here.
        inputs: The value of each input and the place that gives it, by name.
    """

    step: Step
    command: str
    environment: str
    state: str
    inputs: Mapping[str, tuple[str, str]]

    def as_json(self) -> dict[str, Any]:
        """The object that ``--json`` shows."""
        return {
            "step": self.step.name,
            "kind": self.step.kind,
            "command": self.command,
            "code": str(self.step.code) if self.step.code else None,
            "environment": self.environment,
            "environment_state": self.state,
            "inputs": {name: {"value": text, "from": source} for name, (text, source) in self.inputs.items()},
            "outputs": dict(self.step.outputs),
            "after": list(self.step.after),
            "processes": self.step.ranks,
        }


def look(settings: Settings, console: Console, pipeline: Pipeline, error: UserError | None) -> UserError | None:
    """Show what a pipeline would do.

    Args:
        settings: The settings.
        console: Where it is shown.
        pipeline: The pipeline, as far as it could be read.
        error: What is wrong with it.

    Returns:
        Everything that keeps it from running; None if nothing does.
    """
    local = settings.backend == "local"
    chosen, word = engines.choose(settings.engine) if local else (None, "")
    if word:
        console.line(f"Engine: {word}.")
    errors, notes, steps = list(split_errors(error)), dict.fromkeys(pipeline.notes), []
    resolved: Mapping[str, ResolvedEnvironment] = {}
    if chosen is not None:
        resolved, wrong = resolve_step_environments(pipeline.steps, settings, chosen)
        errors += wrong
    # This also sorts them by their places in the files.
    error = combine_errors(errors, pipeline.files) if errors else None
    for step in pipeline.steps:
        environment, state = _named(step.environment), ""
        if chosen is not None and step.name in resolved:
            environment, state = _environment(step, resolved[step.name], chosen)
            notes |= dict.fromkeys(resolved[step.name].notes)
        steps.append(
            DryStep(step, shown_command(step), environment, state, {n: _input(one) for n, one in step.inputs.items()})
        )
    for one in steps:
        _show(console, one)
    for left in pipeline.skipped:
        console.line(f"{left.name}  left out")
    left_out = [{"step": one.name, "reason": one.reason} for one in pipeline.skipped]
    _result(console, pipeline.file, [one.as_json() for one in steps], left_out, list(notes), error)
    return error


def show_job(console: Console, job: DryJob) -> UserError | None:
    """Show what would be submitted to a workspace.

    Args:
        console: Where it is shown.
        job: What would be submitted.

    Returns:
        Everything that keeps it from being submitted; None if nothing does.
    """
    error = combine_errors(job.errors, [job.file]) if job.errors else None
    for one in job.steps:
        _show_submitted(console, one)
    _result(console, job.file, [_submitted(one) for one in job.steps], [], list(job.notes), error)
    return error


def _submitted(one: DryJobStep) -> dict[str, Any]:
    step = one.step
    return {
        "step": step.name,
        "kind": step.kind,
        "command": step.command,
        "code": str(step.code) if step.code else None,
        "environment": one.environment,
        "inputs": dict(one.inputs),
        "processes": step.ranks,
        "compute": one.compute or None,
        "debugged": {"ranks": list(one.ranks), "way": one.way} if one.ranks else None,
        "not_debugged": one.without or None,
    }


def _show_submitted(console: Console, one: DryJobStep) -> None:
    step = one.step
    rows = []
    if step.command:
        rows.append(("command", scrub(step.command.strip())))
        rows.append(("code", str(shown(step.code)) if step.code else "none"))
        rows.append(("environment", one.environment))
    rows.append(("compute", one.compute or "the workspace's choice"))
    rows += [(f"input {name}", scrub(text)) for name, text in one.inputs.items()]
    ranks = f"rank{'s' if len(one.ranks) > 1 else ''} {', '.join(map(str, one.ranks))}, " if step.ranks > 1 else ""
    rows.append(("debugger", f"{ranks}{one.way}" if one.ranks else f"none: {one.without}"))
    _print(console, step, rows)


def _result(
    console: Console,
    file: Path,
    steps: list[dict[str, Any]],
    left_out: list[dict[str, str]],
    notes: list[str],
    error: UserError | None,
) -> None:
    for note in notes:
        console.line(f"  note: {note}")
    missing = [
        {"problem": one.problem, "remedy": one.remedy, "file": str(one.file) if one.file else None, "line": one.line}
        for one in split_errors(error)
    ]
    console.result({"file": str(file), "steps": steps, "skipped": left_out, "notes": notes, "missing": missing})


def _show(console: Console, one: DryStep) -> None:
    step = one.step
    if step.kind == "best" and step.sweep is not None:
        metric = f"`{step.sweep.metric}`, {step.sweep.goal}" if step.sweep.metric else "the order of the trials"
        rows = [("outputs", f"those of the best trial by {metric}")]
    else:
        rows = [("command", scrub(one.command.strip()))]
        rows.append(("code", str(shown(step.code)) if step.code else "none"))
        rows.append(("environment", f"{one.environment}{f' ({one.state})' if one.state else ''}"))
    for name, (text, source) in one.inputs.items():
        rows.append((f"input {name}", scrub(text) + (f"  ({source})" if source else "")))
    rows += [(f"output {name}", type_) for name, type_ in step.outputs.items()]
    _print(console, step, rows)


def _print(console: Console, step: Step, rows: Sequence[tuple[str, str]]) -> None:
    """Print a step and rows about it."""
    after = f"  after {', '.join(step.after)}" if step.after else ""
    ranks = f"  {step.ranks} processes" if step.ranks > 1 else ""
    console.line(f"{step.name}{after}{ranks}")
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        # A command of several lines keeps its line breaks: joined, it would be another command.
        first, *others = text.splitlines() or [""]
        console.line(f"  {name:<{width}}  {first}")
        for line in others:
            console.line(f"  {'':<{width}}  {line}")


def _input(one: Input) -> tuple[str, str]:
    """An input's value, and the place that gives it."""
    if not one.given:
        return "not given", ""
    source = f"{shown(one.file)}:{one.line}" if one.file is not None else "typed"
    if one.step is not None:
        return f"output `{one.output}` of {one.step}", source
    return shown_input(one), "" if shown_input(one) == MISSING else source


def _named(reference: EnvironmentReference | None) -> str:
    if reference is None:
        return "the default one"
    for place in (reference.conda_file, reference.build):
        if place is not None:
            return str(shown(place))
    return reference.name or reference.image or "a conda file in the pipeline file"


def _environment(step: Step, one: ResolvedEnvironment, engine: Engine) -> tuple[str, str]:
    """What a step runs in, and whether that exists."""
    if one.definition is None:
        return _named(step.environment), ""
    there = engine.find(one.definition, one.base_image)
    return str(shown(one.definition.source)), "there" if there is not None else "to be built"
