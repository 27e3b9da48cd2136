"""The background process that follows a run in a workspace: ``python -m workflows.azureml.follower FOLDER``.

It alone writes the run's record. What the workspace tells becomes what a run of this machine has: a record, logs
that grow, announcements. It owns the ports on 127.0.0.1 that lead to the nodes. Whoever wants the run to end puts a
file `cancel` into its folder.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .. import tracebacks, unexpected_errors
from ..background import log
from ..engines import reservations
from ..errors import UserError
from ..received import sent_by
from ..runs import plan as plans
from ..runs import record as records
from ..runs import store
from ..runs.record import RunRecord
from .access import RenewingAccess, read_first_access, run_sdk_process
from .announcements import StepState
from .child_run import FollowedStep
from .cloud_pipeline import ChildRun
from .errors import explain, is_transient, retry_after
from .history import RunHistory
from .node_routes import NodeRoutes
from .relay.keys import delete_key, load_key
from .relay.services import RunRelay
from .run_location import load_location
from .run_metrics import RunMetrics
from .service import ENDED, PipelineService

#: Seconds between two looks while a process that runs is waited for, while something else is, and otherwise.
NOW, SOON, LATER = 0.5, 1.0, 3.0
#: Seconds for which the workspace may fail without this giving up; the run goes on there all the same.
PATIENCE = 12 * 3600.0
_LONGEST_PAUSE = 30.0


class Follower:
    """Follows one run.

    Args:
        run: The run's record.
        service: The run in the workspace.
        token: What the gates of its steps ask for; empty where they ask for nothing.
        ways: The ways to the nodes of a step.
        here: Whether its nodes may be this machine.
        logged: Keeps what the run has logged: told whether it has ended, it says whether it has done what it can.
    """

    def __init__(
        self,
        run: RunRecord,
        service: PipelineService,
        token: str,
        ways: Callable[[StepState], NodeRoutes],
        here: bool = False,
        logged: Callable[[bool], bool] = lambda ended: True,
    ) -> None:
        self.run = run
        self._service, self._logged = service, logged
        self._canceled = False
        self._threads = ThreadPoolExecutor(max_workers=16)
        try:
            planned = {step.name: step for step in plans.load(run.folder).steps}
        except ValueError:
            planned = {}  # submitted from elsewhere
        self._steps = {
            step.name: FollowedStep(run, step, planned.get(step.name), service, token, self._threads, ways, here)
            for step in run.steps
        }

    def follow(self) -> None:
        """Until the run is over, or its folder is deleted."""
        reservations.reserve([port for step in self.run.steps for port in step.ports.values()])
        failing = 0.0
        pause = SOON
        try:
            while (self.run.folder / "run.json").exists():
                began = time.monotonic()
                try:
                    if self._look():
                        return
                    failing, pause = 0.0, self._pause()
                    self._trouble("")
                except Exception as error:
                    told = explain(error, "following the run")
                    if not is_transient(error) or not isinstance(told, UserError):
                        raise told from error
                    failing = failing or began
                    if began - failing > PATIENCE:
                        raise told from error
                    self._trouble(told.problem.rstrip("."))
                    pause = min(max(pause * 2, retry_after(error)), _LONGEST_PAUSE)
                self._rest(began + pause)
        finally:
            for step in self._steps.values():
                step.close()
            reservations.release([port for step in self.run.steps for port in step.ports.values()])

    def _look(self) -> bool:
        """One round; whether the run is over."""
        if not self._canceled and (self.run.folder / "cancel").exists():
            self._service.cancel()
            self._canceled = True
        changed = self._look_at_steps()
        if any(step.busy for step in self._steps.values()):
            self._logged(False)
        ended = all(step.record.final for step in self._steps.values())
        # Where no step runs, the run itself tells: it may have failed before one was started.
        if ended or not any(step.busy for step in self._steps.values()):
            status, reason = self._service.status()
            if status in ENDED:
                # What its last steps came to is newer than what was read of them just before.
                changed |= self._look_at_steps()
                if not any(step.busy for step in self._steps.values()) and self._logged(True):
                    self._close(ENDED[status], reason)
                    return True
            elif self.run.status == records.NOT_STARTED and status not in ("NotStarted", "Queued"):
                self.run.status, changed = records.RUNNING, True
        if changed:
            self._save()
        return False

    def _look_at_steps(self) -> bool:
        """Whether anything of the record has changed."""
        changed = False
        # Of several of one name the last counts.
        for name, child in {child.step: child for child in self._service.children()}.items():
            changed |= self._step(name, child)
        return changed

    def _step(self, name: str, child: ChildRun) -> bool:
        if name not in self._steps:
            return False
        if self.run.status == records.NOT_STARTED:
            self.run.status = records.RUNNING
        return self._steps[name].take(child, self._save)

    def _expects(self) -> bool:
        """Whether somebody may be waiting for a debugged step to say where it listens, or sees a log grow."""
        return any(step.expects for step in self._steps.values())

    def _pause(self) -> float:
        if any(step.awaited for step in self._steps.values()):
            return NOW
        return SOON if self._expects() else LATER

    def _rest(self, until: float) -> None:
        """Wait for the next round; somebody who wants the run to end is heard at once."""
        while time.monotonic() < until:
            if not self._canceled and (self.run.folder / "cancel").exists():
                return
            time.sleep(0.05)

    def _trouble(self, text: str) -> None:
        if text != self.run.trouble:
            self.run.trouble = text
            self._save()

    def _save(self) -> None:
        try:
            records.save(self.run)
        except OSError as error:
            log(f"the record cannot be written: {error}")

    def _close(self, status: str, reason: str) -> None:
        for step in self._steps.values():
            step.finish(status)
        failed = next((step.record for step in self._steps.values() if step.record.status == records.FAILED), None)
        if status == records.FAILED and failed is not None:
            reason = f"{failed.name} failed: {failed.reason}"
        elif status == records.CANCELED and not self._canceled:
            reason = "it was canceled in the workspace"
        self.run.trouble = ""
        store.close(self.run, status, reason if status != records.COMPLETED else "")


def main(folder: Path) -> int:
    """Follow the run of a folder; the exit code is for nobody but the curious."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    tracebacks.install()
    signal.signal(signal.SIGTERM, interrupt)
    store.record_runner(folder, os.getpid())
    run, place = records.load(folder), load_location(folder)
    if run is None or place is None or run.final:
        return 1
    try:
        access = RenewingAccess(read_first_access(sys.stdin.buffer), lambda: run_sdk_process(folder, "access"))
        token = folder / "token"
        with sent_by(f"The workspace {place.workspace}"):
            history = RunHistory(access)
            steps = [step.name for step in run.steps]
            service = PipelineService(
                history, place.run_id, lambda: run_sdk_process(folder, "cancel"), steps, single=place.single
            )
            secret = token.read_text() if token.exists() else ""
            key = load_key(folder) if place.reach != "network" and any(step.debugged for step in run.steps) else None
            relay = RunRelay(history, key) if key is not None else None
            reach = place.reach

            def ways(said: StepState) -> NodeRoutes:
                return NodeRoutes(reach, relay, secret, lambda node: said.keys.get(node, ()), history.set_tag)

            metrics = RunMetrics(history, place.run_id, run.metrics)
            logged: dict[str, Callable[[bool], bool]] = {"logged": metrics.update} if run.single else {}
            Follower(run, service, secret, ways, history.on_this_machine, **logged).follow()
            delete_key(folder)
    except UserError as error:
        # Whoever asks for the run next starts another one, and is told there.
        run.trouble = error.problem.rstrip(".")
        records.save(run)
        log(str(error))
        return 1
    except KeyboardInterrupt:
        return 1
    except Exception as error:
        log(tracebacks.formatted(error))
        told = unexpected_errors.explain(error, "following it", run.project)
        run.trouble = told.problem.rstrip(".") if told else "following it failed; see runner.log in the run's folder"
        records.save(run)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
