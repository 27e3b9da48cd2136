"""The story of an experiment: create, build, run, attach; later show, logs, outputs, cancel."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import engines, uses
from ..backends.base import DebugRequest
from ..console import Console
from ..errors import UserError
from ..experiments import catalog
from ..experiments.runconfig import RunConfig
from ..models import ImageRef
from ..paths import shown
from ..runs import record as records
from ..runs import store, submission
from ..runs.attachable import Attachable
from ..runs.plan import Plan, PlannedDebug, PlannedInput, PlannedStep
from ..runs.record import RunRecord
from ..settings import Settings
from .watching import StepFailed, Watching, attach, inspect_step, until_open

KIND = "experiment"
#: Seconds that a run may take to end by itself: a build takes away what it has made.
CANCEL_SECONDS = 15.0
#: Seconds between two looks at whether a run is to be canceled while its environment is built.
LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class RunOptions:
    """What was typed for a run; None for what was not.

    Attributes:
        script: The script, absolute.
        arguments: Its arguments.
        environment: Folder of a definition, absolute, or a name.
        data: Local paths by name, absolute.
        edit: Open the run configuration in the person's editor first.
    """

    script: Path | None = None
    arguments: Sequence[str] | None = None
    environment: str | None = None
    data: Mapping[str, Path] | None = None
    edit: bool = False


@dataclass
class ExperimentFlow:
    """The steps, on one project's settings.

    Attributes:
        settings: The settings.
        console: Where steps show themselves.
    """

    settings: Settings
    console: Console

    # The chain

    def create(self, name: str) -> None:
        """Make an experiment."""
        with self.console.step("create") as shown_:
            catalog.create(self.settings.project, name)
            shown_.text = f"experiment {name}"

    def submit(self, name: str, options: RunOptions, debug: DebugRequest | None) -> RunRecord:
        """Build the environment and start a run, which goes on by itself.

        Raises:
            UserError: It cannot be started. Of its processes nothing is left then; its log is kept.
        """
        from ..experiments.configure import configure, resolved_environment

        settings, console = self.settings, self.console
        catalog.require(settings.project, name)
        config = configure(settings, console, name, options)
        if debug is not None:
            from ..debugger.launch_json import check

            check(settings.project)
        engine, word = engines.choose(settings.engine)
        if word:
            console.line(f"Engine: {word}.")
        environment = resolved_environment(settings, config, name, engine.name, debugged=debug is not None)
        ranks = config.processes * config.node_count if config.distribution else 1
        ports = self._ports(debug, ranks)
        with store.submitting(settings.project):
            if debug is not None:
                self._check_session(name)
            run = store.new_run(settings.project, KIND, name, engine.name)
            run.status, run.debugged = records.PREPARING, debug is not None
            run.on_error = bool(debug and debug.on_error)
            run.command = shlex.join([config.script, *config.arguments])
            run.file = str(catalog.runconfig_path(settings.project, name))
            steps = engines.load_steps(engine.name)
            # As far as it is known: the image comes with the build.
            plan = self._plan(run, config, ImageRef(engine.name, "", ""), ports, debug, ranks)
            run.steps = submission.step_records(run, plan, steps, lambda step, rank: self._title(name, rank, ranks))
            records.save(run)
            store.note_runner(run.folder, os.getpid())
        try:
            with _canceled_from_outside(run):
                image = self._build(run, environment, engine)
                plan = self._plan(run, config, image, ports, debug, ranks)
                with console.step("run") as shown_:
                    run.status = records.NOT_STARTED
                    submission.start(run, plan)
                    shown_.text = f"run {run.run_id}: {run.command}"
        except BaseException as error:
            self._end_failed(run, error)
            raise
        return run

    def debug(self, name: str, options: RunOptions, request: DebugRequest) -> tuple[RunRecord, list[Attachable]]:
        """The whole chain; an experiment that is not there yet is made."""
        if not catalog.exists(self.settings.project, name):
            self.create(name)
        run = self.submit(name, options, request)
        try:
            found = self.tail_log(run)
            run = self.refresh(run)
            if found:
                attach(self.console, run, found)
        except StepFailed:
            raise
        except BaseException:
            self.cancel(run)
            raise
        return run, found

    def tail_log(self, run: RunRecord) -> list[Attachable]:
        """Wait until the script says where it listens."""
        return until_open(self._watching, run)

    def attach(self, run: RunRecord, found: Sequence[Attachable]) -> None:
        """Write the launch configuration of a run."""
        attach(self.console, run, found)

    # One run

    def find(self, wanted: str | None) -> RunRecord:
        """The run that is meant; the latest without a word."""
        return store.find_run(self.settings.project, KIND, wanted)

    def refresh(self, run: RunRecord) -> RunRecord:
        """What is known of a run by now."""
        return store.refresh(run)

    def cancel(self, run: RunRecord) -> RunRecord:
        """End a run at once, wherever it stands."""
        return store.cancel(run, CANCEL_SECONDS)

    def inspect(
        self, run: RunRecord, location: str, rank: int, expressions: list[str], timeout: float
    ) -> dict[str, Any]:
        """Stop at a line of the script, look, and let it go on."""
        return inspect_step(self._watching, run, location, run.steps[0], rank, expressions, timeout)

    # Parts of steps

    @property
    def _watching(self) -> Watching:
        return Watching(self.console, self.refresh, self.settings.debug_timeout)

    def _ports(self, debug: DebugRequest | None, ranks: int) -> dict[int, int]:
        if debug is None:
            return {}
        if debug.rank is not None and debug.rank >= ranks:
            has = f"ranks 0 to {ranks - 1}" if ranks > 1 else "one process only"
            raise UserError(f"There is no rank {debug.rank}: the run has {has}.", "Choose one of these: --rank N|all")
        wanted = range(ranks) if debug.rank is None else [debug.rank]
        base = submission.wanted_base(self.console, self.settings.debug_port, max(wanted) + 1)
        return {rank: base + rank for rank in wanted}

    def _check_session(self, name: str) -> None:
        """See that no other run of the experiment is being debugged."""
        for run in store.active_runs(self.settings.project, KIND):
            if run.name == name and run.debugged:
                raise UserError(
                    f"{name} is being debugged already, in its run {run.run_id}.",
                    f"Let it end, or: inv experiment.cancel --run {run.number}",
                )

    @staticmethod
    def _title(name: str, rank: int, ranks: int) -> str:
        base = f"Azure Machine Learning Experiment: {name}"
        return base if ranks == 1 else f"{base} (rank {rank})"

    def _plan(
        self,
        run: RunRecord,
        config: RunConfig,
        image: ImageRef,
        ports: Mapping[int, int],
        debug: DebugRequest | None,
        ranks: int,
    ) -> Plan:
        project = self.settings.project
        planned = None
        if debug is not None:
            planned = PlannedDebug(ports, debug.wait, self.settings.debug_timeout, debug.on_error, any_program=False)
        data = {name: PlannedInput(path=str(project / path)) for name, path in config.data.items()}
        step = PlannedStep(
            name=run.name,
            command=_command(config),
            code=str(project),
            image=image,
            inputs=data,
            variables=dict(config.variables),
            distribution=config.distribution,
            ranks=ranks,
            processes=config.processes,
            shm_size=config.shm_size,
            debug=planned,
            literal=True,
            metrics=True,
        )
        return Plan((step,))

    def _build(self, run: RunRecord, environment: Any, engine: Any) -> ImageRef:
        """Build the run's environment, or find it built; what is shown is kept with the run."""
        folder = run.folder / "azureml-logs"
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "60_control_log.txt", "a", encoding="utf-8") as log, self.console.step("build") as shown_:

            def report(line: str) -> None:
                log.write(line.rstrip() + "\n")
                log.flush()
                shown_.detail(line)

            try:
                image: ImageRef = environment.build(engine, report)
            except UserError as error:
                log.write("".join(f"{line}\n" for line in (*error.details, str(error))))
                raise
            uses.record(self.settings.project, f"{KIND} {run.name}", image.digest)
            what = image.name if engine.name == "docker" else f"environment {image.digest[:12]}"
            shown_.text = f"{what} ({'reused' if image.reused else 'built'})"
            log.write(shown_.text + "\n")
            for note in (*environment.notes, *image.notes):
                log.write(f"note: {note}\n")
        for note in (*environment.notes, *image.notes):
            self.console.line(f"  note: {note}")
        return image

    def _end_failed(self, run: RunRecord, error: BaseException) -> None:
        """Record what became of a run that did not get to its script."""
        if isinstance(error, KeyboardInterrupt):
            store.close(run, records.CANCELED, "canceled")
        else:
            reason = error.problem if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            store.close(run, records.FAILED, reason)


@contextlib.contextmanager
def _canceled_from_outside(run: RunRecord) -> Iterator[None]:
    """End this command's work where another one asks for the run's end."""
    over = threading.Event()
    came = False

    def look() -> None:
        nonlocal came
        while not over.wait(LOOK_SECONDS):
            if (run.folder / "cancel").exists():
                came = True
                # Wherever the main thread is, it takes away what it has begun.
                os.kill(os.getpid(), signal.SIGINT)
                return

    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        # As a shell's background job has it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=look, name="cancel", daemon=True)
    thread.start()
    try:
        yield
    except KeyboardInterrupt:
        if came:
            store.close(run, records.CANCELED, "canceled")
            raise UserError(
                f"The run {run.run_id} was canceled.", f"Start it again: inv experiment.run {run.name}"
            ) from None
        raise
    finally:
        over.set()
        if before is signal.SIG_IGN:
            signal.signal(signal.SIGINT, before)


def _command(config: RunConfig) -> str:
    """The text for bash; what refers to data becomes the path where the script sees it."""
    import re

    pattern = re.compile(r"\$\{\{\s*inputs\.(\w+)\s*\}\}|\$AZUREML_DATAREFERENCE_(\w+)")

    def quoted(argument: str) -> str:
        parts, at = [], 0
        for match in pattern.finditer(argument):
            name = match[1] or match[2]
            if name not in config.data:
                continue
            parts += [shlex.quote(argument[at : match.start()]) if match.start() > at else ""]
            parts += [f'"${{AZUREML_DATAREFERENCE_{name}}}"']
            at = match.end()
        if not parts:
            return shlex.quote(argument)
        return "".join([*parts, shlex.quote(argument[at:]) if at < len(argument) else ""])

    return " ".join(["python", shlex.quote(config.script), *map(quoted, config.arguments)])


def changed(config: RunConfig, options: RunOptions, project: Path) -> RunConfig:
    """A run configuration with what was typed."""
    if options.script is not None:
        config = replace(config, script=_inside(options.script, project))
    if options.arguments is not None:
        config = replace(config, arguments=tuple(options.arguments))
    if options.data:
        data = {name: os.path.relpath(path, project) for name, path in options.data.items()}
        config = replace(config, data={**config.data, **data})
    return config


def _inside(path: Path, project: Path) -> str:
    try:
        return path.relative_to(project).as_posix()
    except ValueError:
        with contextlib.suppress(ValueError):
            return path.resolve().relative_to(project.resolve()).as_posix()
    raise UserError(
        f"The script {shown(path)} is not in the project's folder {project}.",
        "Only that folder is seen by the run: move the script there.",
    )


def took(run: RunRecord) -> float:
    """Seconds from a run's start to its end, or until now."""
    return (run.ended or time.time()) - run.created
