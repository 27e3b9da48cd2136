"""The chain of steps for a pipeline: submit, tail-log, attach; later status, inspect, cancel."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import backends
from ..backends.base import Backend, DebugRequest
from ..console import Console
from ..errors import UserError
from ..paths import shown
from ..pipelines.definition import Pipeline, Step
from ..pipelines.parts import Parts
from ..runs import active_markers
from ..runs.attachable import Attachable, configurations_by_rank
from ..runs.record import RUNNING, RunRecord, StepRecord
from ..runs.warm_runner import waiting_runner
from ..settings import Settings
from .examples import note_example
from .run_failures import StepFailed
from .step_inspection import StepInspection, inspect_step
from .watching import StillWaiting, Watching, attach, check_rank, launch_json, until_open

if TYPE_CHECKING:
    from ..debugger.inspect_places import Report
    from .from_run import TakenOver
    from .snapshots import Found


#: Seconds until the state of a run that was submitted from elsewhere is known; and seconds between two checks.
REPORT_SECONDS, POLL_SECONDS = 10.0, 0.1


@dataclass(frozen=True)
class Wanted:
    """Which part of a pipeline is to be run, and with which inputs.

    Attributes:
        inputs: Values by name of an input, by ``step.input``, or by ``step.output`` for steps that are left out.
        only: Steps to run, with the steps that they need; empty for all.
        skip: Steps to leave out.
        parts: Which trials of sweeps and mini-batches of parallel steps to run.
        taken: What is taken over from an earlier run; None if there is none.
    """

    inputs: Mapping[str, str] = field(default_factory=dict)
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    parts: Parts = field(default_factory=Parts)
    taken: TakenOver | None = None


@dataclass
class PipelineFlow:
    """The steps for one project. Each can be used alone; `debug` chains them.

    Attributes:
        settings: The settings.
        console: Where progress is shown.
    """

    settings: Settings
    console: Console
    _backend: Backend | None = None
    _other: Backend | None = None

    @property
    def backend(self) -> Backend:
        """The backend of the settings."""
        if self._backend is None:
            self._backend = backends.load(self.settings, self.console)
        return self._backend

    # The chain

    def submit(self, wanted: Wanted, debug: DebugRequest | None, options: str = "") -> RunRecord:
        """Read the pipeline file, build its environments and start a run."""
        with waiting_runner(self.settings.engine) if self.settings.backend == "local" else nullcontext() as waiting:
            backend = self.backend
            from ..debugger.launch_json import check_launch_json

            note_example(self.settings, self.console, "pipeline_file", "pipeline.yml")
            whole = self._read_complete(wanted.taken) if wanted.taken is not None else None
            pipeline = self.read(wanted, in_editor=debug is not None and debug.name_steps)
            if wanted.taken is not None:
                wanted.taken.print_changes(self.console, whole or getattr(pipeline, "whole", None), pipeline)
                pipeline = wanted.taken.without_notes(pipeline)
                pipeline = wanted.taken.with_kept_code(pipeline) if wanted.taken.code else pipeline
            if debug is not None:
                debug = replace(debug, steps=pipeline.asked)
                chosen = [step for step in pipeline.steps if not debug.steps or step.name in debug.steps]
                _check_rank(chosen, debug.rank)
                check_launch_json(self.settings.project)
            run = backend.submit(pipeline, debug, options, waiting)
            if wanted.taken is not None:
                wanted.taken.print_environment_changes(self.console, run)
            return run

    def read(self, wanted: Wanted, *, in_editor: bool = False) -> Pipeline:
        """Read the pipeline of the settings, or the wanted part of it.

        Raises:
            UserError: It cannot be run like this.
        """
        from ..pipelines.selection import NoStep

        try:
            own = self.backend.read(wanted)
        except NoStep as missing:
            if wanted.taken is not None and missing.name in wanted.taken.all_steps:
                wanted.taken.check_steps_exist(missing.names, None)
            raise _no_step(missing.name, missing.names, self.settings.pipeline_file, in_editor) from None
        if own is not None:
            return own
        pipeline, error = self._survey(wanted, in_editor=in_editor)
        if error is not None:
            raise error
        return pipeline

    @property
    def _by_v2(self) -> bool:
        """Whether SDK v2 reads and submits the pipeline."""
        if self.settings.backend != "azureml":
            return False
        from ..azureml.sdk_choice import chosen_sdk

        return chosen_sdk(self.settings) == "v2"

    def _read_complete(self, taken: TakenOver) -> Pipeline | None:
        """Read the complete pipeline as its file is now, including the steps that are taken over.

        Returns None if it cannot be read, or SDK v2 reads it, which returns the complete pipeline with the wanted part.

        Raises:
            UserError: A step that is taken over is not in it any more.
        """
        if self._by_v2:
            return None
        own = {name: text for name, text in taken.wanted.inputs.items() if name not in taken.outputs}
        try:
            whole, error = self._survey(replace(taken.wanted, inputs=own, only=(), skip=taken.typed_skip))
        except UserError:
            return None  # The error is reported when the wanted part is read.
        taken.check_steps_exist([step.name for step in whole.steps], error)
        return whole

    def continue_run(self, run: str, wanted: Wanted, *, named_file: bool, code: bool) -> Wanted:
        """Determine what to run to continue an earlier run; the flow's settings then have its pipeline file.

        Args:
            run: The earlier run, by id or number.
            wanted: What was typed.
            named_file: Whether a pipeline file was typed as well, which is used then.
            code: Whether the steps run the code of the earlier run.

        Raises:
            UserError: That run cannot be continued.
        """
        from .from_run import take_over

        found = self.find(run)
        deadline = time.monotonic() + REPORT_SECONDS
        # The state of a run that was submitted from elsewhere may still be arriving.
        while not (found.file or found.final or any(step.status == RUNNING for step in found.steps)):
            if time.monotonic() > deadline:
                break
            time.sleep(POLL_SECONDS)
            found = self.refresh(found)
        file = self.settings.pipeline_file if named_file else None
        if found.in_workspace:
            self.settings = _settings_of_run(self.settings, found)

        def outputs_of(one: RunRecord, steps: Sequence[str]) -> Mapping[str, str]:
            return self._backend_of(one).outputs(one, steps)

        taken = take_over(found, wanted, outputs_of, file, whole=self._by_v2, code=code)
        self.settings = replace(self.settings, pipeline_file=taken.file)
        self._backend = self._other = None
        return replace(taken.wanted, taken=taken)

    def _survey(self, wanted: Wanted, *, in_editor: bool = False) -> tuple[Pipeline, UserError | None]:
        from ..azureml.named_assets import can_download
        from ..pipelines.problems import combine_errors, split_errors
        from ..pipelines.reader import survey
        from ..pipelines.selection import NoStep

        file = self.settings.pipeline_file
        try:
            found, error = survey(
                file,
                wanted.inputs,
                cloud=self.backend.takes_cloud_data,
                project=self.settings.project,
                only=wanted.parts.without_trials(wanted.only),
                skip=wanted.skip,
                fetch_data=can_download(self.settings),
            )
            try:
                found = wanted.parts.select_from(found, wanted.only)
            except UserError as wrong:
                error = combine_errors([*split_errors(error), wrong], found.files)
            return found, error
        except NoStep as error:
            raise _no_step(error.name, error.names, file, in_editor) from None

    def dry_run(self, wanted: Wanted, debug: DebugRequest | None = None) -> None:
        """Show what a run would do.

        Args:
            wanted: Which part of the pipeline.
            debug: What is to be debugged.

        Raises:
            UserError: It could not be run; it has everything that is missing or wrong.
        """
        from ..pipelines.selection import NoStep
        from .pipeline_dry_run import look, show_job

        note_example(self.settings, self.console, "pipeline_file", "pipeline.yml")
        try:
            job = self.backend.dry_run(wanted, debug)
        except NoStep as missing:
            raise _no_step(missing.name, missing.names, self.settings.pipeline_file) from None
        if job is not None:
            try:
                _check_rank([one.step for one in job.steps if one.ranks], debug.rank if debug is not None else None)
            except UserError as wrong:
                job = replace(job, errors=(*job.errors, wrong))
            error = show_job(self.console, job)
            if error is not None:
                raise error
            return
        whole = self._read_complete(wanted.taken) if wanted.taken is not None else None
        found, error = self._survey(wanted)
        if wanted.taken is not None:
            wanted.taken.print_changes(self.console, whole, found)
            found = wanted.taken.without_notes(found)
        error = look(self.settings, self.console, found, error)
        if error is not None:
            raise error

    def tail_log(self, run: RunRecord, only: str | None = None) -> list[Attachable]:
        """Wait until a debugger can attach to a step; see :func:`~workflows.flows.watching.until_open`."""
        return until_open(self._watching, run, only)

    def attach(self, run: RunRecord, found: Sequence[Attachable], before: bytes | None = None) -> None:
        """Write the launch configurations of a run; see :func:`~workflows.flows.watching.attach`."""
        attach(self.console, run, found, before)

    def debug(self, wanted: Wanted, debug: DebugRequest, options: str = "") -> tuple[RunRecord, list[Attachable]]:
        """Run the complete chain. The run is canceled on Ctrl-C and on errors such as a step that never listens."""
        before = launch_json(self.settings.project)
        run = self.submit(wanted, debug, options)
        try:
            found = self.tail_log(run)
            run = self.refresh(run)
            if found:
                self.attach(run, found, before)
        except (StepFailed, StillWaiting):
            # Independent steps may finish. A node that took minutes to start may still become reachable.
            raise
        except BaseException:
            self.cancel(run)
            raise
        return run, found

    def join(self, debug: DebugRequest) -> tuple[RunRecord, list[Attachable]] | None:
        """Wait for an existing run that still reaches what is to be debugged; None if there is none.

        An editor that attaches to several steps starts one command for each of them. One command starts the run, and
        the others wait for their steps, however long the steps before are debugged.
        """
        for run in self.backend.runs():
            run = self.backend.refresh(run)
            wanted = debug.steps or [step.name for step in run.steps if step.debugged]
            steps = [step for step in run.steps if step.name in wanted]
            ahead = [step for step in steps if step.debugged and not step.final and _has_rank(step, debug.rank)]
            if run.final or run.file != str(self.settings.pipeline_file) or not steps or len(ahead) < len(wanted):
                continue
            self.console.line(f"The run {run.run_id} is on its way already.")
            active_markers.mark_submitted(run.folder)
            watching = replace(self._watching, patient=True)
            found = until_open(watching, run, debug.steps[0] if debug.steps else None)
            run = self.backend.refresh(run)
            self.attach(run, found)
            return run, found
        return None

    # One run

    def find(self, wanted: str | None) -> RunRecord:
        """Find a run by what was typed; the latest for None."""
        found = self.backend.find(wanted)
        # A run of the other backend is refreshed by that one.
        return found if self._backend_of(found) is self.backend else self.refresh(found)

    def find_by_configuration(self, name: str) -> RunRecord | None:
        """The run whose debugger an editor has just detached: the latest with a launch configuration of that name."""
        for run in self.runs():
            if any(name in some for step in run.steps for some in configurations_by_rank(step).values()):
                return self.refresh(run)
        return None

    def runs(self) -> list[RunRecord]:
        """List every run of the project, the latest first."""
        return self.backend.runs()

    def refresh(self, run: RunRecord) -> RunRecord:
        """The current record of a run."""
        return self._backend_of(run).refresh(run)

    def cancel(self, run: RunRecord) -> RunRecord:
        """Cancel a run; returns its record after that."""
        return self._backend_of(run).cancel(run)

    def _backend_of(self, run: RunRecord) -> Backend:
        """The backend that a run runs on, whatever the settings are."""
        name = "azureml" if run.in_workspace else "local"
        if self.backend.name == name:
            return self.backend
        if self._other is None:
            self._other = backends.load(replace(self.settings, backend=name), self.console)
        return self._other

    def step(self, run: RunRecord, name: str | None) -> StepRecord | None:
        """Find a run's step by name, or by the last part of it if only one step has that.

        Raises:
            UserError: It has none of that name, or several.
        """
        if name is None:
            return None
        names = [step.name for step in run.steps]
        fitting = [name] if name in names else [one for one in names if one.endswith(f".{name}")]
        if len(fitting) > 1:
            called = ", ".join(fitting)
            raise UserError(f"Several steps are called {name}: {called}.", "Name one of them in full: --step NAME")
        if not fitting:
            raise _no_step(name, names)
        return run.step(fitting[0])

    def inspect(self, run: RunRecord, step: str | None, look: StepInspection, tell: Report) -> dict[str, Any]:
        """Inspect a step at lines, or where it holds; see :func:`.step_inspection.inspect_step`."""
        return inspect_step(self._watching, run, replace(look, step=self.step(run, step)), tell)

    def snapshots(self, run: RunRecord, step: str | None) -> Found:
        """The snapshots of a run's failures; those of a run in a workspace are fetched.

        Raises:
            UserError: There are none; the message has the reason.
        """
        from .snapshots import snapshots_of_run

        return snapshots_of_run(run, self.step(run, step), self._backend_of(run).fetch_snapshots)

    @property
    def _watching(self) -> Watching:
        return Watching(self.console, self.refresh, self.settings.debug_timeout)


def _settings_of_run(settings: Settings, run: RunRecord) -> Settings:
    """The settings with the workspace of a run, which has its outputs, and the currently chosen SDK."""
    from ..azureml.run_location import load_location

    place = load_location(run.folder)
    return replace(place.settings(settings), sdk=settings.sdk) if place is not None else settings


def _has_rank(step: StepRecord, rank: int | None) -> bool:
    if rank is None:
        return len(step.ports) >= step.ranks
    return rank in step.ports or (step.ranks == 1 and [*step.ports] == [0])


def _check_rank(chosen: Sequence[Step], rank: int | None) -> None:
    from ..pipelines.commands import count_started_ranks

    most = max((step.ranks if step.ranks > 1 else count_started_ranks(step.command) for step in chosen), default=1)
    check_rank(rank, most, "the steps have")


def _no_step(name: str, names: Sequence[str], file: Path | None = None, in_editor: bool = False) -> UserError:
    remedy = f"Existing steps: {', '.join(names)}"
    if in_editor:
        remedy += ". For configurations of these: inv vscode.setup"
    return UserError(f"There is no step {name}.", remedy, file=shown(file) if file else None)
