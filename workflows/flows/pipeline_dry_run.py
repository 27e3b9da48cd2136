"""What a pipeline would do, without doing it: each step's command, environment and inputs, and what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .. import engines
from ..console import Console
from ..engines.base import Engine
from ..environments.of_steps import resolve_steps
from ..environments.references import ResolvedEnvironment
from ..errors import UserError
from ..paths import shown
from ..pipelines.definition import EnvironmentReference, Input, Pipeline, Step
from ..pipelines.problems import single, together
from ..pipelines.shown_commands import MISSING, shown_command, shown_input
from ..redaction import scrub
from ..settings import Settings


@dataclass(frozen=True)
class DryStep:
    """One step as it would run.

    Attributes:
        step: The step.
        command: With everything put in that is known before a run.
        environment: What it runs in.
        state: Whether that is there: ``there``, ``to be built``, ``to be pulled``, or empty where nobody here knows.
        inputs: By name: what it is, and where that is said.
    """

    step: Step
    command: str
    environment: str
    state: str
    inputs: Mapping[str, tuple[str, str]]

    def as_json(self) -> dict[str, Any]:
        """Its values under the names that ``--json`` has."""
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
        Everything that keeps it from running; None where nothing does.
    """
    local = settings.backend == "local"
    chosen, word = engines.choose(settings.engine) if local else (None, "")
    if word:
        console.line(f"Engine: {word}.")
    errors, notes, steps = list(single(error)), dict.fromkeys(pipeline.notes), []
    resolved: Mapping[str, ResolvedEnvironment] = {}
    if chosen is not None:
        resolved, wrong = resolve_steps(pipeline.steps, settings, chosen)
        errors += wrong
    # In the order in which they are told.
    error = together(errors, pipeline.files) if errors else None
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
    for note in notes:
        console.line(f"  note: {note}")
    missing = [
        {"problem": one.problem, "remedy": one.remedy, "file": str(one.file) if one.file else None, "line": one.line}
        for one in single(error)
    ]
    console.result(
        {
            "file": str(pipeline.file),
            "steps": [one.as_json() for one in steps],
            "skipped": [{"step": one.name, "reason": one.reason} for one in pipeline.skipped],
            "notes": list(notes),
            "missing": missing,
        }
    )
    return error


def _show(console: Console, one: DryStep) -> None:
    step = one.step
    after = f"  after {', '.join(step.after)}" if step.after else ""
    ranks = f"  {step.ranks} processes" if step.ranks > 1 else ""
    console.line(f"{step.name}{after}{ranks}")
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
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        # A command of several lines keeps them: joined, they would be another command.
        first, *others = text.splitlines() or [""]
        console.line(f"  {name:<{width}}  {first}")
        for line in others:
            console.line(f"  {'':<{width}}  {line}")


def _input(one: Input) -> tuple[str, str]:
    """What an input is, and where that is said."""
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
    """What a step runs in, and whether it is there."""
    if one.definition is None:
        return _named(step.environment), ""
    there = engine.find(one.definition, one.base_image)
    return str(shown(one.definition.source)), "there" if there is not None else "to be built"
