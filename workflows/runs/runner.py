"""The background process that runs the steps of a run: ``python -m workflows.runs.runner FOLDER``.

Only this process writes the run's record. To cancel the run, other processes put a file `cancel` into its folder.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .. import byte_code, engines, tracebacks, unexpected_errors
from ..background import log, spawn
from ..debuggee import FOLDER as DEBUGGEE
from ..engines import reservations
from ..engines.step_variables import step_variables
from ..engines.steps import StepDebug, StepProcess, StepSpec
from ..engines.work_folder import RUN_FOLDERS
from ..environments.conda_variables import expand_variables
from ..errors import PortHeld, UserError
from ..models import ImageRef
from ..pipelines.expressions import Malformed, fill_in_run, substitute
from ..private import make_folder, open_file
from ..project import append_log
from ..redaction import scrub
from ..terminal import printable
from . import plan as plans
from . import record as records
from . import store, sweeps, warm_runner
from .attachable import attachables_of_step, count_expected_ranks, write_configurations
from .plan import Plan, PlannedBest, PlannedStep
from .record import RunRecord, StepRecord
from .step_specs import StepSpecs

#: How often a step is started with newly chosen ports before it fails.
_PORT_ATTEMPTS = 3
#: Seconds between two checks of the running steps.
POLL_SECONDS = 0.02
#: An output that a step need not write to: Azure ML fills it with the step's artifacts.
ARTIFACTS = "artifacts"
#: Writing the record of thousands of steps takes a while. The next write waits for this multiple of that time.
SAVE_SHARE = 10
#: Seconds to wait for all ranks of a step to listen. Then the launch configurations of those that do are written.
RANKS_SECONDS = 1.0


@dataclass
class _Running:
    """A step that has been started."""

    planned: PlannedStep
    record: StepRecord
    process: StepProcess
    #: When the first of its ranks was found to listen.
    first_listening_at: float = 0.0
    listening: set[int] = field(default_factory=set)
    configured: bool = False
    began: float = field(default_factory=time.monotonic)

    @property
    def has_timed_out(self) -> bool:
        """Whether it has run for longer than it may; a debugged step, which may stop at breakpoints, has no limit."""
        seconds = self.planned.seconds
        return bool(seconds) and self.planned.debug is None and time.monotonic() - self.began > seconds


class Runner:
    """Runs the steps of one run.

    Args:
        run: The run's record; the run has not been started.
        plan: Its plan.
    """

    def __init__(self, run: RunRecord, plan: Plan) -> None:
        self.run = run
        self._plan = plan
        self._engine = engines.load_steps(run.engine)
        self._specs = StepSpecs(run, plan, self._current_path)
        self._running: list[_Running] = []
        self._steps = {step.name: step for step in run.steps}
        self._planned = {step.name: step for step in plan.steps}
        #: Steps that have not been started or skipped yet, in the plan's order.
        self._waiting = [step for step in plan.steps if self._steps[step.name].status == records.NOT_STARTED]
        #: The sweep of each trial, by the trial's name. The run does not fail because a trial does.
        self._trials = {name: step.name for step in plan.steps if step.best is not None for name in step.best.trials}
        self._failed = any(step.status == records.FAILED and step.name not in self._trials for step in run.steps)
        self._unsaved, self._save_at = False, 0.0
        # With this descriptor the folder is found again after it was moved; that works on Linux only.
        self._folder_descriptor = os.open(run.folder, os.O_RDONLY) if os.path.isdir("/proc/self/fd") else -1
        self._rebase = (run.project, run.project)
        #: Whether a step may have become ready since the last check.
        self._changed = True
        self._slots = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def execute(self) -> None:
        """Run every step that can run, or end them all when the run is canceled."""
        self.run.status = records.RUNNING
        self._save()
        reservations.reserve(self._own_ports())
        try:
            while not self._is_canceled() and not self._start_ready_steps():
                self._poll_steps()
                if self._unsaved:
                    self._save_soon()
                time.sleep(POLL_SECONDS)
            # This also ends what steps have left in the background.
            self._end_all_steps()
            if self._is_canceled():
                store.close(self.run, records.CANCELED, "")
                return
        except KeyboardInterrupt:
            self._end_all_steps()
            store.close(self.run, records.INTERRUPTED, "its runner was ended")
            return
        except BaseException:
            self._end_all_steps()
            raise
        finally:
            reservations.release(self._own_ports())
        self._link_outputs()
        done = {name for name, sweep in self._trials.items() if self._steps[sweep].ended_well}
        failed = [step for step in self.run.steps if step.status == records.FAILED and step.name not in done]
        if failed:
            store.close(self.run, records.FAILED, f"{failed[0].name} failed: {failed[0].reason}")
        else:
            store.close(self.run, records.COMPLETED, "")

    def _is_canceled(self) -> bool:
        """Whether the run was canceled.

        Raises:
            SystemExit: The run's folder was deleted.
        """
        if not (self.run.folder / "run.json").exists() and not self._follow_move():
            self._end_all_steps()
            raise SystemExit(0)
        return (self.run.folder / "cancel").exists()

    def _follow_move(self) -> bool:
        """Continue in the run's new folder if the project was moved; returns whether it was."""
        place = Path(os.path.realpath(f"/proc/self/fd/{self._folder_descriptor}"))
        if self._folder_descriptor < 0 or not (place / "run.json").exists():
            return False
        found = records.load(place)
        if found is None:
            return False
        before, self.run.folder, self.run.project = self.run.project, place, found.project
        for step in self.run.steps:
            step.mappings = found.step(step.name).mappings
        self._rebase = (before, found.project)
        self._save()
        return True

    def _current_path(self, path: str) -> Path:
        """A path of the plan, adapted to the project's folder if that was moved."""
        before, now = self._rebase
        return now / Path(path).relative_to(before) if Path(path).is_relative_to(before) else Path(path)

    def _own_ports(self) -> frozenset[int]:
        planned = {port for step in self._plan.steps if step.debug for port in step.debug.ports.values()}
        return frozenset(planned | {port for step in self.run.steps for port in step.ports.values()})

    def _save(self) -> None:
        """Write the record. On a full disk the steps go on, and the next change is written."""
        began = time.monotonic()
        try:
            records.save(self.run)
        except OSError as error:
            log(f"the record cannot be written: {error}")
        now = time.monotonic()
        self._unsaved, self._save_at = False, now + SAVE_SHARE * (now - began)

    def _save_soon(self) -> None:
        """Write the record, or have the loop write it soon."""
        self._unsaved = True
        if time.monotonic() >= self._save_at:
            self._save()

    def _start_ready_steps(self) -> bool:
        """Start the steps that are ready, as far as there are slots; returns whether the run is over."""
        while self._changed and len(self._running) < self._slots:
            ready = self._next_ready()
            if ready is None or self._is_canceled():
                self._changed = False
            else:
                self._waiting.remove(ready)
                self._start(ready)
        return not self._running and not self._changed

    def _next_ready(self) -> PlannedStep | None:
        """The first step that can be started now, or None; steps before it that can never start are skipped."""
        gone: set[str] = set()
        found = None
        for planned in self._waiting:
            step = self._steps[planned.name]
            before = [self._steps[name] for name in planned.after]
            lost = [other.name for other in before if other.final and not other.ended_well]
            if planned.best is not None and any(not other.final or other.ended_well for other in before):
                # The sweep can complete if one trial has, once all of them are over.
                if all(other.final for other in before):
                    found = planned
                    break
                continue
            if lost:
                self._skip(step, f"{', '.join(lost)} did not complete")
            elif self._failed and not self._plan.continue_on_failure:
                self._skip(step, "another step failed, and continue_on_step_failure is false")
            elif all(other.ended_well for other in before) and not self._has_enough_trials(planned):
                found = planned
                break
            else:
                continue
            gone.add(planned.name)
        if gone:
            self._waiting = [planned for planned in self._waiting if planned.name not in gone]
            self._save_soon()
        return found

    def _has_enough_trials(self, planned: PlannedStep) -> bool:
        """Whether the step is a trial and its sweep already runs as many trials as it may."""
        sweep = self._trials.get(planned.name)
        best = self._planned[sweep].best if sweep is not None else None
        if best is None or not best.at_once:
            return False
        return sum(running.planned.name in best.trials for running in self._running) >= best.at_once

    def _skip(self, step: StepRecord, reason: str) -> None:
        step.status, step.reason = records.SKIPPED, reason

    # One step

    def _start(self, planned: PlannedStep) -> None:
        step = self._steps[planned.name]
        step.status = records.RUNNING
        step.begin()
        if planned.best is not None:
            self._take_best_trial(planned, planned.best, step)
            return
        try:
            spec = self._specs.make(planned, step, self._allot_debug_ports)
            view = self._engine.prepare_view(spec)
            step.mappings = [(str(mapping.local_root), mapping.remote_root) for mapping in view.mappings]
            if planned.debug is not None:
                # Written before the start: a process that reads the step's events needs its ports and mappings.
                self._save()
            else:
                self._save_soon()
            texts = {
                f"inputs.{name}": self._resolve_literal(entry.text)
                for name, entry in planned.inputs.items()
                if entry.text is not None
            }
            values = {**texts, **view.paths}
            command = planned.command if planned.literal else substitute(planned.command, values.get)
            variables = {
                name: value if planned.literal else substitute(value, values.get)
                for name, value in planned.variables.items()
            }
            variables = {**self._conda_variables(planned.image, variables), **variables}
            process = self._start_process(
                planned, spec, lambda spec: (command, step_variables(spec, variables, view.paths))
            )
        except (UserError, Malformed, ValueError, OSError, RuntimeError, MemoryError) as error:
            # ValueError: a NUL in a variable or in the command. RuntimeError: no thread can be started.
            step.status, self._failed = records.FAILED, True
            step.end()
            explained = (
                None if isinstance(error, Malformed) else unexpected_errors.explain(error, project=self.run.project)
            )
            if explained is None and not isinstance(error, Malformed):
                log(tracebacks.formatted(error))
            step.reason = explained.problem if explained is not None else str(error)
            self._write_to_log(planned, str(explained or error))
            self._save_soon()
            return
        self._running.append(_Running(planned, step, process))
        self._keep_code(planned)

    def _keep_code(self, planned: PlannedStep) -> None:
        """Keep the code that a step of a pipeline was started with, so that the step can run again with it."""
        if planned.code is None or self.run.single:
            return
        from .step_copies import keep_code

        try:
            keep_code(self._current_path(planned.code), self.run.step_folder(planned.name))
        except (OSError, shutil.Error) as error:
            log(f"the code of {planned.name} cannot be kept: {error}")

    def _start_process(
        self, planned: PlannedStep, spec: StepSpec, command_of: Callable[[StepSpec], tuple[str, Mapping[str, str]]]
    ) -> StepProcess:
        """Start a step, with other ports if another program has taken one since it was chosen.

        Args:
            planned: The step.
            spec: The step as the engine needs it.
            command_of: Returns the command and the variables for a spec.
        """
        for _ in range(_PORT_ATTEMPTS - 1):
            try:
                return self._engine.start_step(spec, *command_of(spec))
            except PortHeld as error:
                log(f"{error.problem} Another one is chosen.")
                spec = replace(spec, debug=self._allot_debug_ports(planned, self._steps[planned.name]))
                self._save()
        return self._engine.start_step(spec, *command_of(spec))

    def _resolve_literal(self, text: str) -> str:
        started = datetime.fromtimestamp(self.run.created, timezone.utc)
        return fill_in_run(text, self.run.run_id, started.isoformat(timespec="seconds"))

    def _take_best_trial(self, planned: PlannedStep, best: PlannedBest, step: StepRecord) -> None:
        """Complete a sweep whose trials are over: use the best one's outputs."""
        try:
            self._write_to_log(planned, sweeps.take_best_trial(self.run, step, best))
            step.status, step.exit_code = records.COMPLETED, 0
        except OSError as error:
            step.status, step.reason, self._failed = records.FAILED, str(error), True
        step.end()
        self._changed = True
        self._save_soon()

    def _conda_variables(self, image: ImageRef, named: Mapping[str, str]) -> dict[str, str]:
        """The variables of the conda file from which a step's environment is built."""
        if not image.variables:
            return {}
        known = (named, self._engine.default_variables(image), os.environ)
        return expand_variables(image.variables, *known, file=Path(image.source))

    def _allot_debug_ports(self, planned: PlannedStep, step: StepRecord) -> StepDebug | None:
        if planned.debug is None:
            return None
        from ..engines.ports import next_free_ports

        # The planned ports were free when the run was submitted, which may have been hours ago.
        others = {port for other in self._running for port in other.record.ports.values()}
        with reservations.choosing_lock():
            step.ports = next_free_ports(planned.debug.ports, frozenset(others), self._own_ports())
            reservations.reserve(step.ports.values())
        return StepDebug(
            ports=step.ports,
            wait=planned.debug.wait,
            timeout=planned.debug.timeout,
            on_error=planned.debug.on_error,
            any_program=planned.debug.any_program,
            children=planned.debug.children,
            launched=planned.debug.launched,
            summaries=planned.debug.summaries,
        )

    def _write_to_log(self, planned: PlannedStep, text: str) -> None:
        """Append a line to a step's log."""
        path = self.run.log(self._steps[planned.name], 0)
        make_folder(path.parent)
        with contextlib.suppress(OSError), open_file(path, "a", encoding="utf-8") as file:
            file.write(printable(scrub(text), lines=True) + "\n")

    # While steps run

    def _poll_steps(self) -> None:
        for running in list(self._running):
            code = running.process.poll()
            if code is None and running.has_timed_out:
                running.process.end()
                self._running.remove(running)
                self._record_end(
                    running, 124, f"it ran for longer than {running.planned.seconds} s, its `trial_timeout`"
                )
                self._changed = True
                continue
            if not running.configured and running.planned.debug is not None:
                self._write_configurations_once_listening(running, ended=code is not None)
            if code is not None:
                self._running.remove(running)
                self._record_end(running, code)
                self._changed = True

    def _write_configurations_once_listening(self, running: _Running, ended: bool) -> None:
        """Write a step's launch configurations once a debugger can attach to it."""
        listening = attachables_of_step(self.run, running.record)
        if not listening:
            return
        now = time.monotonic()
        running.first_listening_at = running.first_listening_at or now
        missing = len(listening) < count_expected_ranks(self.run, running.record)
        if missing and now - running.first_listening_at < RANKS_SECONDS and not ended:
            return
        running.configured = True
        try:
            # With on_error a debugger can only attach to the ranks that hold at an exception.
            write_configurations(self.run, listening if self.run.on_error else None)
        except (UserError, OSError) as error:
            # launch.json may just be edited; `pipeline.attach` writes it later.
            log(str(error))

    def _record_end(self, running: _Running, code: int, reason: str = "") -> None:
        step = running.record
        step.exit_code = code
        step.end()
        step.status = records.FAILED if code else records.COMPLETED
        self._failed = self._failed or bool(code and step.name not in self._trials)
        if code:
            step.reason = reason or (f"ended by signal {-code}" if code < 0 else f"exit code {code}")
        else:
            self._fill_artifacts(running.planned)
        self._save_soon()

    def _fill_artifacts(self, planned: PlannedStep) -> None:
        """Fill an output called `artifacts` with the step's outputs and logs, as Azure ML does."""
        target = self._specs.output_path(planned.name, ARTIFACTS) if planned.outputs.get(ARTIFACTS) is False else None
        if target is None or not target.is_dir() or any(target.iterdir()):
            return
        try:
            for name in RUN_FOLDERS:
                source = self.run.step_folder(planned.name) / name
                shutil.copytree(source, target / name, symlinks=True, copy_function=_link_or_copy)
        except OSError as error:
            log(f"the artifacts of {planned.name} cannot be copied: {error}")

    def _end_all_steps(self) -> None:
        for running in self._running:
            running.process.end()
        self._running.clear()
        self._engine.end_run(self.run.run_id)

    def _link_outputs(self) -> None:
        """Link the pipeline's own outputs, in the run's folder, to those of its steps."""
        for name, (step, output) in self._plan.outputs.items():
            place = self._specs.output_path(step, output)
            if place.exists():
                make_folder(self.run.folder / "outputs")
                link = self.run.folder / "outputs" / name
                if not link.is_symlink():
                    link.symlink_to(os.path.relpath(place, link.parent))


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def main(folder: Path) -> int:
    """Run the steps of the run in a folder; the exit code is not used."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    tracebacks.install()
    signal.signal(signal.SIGTERM, interrupt)
    with store.takeover_lock(folder):
        store.record_runner(folder, os.getpid())
        run = records.load(folder)
    if run is None or run.final:
        return 1
    try:
        Runner(run, plans.load(folder)).execute()
        # The next run's steps write no byte code themselves. Now no user waits for it.
        byte_code.compile_folder(Path(DEBUGGEE))
    except UserError as error:
        # The engine is gone.
        store.close(run, records.FAILED, error.problem)
        return 1
    except Exception as error:
        log(tracebacks.formatted(error))
        if not run.final:
            explained = unexpected_errors.explain(error, "the runner", run.project)
            reason = explained.problem if explained else "the runner itself failed; see runner.log in the run's folder"
            store.close(run, records.FAILED, reason)
        return 1
    return 0


def start(run: RunRecord, waiting: subprocess.Popen[bytes] | None = None) -> None:
    """Start a run's runner, which goes on when this process or its terminal ends.

    Args:
        run: The run.
        waiting: A runner that waits to be given its run.
    """
    child = waiting if waiting is not None and warm_runner.send_run(waiting, run.folder) else None
    if child is None:
        with append_log(run.folder / "runner.log") as file:
            streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": file, "stderr": file}
            child = spawn(warm_runner.MODULE, [str(run.folder)], cwd=run.folder, **streams)
    # It is meant to outlive this command. A return code avoids the warning for a process that is not waited for.
    child.returncode = 0
    store.record_runner(run.folder, child.pid)


def _wait_for_run(engine: str) -> int:
    """Load what a run needs, then run the folder that is read from standard input."""
    with contextlib.suppress(UserError):
        chosen = engines.choose(engine)[0].name
        engines.load_steps(chosen)
        if chosen == "docker":
            from ..engines.docker_client import preload

            preload()
    from ..debugger import launch_json
    from ..engines import ports

    assert launch_json and ports
    received = sys.stdin.buffer.read()
    if not received:
        return 0
    folder = Path(os.fsdecode(received))
    file = os.open(folder / "runner.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)
    os.chdir(folder)
    return main(folder)


if __name__ == "__main__":
    sys.exit(_wait_for_run(sys.argv[2]) if sys.argv[1] == "--warm" else main(Path(sys.argv[1])))
