"""The backend of an Azure ML workspace: submits pipelines and experiments, and reads their runs.

Each run has a folder here, like a run of this machine. A follower in the background (azureml/follower.py) updates its
record, logs and events from the workspace, so that all commands only read local files.
"""

from __future__ import annotations

import contextlib
import functools
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..azureml.connection import WorkspaceConnection, connect
from ..azureml.run_location import RunLocation, load_location, save_location
from ..console import Console
from ..console import Step as Shown
from ..engines import reservations
from ..errors import BadValue, UserError
from ..interrupts import uninterrupted
from ..paths import shown as show
from ..pipelines.definition import Pipeline
from ..private import touch
from ..received import sent_by
from ..runs import active_markers, store
from ..runs import plan as plans
from ..runs import record as records
from ..runs.debug_ports import all_ports, allot_ports
from ..runs.record import IN_WORKSPACE, RunRecord, StepRecord
from ..settings import Settings
from .base import DebugRequest, DryJob
from .workspace_runs import run_history, run_service, save_code, single_file_outputs, start_follower, write_private

if TYPE_CHECKING:
    from ..azureml.cloud_pipeline import ChildRun
    from ..azureml.history import RunHistory
    from ..azureml.submission import Submission
    from ..azureml.v2.job_file import LoadedJob
    from ..azureml.v2.submission import JobSubmission
    from ..flows.pipeline import Wanted

#: Seconds to wait for the workspace to cancel a run.
CANCEL_SECONDS = 60.0
POLL_SECONDS = 0.05
#: Seconds between two checks of whether a run's follower is still running.
ALIVE_SECONDS = 1.0


class AzureBackend:
    """Runs pipelines, or experiments, in a workspace.

    Args:
        settings: The settings.
        console: Where steps show themselves.
        kind: ``pipeline`` or ``experiment``.
    """

    name = "azureml"
    takes_cloud_data = True

    def __init__(self, settings: Settings, console: Console, kind: str = "pipeline") -> None:
        self._settings = settings
        self._console = console
        self._kind = kind
        self._checked_at: dict[Path, float] = {}
        self._connected: tuple[Any, RunLocation] | None = None

    def read(self, wanted: Wanted) -> Pipeline | None:
        """See :class:`~workflows.backends.base.Backend`. With SDK v2, this also connects to the workspace."""
        if not self._uses_v2(wanted):
            return None
        from ..azureml.v2.job_file import load

        file = self._settings.pipeline_file
        return self.load_job(
            file, lambda sdk, _: load(file, self._settings.project, sdk, wanted, self._settings.compute_target)
        )

    def load_job(self, file: Path, load: Callable[[Any, Any], LoadedJob]) -> LoadedJob:
        """Load a job of SDK v2. The SDK is imported while the workspace is being connected.

        Args:
            file: The file that it is loaded from, which is displayed.
            load: Loads the job; it gets the module ``azure.ai.ml`` and the workspace.

        Raises:
            UserError: The workspace cannot be reached or accepts no jobs of SDK v2, or ``load`` raised it.
        """
        from ..azureml.v2.sdk_module import BackgroundImport
        from ..azureml.v2.workspace import require_v2

        importing = BackgroundImport()
        with self._console.step("connect") as shown:
            self._connected = self._connect(shown)
            require_v2(self._connected[0])
            shown.text = f"workspace {self._connected[1].workspace}"
        with self._console.step("read") as shown:
            shown.report_wait("azure-ai-ml to be imported")
            sdk = importing.wait()
            shown.report_wait(f"{show(file)}")
            found = load(sdk, self._connected[0])
            ending = "" if found.experiment else f", {len(found.steps)} step{'s' if len(found.steps) > 1 else ''}"
            shown.text = f"{show(file)}{ending}"
        return found

    def _uses_v2(self, wanted: Wanted) -> bool:
        """Whether SDK v2 reads the pipeline."""
        from ..azureml.sdk_choice import chosen_sdk

        if chosen_sdk(self._settings) == "v1":
            return False
        if wanted.parts.flags:
            raise BadValue(
                "--trials and --mini-batch are for runs on this machine.",
                "For a workspace, set them in the file: `limits`, `mini_batch_size`.",
            )
        return True

    def dry_run(self, wanted: Wanted, debug: DebugRequest | None) -> DryJob | None:
        """See :class:`~workflows.backends.base.Backend`."""
        if not self._uses_v2(wanted):
            return None
        from ..azureml.v2.dry_run import describe_dry_run
        from ..azureml.v2.job_file import load_and_check
        from ..azureml.v2.sdk_module import BackgroundImport

        settings = self._settings
        with self._console.step("read") as shown:
            shown.report_wait("azure-ai-ml to be imported")
            sdk = BackgroundImport().wait()
            shown.report_wait(f"{show(settings.pipeline_file)}")
            loaded: LoadedJob | None = None
            try:
                loaded, error = load_and_check(
                    settings.pipeline_file, settings.project, sdk, wanted, settings.compute_target
                )
            except UserError as wrong:
                error = wrong
            shown.text = f"{show(settings.pipeline_file)}"
        if wanted.taken is not None and loaded is not None:
            wanted.taken.print_changes(self._console, loaded.whole, loaded)
        return describe_dry_run(settings.pipeline_file, loaded, error, debug, settings)

    def submit(
        self,
        pipeline: Pipeline,
        debug: DebugRequest | None,
        options: str = "",
        waiting: subprocess.Popen[bytes] | None = None,
    ) -> RunRecord:
        """See :class:`~workflows.backends.base.Backend`."""
        settings, console = self._settings, self._console
        submission = self._submission(pipeline, debug)
        debug = submission.debug
        for note in submission.notes:
            console.line(f"  note: {note}")
        if self._connected is None:
            with console.step("connect") as shown:
                self._connected = self._connect(shown)
                shown.text = f"workspace {self._connected[1].workspace}"
        workspace, place = self._connected
        run: RunRecord | None = None
        try:
            submission.allotted = allot_ports(pipeline, debug, settings.debug_port, console)
            with console.step("submit") as shown:
                run = store.new_run(settings.project, self._kind, pipeline.name, IN_WORKSPACE)
                run.command = getattr(pipeline, "shown", "")
                run.file, run.options, run.debugged = str(pipeline.file), options, bool(submission.allotted)
                run.on_error = bool(debug and debug.on_error)
                token = secrets.token_urlsafe(32) if debug is not None and not debug.open_port else ""
                if token:
                    write_private(run.folder / "token", token)
                submission.stage(run, token, workspace)
                place = submission.start(run, place, workspace, shown.detail)
                run.run_id = place.run_id
                plans.save(submission.plan(), run.folder)
                run.steps = submission.records()
                save_code(run, pipeline)
                records.save(run)
                start_follower(run, workspace)
                ending = "s" if len(run.steps) > 1 else ""
                what = f"{len(run.steps)} step{ending} of {show(pipeline.file)}"
                shown.text = f"run {run.run_id}, {run.command if run.single else what}"
            console.line(f"  {place.page}")
        except BaseException:
            with uninterrupted():
                reservations.release(all_ports(submission.allotted))
                if run is not None:
                    self._discard(run, workspace)
            raise
        return run

    def runs(self) -> list[RunRecord]:
        """See :class:`~workflows.backends.base.Backend`."""
        return store.all_runs(self._settings.project, self._kind)

    def find(self, wanted: str | None) -> RunRecord:
        """See :class:`~workflows.backends.base.Backend`. It also finds runs from elsewhere by their ids."""
        try:
            return self.refresh(store.find_run(self._settings.project, self._kind, wanted))
        except UserError:
            if not wanted or not re.fullmatch(r"[\w-]{20,}", wanted):
                raise
        return self._adopt(wanted)

    def refresh(self, run: RunRecord) -> RunRecord:
        """See :class:`~workflows.backends.base.Backend`."""
        if not run.in_workspace:
            return store.refresh(run)
        run = records.load(run.folder) or run
        if not run.final and time.monotonic() - self._checked_at.get(run.folder, 0.0) > ALIVE_SECONDS:
            self._checked_at[run.folder] = time.monotonic()
            self._restart_follower(run)
        return run

    def cancel(self, run: RunRecord) -> RunRecord:
        """See :class:`~workflows.backends.base.Backend`."""
        if not run.in_workspace:
            return store.cancel(run, 5.0)
        touch(run.folder / "cancel")
        deadline = time.monotonic() + CANCEL_SECONDS
        while time.monotonic() < deadline:
            run = self.refresh(run)
            if run.final:
                return run
            time.sleep(POLL_SECONDS)
        raise UserError(
            f"The workspace was asked to cancel the run {run.run_id} and has not done so in {CANCEL_SECONDS:.0f} s"
            f"{': ' + run.trouble if run.trouble else ''}.",
            f"The program keeps trying; see: inv {'experiment.show' if run.single else 'pipeline.status'}"
            f" --run {run.number}",
        )

    def outputs(self, run: RunRecord, steps: Sequence[str]) -> dict[str, str]:
        """See :class:`~workflows.backends.base.Backend`. Outputs of a run in a workspace are addresses."""
        from ..azureml.errors import attempt
        from ..azureml.history import child_object
        from ..received import name

        if not run.in_workspace:
            from ..runs.outputs import outputs_of

            return outputs_of(run, steps)
        place = load_location(run.folder)
        if place is None:
            raise UserError(f"Where the run {run.run_id} is, is not known here.", "See https://ml.azure.com.")
        ids = {step.name: step.run_id for step in run.steps}
        found: dict[str, str] = {}
        with self._console.step("look up") as shown, sent_by(f"The workspace {place.workspace}"):
            shown.report_wait(f"the workspace {place.workspace}")
            workspace = connect(self._settings, place, shown.detail)
            history = run_history(workspace)

            def run_of(step: str) -> str:
                if step in ids:
                    return ids[step]
                # The run of a nested pipeline is the parent of the runs of its steps.
                inner = next(one for one in ids if one.startswith(f"{step}."))
                above = run_of(inner.rpartition(".")[0]) if inner.rpartition(".")[0] != step else ids[inner]
                return name(child_object({"": history.run(above)}, "").get("parentRunId"), "a run's id")

            for step in steps:
                told = attempt(
                    lambda step=step: workspace.outputs(history, run_of(step), place.run_id),  # type: ignore[misc]
                    f"reading the outputs of {step}",
                    shown.detail,
                )
                # With SDK v1 each output is a folder; an output that is a file is in it under its name.
                files = single_file_outputs(run, step) if place.sdk == "v1" else set()
                found |= {
                    f"{step}.{output}": f"{address}/{output}" if output in files else address
                    for output, address in told.items()
                }
            count = len(found)
            shown.text = f"{count} output{'' if count == 1 else 's'} of the run {run.run_id} in {place.workspace}"
        return found

    def fetch_snapshots(self, run: RunRecord, steps: Sequence[StepRecord]) -> None:
        """See :class:`~workflows.backends.base.Backend`."""
        from ..azureml import snapshots
        from ..azureml.errors import NotFound, attempt

        place = load_location(run.folder)
        if place is None:
            return
        with self._console.step("fetch") as shown:
            service = run_service(
                connect(self._settings, place, shown.detail), place, [step.name for step in run.steps]
            )
            count = 0
            with sent_by(f"The workspace {place.workspace}"):
                children: dict[str, ChildRun] = {}
                if not all(step.final for step in steps):
                    # The record of a run from elsewhere may not be up to date.
                    told = attempt(service.children, f"reading the run {run.run_id}", shown.detail)
                    children = {child.step: child for child in told}
                for step in steps:
                    run_id = step.run_id
                    if not step.final:
                        child = children.get(step.name)
                        if child is None or child.status != records.FAILED:
                            continue
                        run_id = child.run_id
                    with contextlib.suppress(NotFound):
                        doing = f"reading the snapshots of {step.name}"
                        count += attempt(
                            functools.partial(snapshots.fetch_snapshots, service, run, step, run_id),
                            doing,
                            shown.detail,
                        )
            shown.text = f"{count or 'no'} snapshot{'' if count == 1 else 's'} of the workspace {place.workspace}"

    def history(self, run: RunRecord, shown: Shown) -> RunHistory:
        """The run history of a run's workspace.

        Raises:
            UserError: The workspace cannot be reached, or the run's location is not saved here.
        """
        place = load_location(run.folder)
        if place is None:
            raise UserError(f"Where the run {run.run_id} is, is not known here.", "See https://ml.azure.com.")
        shown.report_wait(f"the workspace {place.workspace}")
        return run_history(connect(self._settings, place, shown.detail))

    def _submission(self, pipeline: Pipeline, debug: DebugRequest | None) -> Submission | JobSubmission:
        if self._connected is None:
            from ..azureml.submission import Submission

            return Submission(pipeline, debug, self._settings)
        from ..azureml.v2.job_file import LoadedJob
        from ..azureml.v2.submission import JobSubmission

        assert isinstance(pipeline, LoadedJob)
        return JobSubmission(pipeline, debug, self._settings)

    # The connection

    def _connect(self, shown: Shown) -> tuple[Any, RunLocation]:
        from ..azureml.sdk_choice import chosen_sdk
        from ..azureml.workspace import find_workspace

        shown.report_wait("the workspace")
        name = find_workspace(self._settings)
        place = RunLocation(
            name.subscription_id,
            name.resource_group,
            name.workspace,
            self._settings.auth,
            sdk=chosen_sdk(self._settings),
        )
        return connect(self._settings, place, shown.detail), place

    def _restart_follower(self, run: RunRecord) -> None:
        """Start a run's follower again if it is not running, such as after a restart of the machine."""
        if run.foreign or store.runner_is_alive(run):
            return
        place = load_location(run.folder)
        if place is None:
            return
        for step in run.steps:
            if not step.final:
                # The ports in these events were closed with the follower.
                run.events(step).unlink(missing_ok=True)
        with self._console.step("connect") as shown:
            # It connects here and not in the background, since the user may have to sign in or see an error.
            workspace = connect(self._settings, place, shown.detail)
            shown.text = f"workspace {place.workspace}"
        start_follower(run, workspace)

    def _adopt(self, run_id: str) -> RunRecord:
        """Make a record here for a run of the workspace that this project has not submitted."""
        from ..azureml.errors import NotFound, attempt

        with self._console.step("connect") as shown:
            workspace, place = self._connect(shown)
            service = run_service(workspace, replace(place, run_id=run_id))
            try:
                with sent_by(f"The workspace {place.workspace}"):
                    children = attempt(service.children, f"reading the run {run_id}", shown.detail)
                    if not children and (
                        name := attempt(service.single_job_name, f"reading the run {run_id}", shown.detail)
                    ):
                        place = replace(place, single=True)
                        service = run_service(workspace, replace(place, run_id=run_id), [name])
                        children = attempt(service.children, f"reading the run {run_id}", shown.detail)
                    experiment = attempt(service.experiment_name, f"reading the run {run_id}", shown.detail)
            except NotFound as error:
                raise UserError(
                    f"There is no run {run_id} here or in the workspace {place.workspace}.",
                    "List the runs: inv pipeline.list",
                ) from error
            shown.text = f"run {run_id} of the workspace {place.workspace}"
        run = store.new_run(self._settings.project, self._kind, experiment, IN_WORKSPACE)
        run.run_id = run_id
        # Each step has a folder here. Where several have one name, the last one counts, as for the follower.
        steps = {child.step: child for child in children}
        run.steps = [StepRecord(name=child.step, run_id=child.run_id) for child in steps.values()]
        records.save(run)
        save_location(run.folder, replace(place, run_id=run_id))
        start_follower(run, workspace)
        self._console.line(
            "  note: it was submitted from elsewhere, where its token and key are: it cannot be debugged from here"
        )
        return run

    def _discard(self, run: RunRecord, workspace: WorkspaceConnection) -> None:
        """Remove what a failed submission has created here, and cancel its run if it was started."""
        from ..azureml.errors import NotFound, attempt

        place = load_location(run.folder)
        if place is not None:
            service = run_service(workspace, place)
            try:
                attempt(service.cancel, "canceling what was begun", self._console.line)
            except NotFound:
                pass  # the run was not started
            except UserError as error:
                self._console.line(
                    f"  note: the run {place.run_id} may still be running ({error.problem}): {place.page}"
                )
        store.end_follower(run)
        shutil.rmtree(run.folder, ignore_errors=True)
        active_markers.remove_marker(run.folder)
