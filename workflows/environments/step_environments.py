"""Resolves the environments of a pipeline's steps, with all errors, before any is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..paths import shown
from .references import ResolvedEnvironment, resolve_environment

if TYPE_CHECKING:
    from ..engines.base import Engine
    from ..pipelines.definition import Step
    from ..settings import Settings

_TABLE = "gets a table, which run() is given as a pandas DataFrame"


def resolve_step_environments(
    steps: Sequence[Step], settings: Settings, engine: Engine
) -> tuple[Mapping[str, ResolvedEnvironment], tuple[UserError, ...]]:
    """The environments of steps by the steps' names, and the errors of those that cannot be resolved.

    Args:
        steps: The steps.
        settings: The settings, with the default environment and the base image.
        engine: The engine that runs the steps.
    """
    found: dict[str, ResolvedEnvironment] = {}
    errors: list[UserError] = []
    for step in steps:
        try:
            found[step.name] = _check_pandas(step, resolve_environment(step.environment, settings, engine.name), engine)
        except UserError as error:
            errors.append(error)
    return found, tuple(errors)


def _check_pandas(step: Step, one: ResolvedEnvironment, engine: Engine) -> ResolvedEnvironment:
    """An environment, with a note where it may lack pandas, which a parallel step with tables needs.

    Raises:
        UserError: It is built already, and has no pandas.
    """
    from ..pipelines.parallel_data import takes_table

    definition = one.definition
    if definition is None or not takes_table(step):
        return one
    built = engine.find(definition, one.base_image)
    source = shown(definition.source)
    if built is not None and engine.name != "docker":
        if any(Path(built.name).glob("lib/python*/site-packages/pandas/__init__.py")):
            return one
        reference = one.reference
        raise UserError(
            f"Step `{step.name}` {_TABLE}, and {source} has no pandas.",
            "Add pandas to the step's environment.",
            file=shown(reference.file) if reference is not None else shown(step.file),
            line=reference.line if reference is not None else step.line,
        )
    if "pandas" in {*(package.name for package in definition.pip), *(package.name for package in definition.conda)}:
        return one
    note = f"step `{step.name}` {_TABLE}: {source} does not name pandas, so one of its packages has to bring it"
    return replace(one, notes=(*one.notes, note))
