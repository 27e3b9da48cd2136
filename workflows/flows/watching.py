"""What pipelines and experiments share for runs with a debugger: waiting for the debug port, and attaching."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import report, storage
from ..console import Console, Step
from ..errors import UserError
from ..reading import read_bytes
from ..runs import attachable
from ..runs import record as records
from ..runs.attachable import Attachable
from ..runs.record import RunRecord, StepRecord
from .phases import PhaseLines
from .run_failures import log_command, rerun_command, step_failed

#: Seconds between two reads of the step's events, which are a small local file.
POLL_SECONDS = 0.01
#: Seconds between two checks whether the run still goes on.
ALIVE_SECONDS = 0.25
#: The least time that a step may be silent, in seconds, even if it does not wait for a debugger.
LEAST_LIMIT = 5
#: Seconds that a step may be queued and prepared in a workspace, where nodes are started and images built.
QUEUE_LIMIT = 3600
#: The text for a run that completed without starting a Python script of its own.
NOTHING = "there was nothing to debug"
#: Seconds that a step may take to end after its script has.
ENDING_SECONDS = 2.0


@dataclass(frozen=True)
class Watching:
    """How a run is watched.

    Attributes:
        console: Where progress is shown.
        refresh: Returns the current record of a run.
        limit: Seconds that a program waits for a debugger.
        patience: Seconds that a step may be silent, if that is longer than ``limit``.
        patient: Whether to go on waiting for a step while another one holds for its debugger.
    """

    console: Console
    refresh: Callable[[RunRecord], RunRecord]
    limit: int
    patience: int = 0
    patient: bool = False


def until_open(watching: Watching, run: RunRecord, only: str | None = None) -> list[Attachable]:
    """Wait until a debugger can attach to a step.

    Args:
        watching: How to watch.
        run: The run.
        only: Wait for this step.

    Returns:
        Every debugged rank of that step. Empty if the run ended without an exception under ``--on-error``, or no step
        has started Python.

    Raises:
        UserError: A step failed, the run is over, or no step listened in time.
    """
    with watching.console.step("tail-log") as shown:
        found = Watch(watching, run, only).until_open(shown)
        shown.text = summary(found, watching.limit) if found else "no step raised" if run.on_error else NOTHING
    return found


def launch_json(project: Path) -> bytes:
    """The content of launch.json; empty if it cannot be read, which is reported when it is written."""
    try:
        return read_bytes(project / ".vscode" / "launch.json")
    except OSError:
        return b""


def attach(console: Console, run: RunRecord, found: Sequence[Attachable], before: bytes | None = None) -> None:
    """Write the launch configurations of a run; with ``--on-error`` only those of the ranks that hold.

    Args:
        console: Where progress is shown.
        run: The run.
        found: The ranks that a debugger can attach to.
        before: The content of launch.json when the command began. The run's runner writes the file as well, so only
            this tells what has changed.
    """
    from ..debugger.launch_json import changed_since

    with console.step("attach") as shown:
        outcome = attachable.write_configurations(run, found if run.on_error else None)
        if before is not None:
            names = [one.configuration for one in found]
            outcome = changed_since(before, launch_json(run.project), names)
        shown.text = f".vscode/launch.json {outcome}"
        if report.is_wanted():
            shown.hidden = True
            report.wait_until_done()


class StillWaiting(UserError):
    """No debugger can attach to a step yet, but perhaps later: its run goes on."""


class Watch:
    """Waits for a step that a debugger can attach to."""

    def __init__(self, watching: Watching, run: RunRecord, only: str | None = None, rank: int | None = None) -> None:
        self._watching = watching
        self._run = run
        self._limit = max(watching.limit, watching.patience, LEAST_LIMIT)
        self._phases = PhaseLines()
        self._builds: dict[str, int] = {}
        self._only = only
        self._rank = rank
        self._silent: set[str] = set()
        self._disks: dict[str, storage.DiskWatch] = {}
        self._queued: dict[str, tuple[float, float]] = {}

    def until_open(self, shown: Step) -> list[Attachable]:
        """Wait until there is one; see :func:`until_open`."""
        looked = 0.0
        while True:
            fresh = records.load(self._run.folder)
            if fresh is not None:
                self._run = fresh
            for line in self._phases.new(self._run):
                self._watching.console.line(f"  {line}")
            self._show_builds(shown)
            for step in self._steps():
                if found := self._attachable_ranks(step):
                    return found
            self._check(shown)
            if time.monotonic() - looked > ALIVE_SECONDS:
                self._run = self._watching.refresh(self._run)
                looked = time.monotonic()
                if self._run.final:
                    return self._handle_end()
            shown.report_wait(self._reason())
            time.sleep(POLL_SECONDS)

    def _show_builds(self, shown: Step) -> None:
        """Show new lines of the logs of images that are being built."""
        for step in self._run.steps if self._run.in_workspace else ():
            path = self._run.build_log(step)
            if step.final or not path.exists():
                continue
            with open(path, "rb") as file:
                file.seek(self._builds.get(step.name, 0))
                whole = file.read().rpartition(b"\n")
            self._builds[step.name] = self._builds.get(step.name, 0) + len(whole[0]) + len(whole[1])
            for line in whole[0].decode("utf-8", "replace").splitlines():
                shown.detail(f"{step.name}: {line}")

    def until_next(self, seconds: float) -> list[Attachable]:
        """Wait for the next script of the step, after one has ended; empty if none starts in time."""
        assert self._only is not None
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._run = self._watching.refresh(self._run)
            step = self._run.step(self._only)
            if step.final:
                break
            found = [
                one for one in self._attachable_ranks(step) if one.state in (attachable.WAITING, attachable.LISTENING)
            ]
            if found:
                return found
            time.sleep(POLL_SECONDS)
        return []

    def _steps(self) -> list[StepRecord]:
        return [
            step
            for step in self._run.steps
            if step.debugged and self._only in (None, step.name) and step.status == records.RUNNING
        ]

    def _attachable_ranks(self, step: StepRecord) -> list[Attachable]:
        """Every debugged rank of a step once it is settled which of them a debugger can attach to."""
        found = attachable.attachables_of_step(self._run, step)
        if self._rank is not None:
            found = [one for one in found if (one.rank or 0) == self._rank]
            expected = 1
        else:
            # With --on-error one rank is enough: the others may go on, or wait for it.
            expected = 1 if self._run.on_error else attachable.count_expected_ranks(self._run, step)
        # A rank that has just opened its port and has to hold will do so in a moment.
        settled = [one for one in found if one.state != attachable.LISTENING or not self._holds(one)]
        if len(settled) < expected:
            return []
        usable = [one for one in settled if one.state not in (attachable.CLOSED, attachable.OUT_OF_REACH)]
        if not usable and settled[0].state == attachable.OUT_OF_REACH:
            error = settled[0].error or {}
            raise StillWaiting(str(error.get("message")), str(error.get("remedy")))
        if not usable:
            message = (settled[0].error or {}).get("message", "it does not say why")
            remedy = "Free the port or choose another: --debug-port 0."
            if "debugpy" in str(message):
                remedy = "Add debugpy to the step's environment."
            raise UserError(f"No debugger can attach to {step.name}: {message}.", remedy)
        return usable

    def _holds(self, one: Attachable) -> bool:
        """Whether a rank that listens is about to hold; then its `waiting` event counts."""
        return one.step.name in self._holding

    @property
    def _holding(self) -> set[str]:
        from ..runs import plan

        if not hasattr(self, "_known"):
            planned = plan.load(self._run.folder).steps
            self._known = {step.name for step in planned if step.debug and step.debug.wait}
        return self._known

    def _check(self, shown: Step) -> None:
        """Raise an error if nothing to attach to can come any more."""
        run = self._run
        for step in run.steps:
            if not step.debugged or self._only not in (None, step.name):
                continue
            if step.status == records.COMPLETED and not run.on_error and step.name not in self._silent:
                self._silent.add(step.name)
                if self._only:
                    raise UserError(*self._nothing_to_attach_error(step))
                if not attachable.attachables_of_step(run, step):
                    # For example a step that only fetches data. Go on waiting for the next step.
                    note = f"{step.name} has started no Python script of its own, so nothing was debugged in it"
                    self._watching.console.line(f"  note: {note}")
            if step.status == records.RUNNING and not run.in_workspace:
                self._check_disk(step)
            silent = step.status == records.RUNNING and step.seconds > self._limit
            if silent and not run.on_error and not attachable.attachables_of_step(run, step):
                raise UserError(
                    f"{step.name} has been running for {self._limit} s and has not started a Python script of its own.",
                    f"See its log ({log_command(run, step.name)}), or allow it more time: --debug-timeout 1800.",
                )
        for step in run.steps:
            if step.status == records.PREPARING and self._seconds_preparing(step) > max(QUEUE_LIMIT, self._limit):
                why = f" ({step.waits_for})" if step.waits_for else ""
                raise StillWaiting(
                    f"{step.name} has been {step.phases[-1][0]} for {QUEUE_LIMIT // 60} min{why}.",
                    "Check its compute in the studio; when it has nodes the run goes on, then: "
                    f"inv pipeline.attach --run {run.number}",
                )
        waited = [step for step in run.steps if step.debugged and self._only in (None, step.name)]
        if not waited and run.in_workspace and not run.file:
            raise UserError(
                f"The run {run.run_id} was submitted from elsewhere, where its token and key are.",
                "Attach there; from here it can be followed (inv pipeline.tail-log --follow) and cancelled.",
            )
        if not waited:
            raise UserError(
                f"Nothing is debugged in the run {run.run_id}.", f"Submit it with a debugger: {rerun_command(run)}"
            )
        if all(step.final for step in waited):
            self._raise_final(waited)
        if self._only and not self._watching.patient:
            self._check_others(run)

    def _seconds_preparing(self, step: StepRecord) -> float:
        """Seconds for which a step has been prepared, unaffected by corrections of the clock while it is watched."""
        now = time.monotonic()
        first, before = self._queued.setdefault(step.name, (now, max(0.0, time.time() - step.phases[0][1])))
        return now - first + before

    def _check_disk(self, step: StepRecord) -> None:
        """Raise an error if the disk is too full for a step to write its events."""
        folder = self._run.events(step).parent
        short = self._disks.setdefault(step.name, storage.DiskWatch(folder)).shortage()
        if short is not None:
            raise UserError(f"{step.name} runs, but cannot announce where it listens: {short.problem}", short.remedy)

    def _check_others(self, run: RunRecord) -> None:
        """Raise an error if another step holds for a debugger, so that the wanted one cannot start."""
        assert self._only is not None
        if run.step(self._only).status != records.NOT_STARTED:
            return
        for step in run.steps:
            running = step.name != self._only and step.status == records.RUNNING
            if running and any(one.state == attachable.WAITING for one in attachable.attachables_of_step(run, step)):
                raise UserError(
                    f"{step.name} holds for its debugger, so {self._only} has not started.",
                    f"Attach to {step.name} and let it go on, or: {rerun_command(run, self._only)}",
                )

    def _nothing_to_attach_error(self, step: StepRecord) -> tuple[str, str]:
        if attachable.attachables_of_step(self._run, step):
            return (
                f"{step.name} has completed already.",
                f"Submit it again: {rerun_command(self._run, step.name)}",
            )
        return (
            f"{step.name} has completed without starting a Python script that could be debugged.",
            "Its command must start python with a script, or -m with a module, of its code folder.",
        )

    def _raise_final(self, waited: Sequence[StepRecord]) -> None:
        failed = next((step for step in self._run.steps if step.status == records.FAILED), None)
        if failed is not None:
            raise step_failed(self._run, failed)
        step = waited[-1]
        if step.status in (records.CANCELED, records.INTERRUPTED) and not step.started:
            # The run was canceled or interrupted before the step was started.
            raise self._run_over_error(step.status, step.reason)
        if self._run.on_error and step.status == records.COMPLETED:
            return
        if step.status == records.COMPLETED:
            if not self._only and self._nothing_to_debug():
                return  # the end of the run is still to come
            raise UserError(*self._nothing_to_attach_error(step))
        raise UserError(
            f"{step.name} is over: {step.status}{', ' + step.reason if step.reason else ''}.",
            f"Submit it again: {rerun_command(self._run)}",
        )

    def _handle_end(self) -> list[Attachable]:
        """Nothing to attach to, if that is right for a run that is over; otherwise the error."""
        run = self._run
        if run.status == records.COMPLETED and (run.on_error or (not self._only and self._nothing_to_debug())):
            return []
        failed = next((step for step in run.steps if step.status == records.FAILED), None)
        if failed is not None:
            raise step_failed(run, failed)
        raise self._run_over_error(run.status, run.reason)

    def _nothing_to_debug(self) -> bool:
        """Whether no step has started a Python script of its own."""
        return not any(attachable.attachables_of_step(self._run, step) for step in self._run.steps if step.debugged)

    def _run_over_error(self, status: str, reason: str) -> UserError:
        """The error for a run that has ended otherwise than by completing or failing."""
        return UserError(
            f"The run {self._run.run_id} is over: {status}{', ' + reason if reason else ''}.",
            f"Submit it again: {rerun_command(self._run)}",
        )

    def _reason(self) -> str:
        if self._run.trouble:
            return f"the workspace: {self._run.trouble}"
        underway = [step for step in self._run.steps if step.phases and not step.final]
        if underway and not any(step.status == records.RUNNING for step in underway):
            return ", ".join(
                f"{step.name}, which is {step.phases[-1][0]}{f' ({step.waits_for})' if step.waits_for else ''}"
                for step in underway
            )
        running = [
            f"{step.name} ({step.waits_for})" if step.waits_for else step.name
            for step in self._run.steps
            if step.status == records.RUNNING
        ]
        wanted = self._only or "a debugged step"
        if self._run.on_error:
            return f"an exception, or the end of the run; {', '.join(running) or 'nothing'} is running"
        if running:
            return f"{wanted} to say where it listens; {', '.join(running)} is running"
        return f"{wanted} to be started"


def check_rank(rank: int | None, most: int, which: str) -> None:
    """Check that a rank exists.

    Args:
        rank: The rank that is to be debugged; None for all.
        most: How many there are.
        which: The beginning of the message, such as "the run has".

    Raises:
        UserError: There is no such rank.
    """
    from ..pipelines.commands import MOST_UNKNOWN_RANKS

    # If the launcher's number of processes is not known, there may be more than the assumed ones.
    if rank and rank >= most != MOST_UNKNOWN_RANKS:
        has = f"ranks 0 to {most - 1}" if most > 1 else "one process only"
        raise UserError(f"There is no rank {rank}: {which} {has}.", "Choose one of these: --rank N|all")


def summary(found: Sequence[Attachable], timeout: int) -> str:
    """One line about the ranks that a debugger can attach to."""
    first = found[0]
    name = first.step.name if first.rank is None else f"{first.step.name}, rank {first.rank}"
    where = first.address
    others = len(found) - 1
    more = f" and {others} more rank{'s' if others > 1 else ''}" if others else ""
    holds, runs = ("hold", "run") if others else ("holds", "runs")
    if first.state == attachable.WAITING:
        if first.error is not None:
            child = "" if first.child_pid is None else f" in its child process {first.child_pid}"
            return f"{name}{more} {holds}{child} at {first.error_text}, for a debugger on {where}, up to {timeout} s"
        return f"{name}{more} {holds} for a debugger on {where}, up to {timeout} s"
    if first.state == attachable.NOT_ATTACHED:
        return f"{name}{more} went on, no debugger came in time; one is still welcome on {where}"
    return f"{name}{more} {runs}, debugger welcome on {where}"
