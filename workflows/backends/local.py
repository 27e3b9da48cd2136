"""The embedded backend: a pipeline's steps in containers, or in processes, on this machine."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .. import engines, environment_uses, line_ends
from ..console import Console
from ..engines import reservations
from ..interrupts import uninterrupted
from ..models import ImageRef
from ..paths import shown as show
from ..pipelines.commands import names_own_script
from ..pipelines.definition import Pipeline, Step
from ..runs import store, submission
from ..runs.debug_ports import all_ports, allot_ports, configuration_names
from ..runs.plan import Plan, PlannedDebug, PlannedStep
from ..runs.planning import fetch_inputs, plan_step
from ..runs.record import RunRecord, StepRecord
from ..settings import Settings
from .base import DebugRequest

if TYPE_CHECKING:
    from ..flows.pipeline import Wanted

KIND = "pipeline"
#: Seconds for a run's runner to end its steps by itself.
CANCEL_SECONDS = 5.0
POLL_SECONDS = 0.02


class LocalBackend:
    """Runs pipelines on this machine.

    Args:
        settings: The settings.
        console: Where steps show themselves.
    """

    name = "local"
    takes_cloud_data = False

    def __init__(self, settings: Settings, console: Console) -> None:
        self._settings = settings
        self._console = console

    def read(self, wanted: Wanted) -> Pipeline | None:
        """See :class:`~workflows.backends.base.Backend`."""
        return None

    def dry_run(self, wanted: Wanted, debug: DebugRequest | None) -> None:
        """See :class:`~workflows.backends.base.Backend`."""

    def submit(
        self,
        pipeline: Pipeline,
        debug: DebugRequest | None,
        options: str = "",
        waiting: subprocess.Popen[bytes] | None = None,
    ) -> RunRecord:
        """See :class:`~workflows.backends.base.Backend`."""
        settings, console = self._settings, self._console
        if debug is not None and debug.open_port:
            console.line("  note: --open-port is for steps on a cluster; on this machine ports stay on 127.0.0.1")

        def same(run: RunRecord) -> bool:
            return run.file == str(pipeline.file) and run.debugged == (debug is not None)

        store.replace_abandoned(settings.project, KIND, same, console.line, CANCEL_SECONDS)
        allotted: dict[str, dict[int, int]] = {}
        try:
            engine, word = engines.choose(settings.engine)
            if word:
                console.line(f"Engine: {word}.")
            allotted = allot_ports(pipeline, debug, settings.debug_port, console)
            return self._submit(pipeline, debug, options, engine.name, allotted, waiting)
        except BaseException:
            reservations.release(all_ports(allotted))
            raise

    def _submit(
        self,
        pipeline: Pipeline,
        debug: DebugRequest | None,
        options: str,
        engine: str,
        allotted: dict[str, dict[int, int]],
        waiting: subprocess.Popen[bytes] | None,
    ) -> RunRecord:
        from ..azureml.named_assets import download_inputs

        settings, console = self._settings, self._console
        steps = engines.load_steps(engine)
        # Downloads come first, since they may need a confirmation or fail.
        here = download_inputs(settings, console, pipeline.steps)
        images = self._build(pipeline, engine, allotted)
        with console.step("submit") as shown:
            fetched = {**here, **fetch_inputs(pipeline.steps, shown.detail)}
            run = store.new_run(settings.project, KIND, pipeline.name, engine)
            try:
                run.file, run.options, run.debugged = str(pipeline.file), options, bool(allotted)
                run.on_error = bool(debug and debug.on_error)
                plan = Plan(
                    tuple(
                        self._planned(step, images[step.name], allotted.get(step.name), debug, fetched)
                        for step in pipeline.steps
                    ),
                    pipeline.outputs,
                    pipeline.continue_on_failure,
                    settings.leaves_snapshots,
                    settings.snapshot_redact or "",
                )
                name = configuration_names(pipeline, allotted, debug)
                run.steps = submission.step_records(run, plan, steps, name)
                submission.start(run, plan, waiting)
            except BaseException:
                with uninterrupted():
                    submission.discard(run)
                raise
            ending = "s" if len(run.steps) > 1 else ""
            shown.text = f"run {run.run_id}, {len(run.steps)} step{ending} of {show(pipeline.file)}"
        return run

    def runs(self) -> list[RunRecord]:
        """See :class:`~workflows.backends.base.Backend`."""
        return store.all_runs(self._settings.project, KIND)

    def find(self, wanted: str | None) -> RunRecord:
        """See :class:`~workflows.backends.base.Backend`."""
        return store.find_run(self._settings.project, KIND, wanted)

    def refresh(self, run: RunRecord) -> RunRecord:
        """See :class:`~workflows.backends.base.Backend`."""
        return store.refresh(run)

    def cancel(self, run: RunRecord) -> RunRecord:
        """See :class:`~workflows.backends.base.Backend`."""
        return store.cancel(run, CANCEL_SECONDS)

    def outputs(self, run: RunRecord, steps: Sequence[str]) -> dict[str, str]:
        """See :class:`~workflows.backends.base.Backend`."""
        from ..runs.outputs import outputs_of

        return outputs_of(run, steps)

    def fetch_snapshots(self, run: RunRecord, steps: Sequence[StepRecord]) -> None:
        """See :class:`~workflows.backends.base.Backend`: they were already written here."""

    # Before the start

    def _build(
        self, pipeline: Pipeline, engine_name: str, allotted: Mapping[str, Mapping[int, int]]
    ) -> dict[str, ImageRef]:
        """Build the environments of all steps, each one once."""
        from ..environments.step_environments import resolve_step_environments
        from ..pipelines.problems import combine_errors

        engine = engines.load(engine_name)
        notes: list[str] = list(pipeline.notes)
        with self._console.step("build") as shown:
            resolved, errors = resolve_step_environments(pipeline.steps, self._settings, engine)
            if errors:
                raise combine_errors(errors, pipeline.files)
            # A script with the published options may import debugpy even where it is not debugged.
            debugged = {
                resolved[step.name].key
                for step in pipeline.steps
                if allotted.get(step.name) or "--remote_debug" in step.command
            }
            built: dict[str, ImageRef] = {}
            images: dict[str, ImageRef] = {}
            for step in pipeline.steps:
                one = resolved[step.name]
                notes += one.notes
                if one.key not in built:
                    built[one.key] = one.build(engine, shown.detail_sometimes, debugged=one.key in debugged)
                    notes += built[one.key].notes
                    environment_uses.record_use(
                        self._settings.project, f"{KIND} {one.key} {engine.name}", built[one.key].digest
                    )
                images[step.name] = built[one.key]
                notes += [
                    line_ends.note_for_script(step.name, script)
                    for script in line_ends.find_named_scripts(step.command, step.code)
                ]
            words = {
                image.name if engine.name == "docker" else f"environment {image.digest[:12]}": image.reused
                for image in built.values()
            }
            shown.text = ", ".join(f"{name} ({'reused' if reused else 'built'})" for name, reused in words.items())
        for note in dict.fromkeys(notes):
            self._console.line(f"  note: {note}")
        return images

    def _planned(
        self,
        step: Step,
        image: ImageRef,
        allotted: dict[int, int] | None,
        debug: DebugRequest | None,
        fetched: dict[str, Path],
    ) -> PlannedStep:
        planned_debug = None
        if allotted and debug is not None:
            planned_debug = PlannedDebug(
                ports=allotted,
                wait=debug.wait,
                timeout=self._settings.debug_timeout,
                on_error=debug.on_error,
                any_program=not names_own_script(step.command, step.code, step.includes),
                children=debug.children,
                launched=debug.launched,
                summaries=self._settings.describes_values,
            )
        return plan_step(step, image, planned_debug, fetched)
