"""The work of an experiment's run, from its run configuration or from a job file."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from ..console import Console
from ..environments.references import ResolvedEnvironment
from ..errors import UserError
from ..models import ImageRef
from ..paths import shown
from ..pipelines.commands import names_own_script
from ..runs.plan import PlannedDebug, PlannedInput, PlannedStep
from ..settings import Settings
from .runconfig import RunConfig


@dataclass(frozen=True)
class Work:
    """One run's work.

    Attributes:
        step: What the runner executes, without an image and without a debugger.
        shown: The command as it is displayed.
        file: The file that defines it.
        environment: The environment that it runs in.
        options: What to type after the experiment's name to run it again.
        any_program: Whether the debugger is let into any Python that the command starts.
        notes: What is done differently here, one line each.
    """

    step: PlannedStep
    shown: str
    file: Path
    environment: ResolvedEnvironment
    options: str = ""
    any_program: bool = False
    notes: tuple[str, ...] = ()

    @property
    def processes(self) -> int:
        """The number of processes, or the most there may be where the script starts others."""
        return processes(self.step.distribution, self.step.ranks, self.step.command)

    def planned(self, name: str, image: ImageRef, debug: PlannedDebug | None) -> PlannedStep:
        """The step of an experiment's run: it has the experiment's name, and its metrics are kept."""
        if debug is not None:
            debug = replace(debug, any_program=self.any_program)
        return replace(self.step, name=name, image=image, debug=debug, metrics=True)


def processes(distribution: str, ranks: int, command: str) -> int:
    """The number of a run's processes on all nodes, or the most there may be where the script starts others."""
    from ..pipelines.commands import count_started_ranks

    return ranks if distribution else count_started_ranks(command)


def work_of_configuration(
    project: Path, config: RunConfig, file: Path, environment: ResolvedEnvironment, ranks: int
) -> Work:
    """The work of a run configuration, whose data is on this machine."""
    from .configure import command

    step = PlannedStep(
        name="",
        command=command(config),
        code=str(project),
        image=ImageRef("", "", ""),
        inputs={name: PlannedInput(path=os.path.abspath(project / path)) for name, path in config.data.items()},
        variables=dict(config.variables),
        distribution=config.distribution,
        ranks=ranks,
        processes=config.processes,
        shm_size=config.shm_size,
        literal=True,
    )
    return Work(step, shlex.join([config.script, *config.arguments]), file, environment)


def work_of_job(settings: Settings, console: Console, job: Path, inputs: dict[str, str], engine: str) -> Work:
    """The work of a job file: a command job, a component, or one trial of a sweep.

    Args:
        settings: The settings.
        console: Shows the downloads.
        job: The file.
        inputs: Values for its inputs by name.
        engine: The engine that will run it.

    Raises:
        UserError: It cannot be read or run, or is more than one step.
    """
    from ..azureml.named_assets import can_download, download_inputs
    from ..environments.references import resolve_environment
    from ..pipelines.command_preview import shown_command
    from ..pipelines.reader import load_pipeline
    from ..runs.planning import fetch_inputs, plan_step

    pipeline = load_pipeline(job, inputs, project=settings.project, fetch_data=can_download(settings))
    if len(pipeline.steps) != 1:
        raise UserError(
            f"{shown(job)} has {len(pipeline.steps)} steps; an experiment is one.",
            f"Run it as a pipeline: inv pipeline.debug --file {shown(job)}",
        )
    (step,) = pipeline.steps
    environment = resolve_environment(step.environment, settings, engine)
    fetched = {**download_inputs(settings, console, [step]), **fetch_inputs([step], console.line)}
    words = [
        "--job",
        str(shown(job)),
        *(word for name, text in inputs.items() for word in ("--input", f"{name}={text}")),
    ]
    return Work(
        plan_step(step, ImageRef(engine, "", ""), None, fetched),
        " ".join(shown_command(step, single=True).split()),
        pipeline.file,
        environment,
        shlex.join(words),
        not names_own_script(step.command, step.code, step.includes),
        pipeline.notes,
    )
