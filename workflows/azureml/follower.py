"""The background process that follows a run in a workspace: ``python -m workflows.azureml.follower FOLDER``.

It alone writes the run's record. It keeps the same files as for a run of this machine: a record, growing logs and
events. It owns the ports on 127.0.0.1 that lead to the nodes. A file `cancel` in the run's folder asks it to cancel
the run.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
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

#: Seconds between two polls: while a running process has to announce its gate, while logs grow or a gate is expected,
#: and otherwise.
GATE_AWAITED_SECONDS, ACTIVE_SECONDS, IDLE_SECONDS = 0.5, 1.0, 3.0
#: Seconds that the workspace may fail before following is given up; the run itself goes on there.
PATIENCE = 12 * 3600.0
_LONGEST_PAUSE = 30.0


class Follower:
    """Follows one run.

    Args:
        run: The run's record.
        service: The run in the workspace.
        token: The token that the gates of its steps require; empty where they require none.
        routes: Makes the routes to the nodes of a step from its state.
        local_nodes: Whether its nodes may be this machine.
        keep_metrics: Saves what the run has logged. It is passed whether the run has ended, and returns whether it is
            done.
    """

    def __init__(
        self,
        run: RunRecord,
        service: PipelineService,
        token: str,
        routes: Callable[[StepState], NodeRoutes],
        local_nodes: bool = False,
        keep_metrics: Callable[[bool], bool] = lambda ended: True,
    ) -> None:
        self.run = run
        self._service, self._keep_metrics = service, keep_metrics
        self._canceled = False
        self._threads = ThreadPoolExecutor(max_workers=16)
        try:
            planned = {step.name: step for step in plans.load(run.folder).steps}
        except ValueError:
            planned = {}  # submitted from elsewhere
        self._steps = {
            step.name: FollowedStep(
                run, step, planned.get(step.name), service, token, self._threads, routes, local_nodes
            )
            for step in run.steps
        }

    def follow(self) -> None:
        """Follow the run until it is over or its folder is deleted."""
        reservations.reserve([port for step in self.run.steps for port in step.ports.values()])
        failing = 0.0
        pause = ACTIVE_SECONDS
        try:
            while (self.run.folder / "run.json").exists():
                began = time.monotonic()
                try:
                    if self._poll():
                        return
                    failing, pause = 0.0, self._pause()
                    self._set_trouble("")
                except Exception as error:
                    explained = explain(error, "following the run")
                    if not is_transient(error) or not isinstance(explained, UserError):
                        raise explained from error
                    failing = failing or began
                    if began - failing > PATIENCE:
                        raise explained from error
                    self._set_trouble(explained.problem.rstrip("."))
                    pause = min(max(pause * 2, retry_after(error)), _LONGEST_PAUSE)
                self._wait(began + pause)
        finally:
            for step in self._steps.values():
                step.close()
            reservations.release([port for step in self.run.steps for port in step.ports.values()])

    def _poll(self) -> bool:
        """Poll the workspace once; returns whether the run is over."""
        if not self._canceled and (self.run.folder / "cancel").exists():
            self._service.cancel()
            self._canceled = True
        changed = self._update_steps()
        if any(step.is_busy for step in self._steps.values()):
            self._keep_metrics(False)
        ended = all(step.record.final for step in self._steps.values())
        # Where no step runs, the run's own status counts: it may have failed before a step was started.
        if ended or not any(step.is_busy for step in self._steps.values()):
            status, reason = self._service.status()
            if status in ENDED:
                # The last steps may have changed since they were read above.
                changed |= self._update_steps()
                if not any(step.is_busy for step in self._steps.values()) and self._keep_metrics(True):
                    self._finish(ENDED[status], reason)
                    return True
            elif self.run.status == records.NOT_STARTED and status not in ("NotStarted", "Queued"):
                self.run.status, changed = records.RUNNING, True
        if changed:
            self._save()
        return False

    def _update_steps(self) -> bool:
        """Update every step; returns whether the record has changed."""
        changed = False
        # Where several child runs have one name, the last one counts.
        for name, child in {child.step: child for child in self._service.children()}.items():
            changed |= self._update_step(name, child)
        return changed

    def _update_step(self, name: str, child: ChildRun) -> bool:
        if name not in self._steps:
            return False
        if self.run.status == records.NOT_STARTED:
            self.run.status = records.RUNNING
        return self._steps[name].update(child, self._save)

    def _expects_change(self) -> bool:
        """Whether a step is about to announce its gate, or its log grows."""
        return any(step.expects_change for step in self._steps.values())

    def _pause(self) -> float:
        if any(step.is_awaited for step in self._steps.values()):
            return GATE_AWAITED_SECONDS
        return ACTIVE_SECONDS if self._expects_change() else IDLE_SECONDS

    def _wait(self, until: float) -> None:
        """Wait for the next poll; a request to cancel the run ends the wait."""
        while time.monotonic() < until:
            if not self._canceled and (self.run.folder / "cancel").exists():
                return
            time.sleep(0.05)

    def _set_trouble(self, text: str) -> None:
        if text != self.run.trouble:
            self.run.trouble = text
            self._save()

    def _save(self) -> None:
        try:
            records.save(self.run)
        except OSError as error:
            log(f"the record cannot be written: {error}")

    def _finish(self, status: str, reason: str) -> None:
        for step in self._steps.values():
            step.finish(status)
        failed = next((step.record for step in self._steps.values() if step.record.status == records.FAILED), None)
        if status == records.FAILED and failed is not None:
            reason = f"{failed.name} failed: {failed.reason}"
        elif status == records.CANCELED and not self._canceled:
            reason = "it was canceled in the workspace"
        self.run.trouble = ""
        store.close(self.run, status, reason if status != records.COMPLETED else "")


def cancel_job(history: RunHistory, run_id: str) -> None:
    """Ask the workspace to cancel a job of SDK v2, with the token that the run is followed with.

    Raises:
        UserError: It refuses.
        Exception: It cannot be asked now.
    """
    try:
        history.cancel_job(run_id)
    except Exception as error:
        if is_transient(error):
            raise
        raise explain(error, "canceling the run") from error


def main(folder: Path) -> int:
    """Follow the run of a folder; returns the exit code, which no program reads."""

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
            # Only SDK v1 knows how its runs are canceled.
            by_v1 = partial(run_sdk_process, folder, "cancel")
            cancel = partial(cancel_job, history, place.run_id) if place.sdk == "v2" else by_v1
            service = PipelineService(history, place.run_id, cancel, steps, single=place.single)
            secret = token.read_text() if token.exists() else ""
            key = load_key(folder) if place.reach != "network" and any(step.debugged for step in run.steps) else None
            relay = RunRelay(history, key) if key is not None else None
            reach = place.reach

            def routes(state: StepState) -> NodeRoutes:
                return NodeRoutes(reach, relay, secret, lambda node: state.keys.get(node, ()), history.set_tag)

            metrics = RunMetrics(history, place.run_id, run.metrics)
            keep_metrics: dict[str, Callable[[bool], bool]] = {"keep_metrics": metrics.update} if run.single else {}
            Follower(run, service, secret, routes, history.on_this_machine, **keep_metrics).follow()
            delete_key(folder)
    except UserError as error:
        # The next command that reads the run starts another follower, and reports the error.
        run.trouble = error.problem.rstrip(".")
        records.save(run)
        log(str(error))
        return 1
    except KeyboardInterrupt:
        return 1
    except Exception as error:
        log(tracebacks.formatted(error))
        explained = unexpected_errors.explain(error, "following it", run.project)
        run.trouble = (
            explained.problem.rstrip(".") if explained else "following it failed; see runner.log in the run's folder"
        )
        records.save(run)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
