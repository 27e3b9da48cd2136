"""The chain of steps for an experiment: create, build, run, attach; later show, logs, outputs, cancel."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .. import engines, environment_uses
from ..backends.base import DebugRequest
from ..console import Console
from ..engines import reservations
from ..engines.base import Engine
from ..environments.references import ResolvedEnvironment
from ..errors import UserError
from ..experiments import catalog
from ..experiments.runconfig import RunConfig
from ..interrupts import uninterrupted
from ..models import ImageRef
from ..paths import shown
from ..private import FOLDER, open_file
from ..project import write_bytes
from ..reading import read_bytes
from ..redaction import LineScrubber, scrub
from ..runs import active_markers, attachable, store, submission
from ..runs import record as records
from ..runs.attachable import Attachable
from ..runs.debug_ports import experiment_configuration_names
from ..runs.plan import Plan, PlannedDebug
from ..runs.record import RunRecord
from ..runs.warm_runner import waiting_runner
from ..settings import Settings
from .experiment_outputs import control_log
from .experiment_start import check_canceled, interrupt_when_canceled, record_failed_start
from .run_failures import StepFailed
from .step_inspection import StepInspection, inspect_step
from .watching import StillWaiting, Watching, attach, check_rank, launch_json, until_open

if TYPE_CHECKING:
    from ..debugger.inspect_places import Report
    from ..experiments.configure import RunOptions
    from ..experiments.run_work import Work
    from .experiment_workspace import WorkspaceRuns
    from .snapshots import Found

KIND = "experiment"
#: Seconds that a canceled run may take to end by itself, since a build removes what it has made.
CANCEL_SECONDS = 15.0
#: Seconds until the event of a debugger that has just left has been written.
LEFT_SECONDS = 3.0
#: Seconds between two looks at whether a run is to be canceled while its environment is built.
POLL_SECONDS = 0.05
#: How many runs are listed by default.
LISTED_RUNS = 10


@dataclass
class ExperimentFlow:
    """The steps for one project. Each can be used alone; `debug` chains them.

    Attributes:
        settings: The settings.
        console: Where progress is shown.
    """

    settings: Settings
    console: Console

    @functools.cached_property
    def workspace(self) -> WorkspaceRuns:
        """Runs in the workspace."""
        from .experiment_workspace import WorkspaceRuns

        return WorkspaceRuns(self.settings, self.console)

    # The chain

    def create(self, name: str) -> None:
        """Create an experiment."""
        catalog.create(self.settings.project, name)
        self._report_created(name)

    def _report_created(self, name: str) -> None:
        with self.console.step("create") as step:
            step.text = f"experiment {name}"

    def submit(self, name: str, options: RunOptions, debug: DebugRequest | None, created: bool = False) -> RunRecord:
        """Build the environment and start a run in the background, here or in the workspace.

        Args:
            name: The experiment.
            options: What was typed for the run.
            debug: How it is debugged; None if it is not.
            created: Whether the experiment was created for this run, which is reported once the run exists.

        Raises:
            UserError: It cannot be started. No process of it is left then; the build's log is kept.
        """
        catalog.require(self.settings.project, name)
        if self.settings.backend == "azureml":
            return self._submit_to_workspace(name, options, debug, created)
        with waiting_runner(self.settings.engine) as waiting:
            return self._submit(name, options, debug, waiting, created)

    def _submit_to_workspace(
        self, name: str, options: RunOptions, debug: DebugRequest | None, created: bool
    ) -> RunRecord:
        if debug is not None:
            from ..debugger.launch_json import check_launch_json

            check_launch_json(self.settings.project)
            self._check_session(name)
        with self._restore_configuration_on_failure(name, options):
            run = self.workspace.submit(name, options, debug)
        if created:
            self._report_created(name)
        return run

    def _submit(
        self,
        name: str,
        options: RunOptions,
        debug: DebugRequest | None,
        waiting: subprocess.Popen[bytes],
        created: bool,
    ) -> RunRecord:
        with self._restore_configuration_on_failure(name, options):
            run, work, engine = self._prepare_run(name, options, debug)
        if created:
            self._report_created(name)
        started = False
        try:
            with interrupt_when_canceled(run):
                image = self._build(run, work.environment, engine)
            with self.console.step("run") as step, uninterrupted():
                # From here on the runner handles a cancel.
                check_canceled(run)
                run.status = records.NOT_STARTED
                submission.start(run, self._plan(run, work, image, debug), waiting)
                started = True
                step.text = f"run {run.run_id}: {run.command}"
        except BaseException as error:
            with uninterrupted():
                if started:
                    self.cancel(run)
                else:
                    record_failed_start(run, error)
            raise
        return run

    @contextlib.contextmanager
    def _restore_configuration_on_failure(self, name: str, options: RunOptions) -> Iterator[None]:
        """Restore the run configuration if the run cannot be started."""
        path = catalog.runconfig_path(self.settings.project, name)
        folder_was, file_was = path.parent.is_dir(), path.exists()
        before = read_bytes(path) if path.is_file() else None
        try:
            yield
        except BaseException:
            if not file_was and not options.edit and not store.count_runs(self.settings.project)[name]:
                # No run used this new configuration, and its wrong values must not be used by the next command.
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
                    if not folder_was:
                        path.parent.rmdir()
            elif before is not None and not options.edit and read_bytes(path) != before:
                write_bytes(path, before)
                self.console.line(f"  note: {shown(path)} is as it was before")
            raise

    def run(self, name: str, options: RunOptions) -> RunRecord:
        """Start a run without a debugger; raises as :meth:`submit`.

        With a job file, an experiment that does not exist is created, since the file has all that it needs.
        """
        with self._create_if_missing(name) if options.job is not None else contextlib.nullcontext(False) as made:
            return self.submit(name, options, None, created=made)

    @contextlib.contextmanager
    def _create_if_missing(self, name: str) -> Iterator[bool]:
        """Create an experiment if it does not exist; the value is whether it did not.

        It is removed again if its run cannot be started.
        """
        project = self.settings.project
        made = not catalog.exists(project, name)
        if made:
            catalog.create(project, name)
        try:
            yield made
        except BaseException:
            if made and not store.count_runs(project)[name] and not catalog.runconfig_path(project, name).exists():
                catalog.remove(project, name)
            raise

    def debug(self, name: str, options: RunOptions, request: DebugRequest) -> tuple[RunRecord, list[Attachable]]:
        """Run the complete chain; an experiment that does not exist is created.

        The run is canceled on Ctrl-C and on errors such as a script that never listens.
        """
        before = launch_json(self.settings.project)
        with self._create_if_missing(name) as made:
            run = self.submit(name, options, request, created=made)
        try:
            found = self.tail_log(run)
            run = self.refresh(run)
            if found:
                self.attach(run, found, before)
        except (StepFailed, StillWaiting):
            # The node took minutes to start, and may still become reachable.
            raise
        except BaseException:
            self.cancel(run)
            raise
        return run, found

    def join(self, name: str, request: DebugRequest) -> tuple[RunRecord, list[Attachable]] | None:
        """Wait for the run in which the experiment is already being debugged; None if there is none."""
        run = self.session(name)
        if run is None or (request.rank or 0) not in run.steps[0].ports:
            return None
        self.console.line(f"The run {run.run_id} is on its way already.")
        active_markers.mark_submitted(run.folder)
        found = self.tail_log(run)
        run = self.refresh(run)
        self.attach(run, found)
        return run, found

    def tail_log(self, run: RunRecord) -> list[Attachable]:
        """Wait until a debugger can attach to the script; see :func:`~workflows.flows.watching.until_open`."""
        return until_open(self._watching, run)

    def attach(self, run: RunRecord, found: Sequence[Attachable], before: bytes | None = None) -> None:
        """Write the launch configuration of a run; see :func:`~workflows.flows.watching.attach`."""
        attach(self.console, run, found, before)

    # One run, and all of them

    def find(self, wanted: str | None) -> RunRecord:
        """Find a run by what was typed; the latest for None."""
        found = store.find_run(self.settings.project, KIND, wanted)
        return self.refresh(found) if found.in_workspace else found

    def refresh(self, run: RunRecord) -> RunRecord:
        """The current record of a run, from the backend that it runs on, whatever the settings are."""
        return self.workspace.backend.refresh(run) if run.in_workspace else store.refresh(run)

    def cancel(self, run: RunRecord) -> RunRecord:
        """Cancel a run, on whichever backend it runs."""
        return self.workspace.backend.cancel(run) if run.in_workspace else store.cancel(run, CANCEL_SECONDS)

    def workspace_details(self, run: RunRecord) -> dict[str, str]:
        """Details of a run in a workspace, by title; none for a run on this machine."""
        if not run.in_workspace:
            return {}
        from ..azureml.run_location import load_location

        place, step = load_location(run.folder), run.steps[0]
        found = {"page": place.page} if place is not None else {}
        if step.phases and not run.final:
            found["state"] = f"{step.phases[-1][0]}{f' ({step.waits_for})' if step.waits_for else ''}"
        return found

    def why_metrics_incomplete(self, run: RunRecord) -> str:
        """Why metrics of a run in a workspace are missing here; empty if they are complete."""
        if not run.in_workspace:
            return ""
        from ..azureml.run_metrics import note_path

        try:
            return note_path(run.metrics).read_text(encoding="utf-8")
        except OSError:
            return ""

    def fetch_outputs(self, run: RunRecord) -> dict[str, str]:
        """Fetch the outputs of a run in a workspace into its folder; see :meth:`.WorkspaceRuns.fetch_outputs`."""
        return self.workspace.fetch_outputs(run) if run.in_workspace else {}

    def inspect(self, run: RunRecord, look: StepInspection, tell: Report) -> dict[str, Any]:
        """Inspect the script at lines, or where it holds; see :func:`.step_inspection.inspect_step`."""
        return inspect_step(self._watching, run, replace(look, step=run.steps[0]), tell)

    def snapshots(self, run: RunRecord) -> Found:
        """The snapshots of a run's failure; those of a run in a workspace are fetched.

        Raises:
            UserError: There are none; the message has the reason.
        """
        from .snapshots import snapshots_of_run

        if run.in_workspace:
            return snapshots_of_run(run, None, self.workspace.backend.fetch_snapshots)
        return snapshots_of_run(run, None)

    def listing(self, every: bool) -> tuple[dict[str, int], list[RunRecord]]:
        """The experiments with the number of their runs, and the latest runs (or every one)."""
        project = self.settings.project
        counts = store.count_runs(project)
        names = {name: counts[name] for name in catalog.list_experiments(project)}
        return names, store.latest_runs(project, KIND, names, None if every else LISTED_RUNS)

    # Parts of steps

    @property
    def _watching(self) -> Watching:
        return Watching(self.console, self.refresh, self.settings.debug_timeout)

    def _prepare_run(
        self, name: str, options: RunOptions, debug: DebugRequest | None
    ) -> tuple[RunRecord, Work, Engine]:
        """Create a run whose environment is still to be built, with this process as its runner."""
        project = self.settings.project

        def same(run: RunRecord) -> bool:
            return run.name == name and run.debugged == (debug is not None)

        store.replace_abandoned(project, KIND, same, self.console.line, CANCEL_SECONDS)
        if debug is not None:
            # Checked early, before anything takes time, and again under the lock.
            self._check_session(name)
        work, engine = self._work(name, options, debug)
        with store.submission_lock(project):
            if debug is not None:
                self._check_session(name)
            run = store.new_run(project, KIND, name, engine.name)
            ports: dict[int, int] = {}
            try:
                run.status, run.debugged = records.PREPARING, debug is not None
                run.on_error = bool(debug and debug.on_error)
                run.command, run.file, run.options = work.shown, str(work.file), work.options
                # The image is only known after the build.
                ports = self._ports(work, debug)
                plan = self._plan(run, work, ImageRef(engine.name, "", ""), debug, ports)
                names = experiment_configuration_names(work.step.ranks, ports)
                run.steps = submission.step_records(run, plan, engines.load_steps(engine.name), names)
                (run.folder / "azureml-logs").mkdir(FOLDER)
                store.record_runner(run.folder, os.getpid())
                records.save(run)
                catalog.record_run(project, name, run.run_id if debug is not None else None)
            except BaseException:
                with uninterrupted():
                    reservations.release(ports.values())
                    submission.discard(run)
                raise
        return run, work, engine

    def _work(self, name: str, options: RunOptions, debug: DebugRequest | None) -> tuple[Work, Engine]:
        """What the run executes, and the engine for it."""
        from ..experiments import run_work
        from ..experiments.configure import command, configure
        from ..experiments.environments import resolved_environment, with_registered_environment
        from ..experiments.workspace_data import fetch_data

        settings, console = self.settings, self.console
        if options.job is not None:
            engine = self._engine()
            made = run_work.work_of_job(settings, console, options.job, dict(options.inputs), engine.name)
            for note in made.notes:
                console.line(f"  note: {note}")
            self._check_debug(debug, made.processes)
            return made, engine
        config = configure(settings, console, name, options)
        self._check_debug(debug, run_work.processes(config.distribution, rank_count(config), command(config)))
        engine = self._engine()
        config = with_registered_environment(settings, console, config)
        environment = resolved_environment(settings, config, name, engine.name)
        config = replace(config, data=fetch_data(settings, console, config.data))
        path = catalog.runconfig_path(settings.project, name)
        return run_work.work_of_configuration(settings.project, config, path, environment, rank_count(config)), engine

    def _engine(self) -> Engine:
        engine, word = engines.choose(self.settings.engine)
        if word:
            self.console.line(f"Engine: {word}.")
        return engine

    def _check_debug(self, debug: DebugRequest | None, ranks: int) -> None:
        if debug is not None:
            from ..debugger.launch_json import check_launch_json

            check_rank(debug.rank, ranks, "the run has")
            check_launch_json(self.settings.project)

    def _check_session(self, name: str) -> None:
        """Check that no other run of the experiment is being debugged."""
        run = self.session(name)
        if run is not None and not self._debugger_has_left(run):
            raise UserError(
                f"{name} is being debugged already, in its run {run.run_id}.",
                f"Let it end, or: inv experiment.cancel --run {run.number}",
            )

    def _debugger_has_left(self, run: RunRecord) -> bool:
        """Whether a run's debugger has left it, as after an inspection, so that the run ends by itself.

        The debuggee reports that a moment after it has happened.
        """
        deadline = time.monotonic() + LEFT_SECONDS
        while time.monotonic() < deadline:
            now = records.load(run.folder) or run
            if now.final:
                return True
            found = attachable.attachables_of_run(now)
            states = {one.state for one in found}
            if states == {attachable.DETACHED} and len(found) == attachable.count_expected_ranks(now, now.steps[0]):
                return True
            if attachable.ATTACHED not in states:
                return False
            time.sleep(POLL_SECONDS)
        return False

    def session(self, name: str) -> RunRecord | None:
        """The run in which an experiment is being debugged; None if there is none."""
        run_id = catalog.debugged_run_id(self.settings.project, name)
        run = records.load(store.runs_folder(self.settings.project) / run_id) if run_id else None
        if run is None or run.final:
            return None
        run = store.check_interrupted(run)
        return None if run.final else run

    def _ports(self, work: Work, debug: DebugRequest | None) -> dict[int, int]:
        """Choose and reserve debug ports by rank, each base + rank; the run's runner takes the reservation over."""
        if debug is None:
            return {}
        from ..pipelines.commands import published_port

        ranks = work.processes
        wanted = range(ranks) if debug.rank is None else [debug.rank] if ranks > 1 else [0]
        with reservations.choosing_lock():
            port = published_port(work.step.command) or self.settings.debug_port
            base = submission.wanted_base(self.console, port, max(wanted) + 1)
            chosen = {rank: base + rank for rank in wanted}
            reservations.reserve(chosen.values(), handover=True)
        return chosen

    def _plan(
        self,
        run: RunRecord,
        work: Work,
        image: ImageRef,
        debug: DebugRequest | None,
        ports: Mapping[int, int] | None = None,
    ) -> Plan:
        planned = None
        if debug is not None:
            allotted = run.steps[0].ports if ports is None else ports
            planned = PlannedDebug(
                allotted,
                debug.wait,
                self.settings.debug_timeout,
                debug.on_error,
                any_program=False,
                children=debug.children,
                launched=debug.launched,
                summaries=self.settings.describes_values,
            )
        return Plan(
            (work.planned(run.name, image, planned),),
            snapshots=self.settings.leaves_snapshots,
            redact=self.settings.snapshot_redact or "",
        )

    def _build(self, run: RunRecord, environment: ResolvedEnvironment, engine: Engine) -> ImageRef:
        """Build the run's environment if necessary; the output is also written to the run's control log."""
        notes: tuple[str, ...] = environment.notes
        with open_file(control_log(run), "a", encoding="utf-8") as log, self.console.step("build") as step:
            scrub_line = LineScrubber()

            def report(line: str) -> None:
                clean = scrub_line(line.rstrip())
                log.write(clean + "\n")
                log.flush()
                step.detail_sometimes(clean)

            try:
                image = environment.build(engine, report, debugged=run.debugged)
            except UserError as error:
                log.write(scrub("".join(f"{line}\n" for line in (*error.details, str(error)))))
                raise
            except KeyboardInterrupt:
                log.write("ended before it was built\n")
                raise
            debugged = " debug" if run.debugged else ""
            environment_uses.record_use(
                self.settings.project, f"{KIND} {run.name} {engine.name}{debugged}", image.digest
            )
            what = image.name if engine.name == "docker" else f"environment {image.digest[:12]}"
            step.text = f"{what} ({'reused' if image.reused else 'built'})"
            notes = (*notes, *image.notes)
            log.write(scrub("".join(f"{line}\n" for line in (step.text, *(f"note: {note}" for note in notes)))))
        for note in notes:
            self.console.line(f"  note: {note}")
        return image


def rank_count(config: RunConfig) -> int:
    """How many processes a run with a configuration has, on all nodes together."""
    return config.processes * config.node_count if config.distribution else 1


def run_seconds(run: RunRecord) -> float:
    """Seconds from a run's start to its end, or until now."""
    return run.seconds
