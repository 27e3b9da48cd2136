"""Streams the logs of a run's steps to the screen."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ..console import Console
from ..flows.phases import HoldLines, PhaseLines
from ..logs.interleave import Interleaver, shows_colours
from ..runs import attachable
from ..runs import record as records
from ..runs.record import RunRecord, StepRecord
from ._log_output import write

#: The least seconds between two reads of a run's record. A record of thousands of steps takes long to read, so the
#: pause is also at least this many times as long as reading took.
RECORD_SECONDS, RECORD_SHARE = 0.05, 10
#: Seconds between two checks whether the run's background process is alive.
ALIVE_SECONDS = 0.5
#: Seconds after the end of the last step after which the program says what it is waiting for.
CLOSING_SECONDS = 2.0


class _Watched:
    """A run's record, which is read again when it may have changed."""

    def __init__(
        self,
        refresh: Callable[[RunRecord], RunRecord],
        run: RunRecord,
        print_line: Callable[[str], None],
        is_waiting: HoldLines | None,
    ) -> None:
        self._refresh, self._print_line = refresh, print_line
        self._phases, self._holds = PhaseLines(), is_waiting
        self._asked = self._next = self._closing = 0.0
        self._update(run)

    def now(self) -> RunRecord:
        """The current record."""
        now = time.monotonic()
        if now - self._asked > ALIVE_SECONDS:
            self._asked = now
            self._update(self._refresh(self._run))
        elif now > self._next and not self._run.final:
            self._update(records.load(self._run.folder) or self._run)
        else:
            return self._run
        took = time.monotonic() - now
        self._next = now + took + max(RECORD_SECONDS, RECORD_SHARE * took)
        held = self._holds.new(self._run) if self._holds is not None and not self._run.final else []
        for line in (*self._phases.new(self._run), *held):
            self._print_line(line)
        self._report_closing(now)
        return self._run

    def step(self, name: str) -> StepRecord:
        """One of its steps in the current record."""
        self.now()
        return self._steps[name]

    def _update(self, run: RunRecord) -> None:
        self._run = run
        self._steps = {step.name: step for step in run.steps}

    def _report_closing(self, now: float) -> None:
        """Say so if a run goes on although all its steps have ended, as a workspace's run does for a while."""
        run = self._run
        if run.final or not run.in_workspace or not all(step.final for step in run.steps):
            return
        self._closing = self._closing or now + CLOSING_SECONDS
        if now > self._closing:
            self._closing = math.inf
            self._print_line("  the steps are over; the workspace has still to close the run")


def stream_run(
    console: Console,
    refresh: Callable[[RunRecord], RunRecord],
    run: RunRecord,
    step: str | None = None,
    rank: int | None = None,
    until_held: bool = False,
) -> None:
    """Stream the logs of a run's steps until it ends.

    Args:
        console: Where to write them.
        refresh: Returns the current record of the run.
        run: The run.
        step: If given, stream only this step's log, until the step ends.
        rank: If given, stream only this rank's log.
        until_held: Whether to end as soon as a step waits for its debugger, too.
    """
    chosen = [one for one in run.steps if step in (None, one.name)]
    # If streaming ends with the first waiting step, the caller names the step.
    holding = None if until_held else HoldLines({one.name for one in chosen})
    watched = _Watched(refresh, run, console.line, holding)
    sources = [
        (one.name, number, path)
        for one in chosen
        for number, path in run.logs(one)
        if rank is None or rank == (number or 0)
    ]
    if run.in_workspace and rank is None:
        sources += [(f"{one.name}, image", None, run.build_log(one)) for one in chosen]

    def is_waiting(step: StepRecord) -> bool:
        states = {one.state for one in attachable.attachables_of_step(watched.now(), step) if one.is_open}
        # A rank that has only opened its port will wait in a moment. One that was released does not count.
        return attachable.WAITING in states and attachable.LISTENING not in states

    def has_ended(name: str) -> bool:
        return watched.now().final or watched.step(name).final

    def should_stop() -> bool:
        # A run may go on after its last step, and its result is known only when it ends.
        ended = watched.now().final if step is None else has_ended(step)
        add_started(watched.now(), everything=ended)
        return ended or (until_held and any(map(is_waiting, running_steps())))

    def running_steps() -> list[StepRecord]:
        return [one for one in watched.now().steps if one.name in names and one.name not in pending and not one.final]

    def add_started(now: RunRecord, everything: bool) -> None:
        # Logs of steps that have not started yet are not polled; there may be hundreds.
        for one in now.steps if pending else ():
            if everything or now.in_workspace or one.status != records.NOT_STARTED:
                for label, path in pending.pop(one.name, ()):
                    interleaver.add(label, path, functools.partial(has_ended, one.name))

    names = {one.name for one in chosen}
    pending: dict[str, list[tuple[str, Path]]] = {one.name: [] for one in chosen}
    for name, number, path in sources:
        label = _label(name, number, len(chosen), len(sources))
        pending[name.partition(",")[0]].append((label, path))
    interleaver = Interleaver(
        [], lambda data: write(console, data), colour=shows_colours(console.stream), terminal=console.terminal
    )
    interleaver.run(should_stop)


def show_logs(console: Console, logs: Sequence[tuple[int | None, Path]]) -> None:
    """Show the current logs of a step's ranks."""
    sources = [(f"rank {rank}" if len(logs) > 1 else "", path, lambda: True) for rank, path in logs]
    Interleaver(sources, lambda data: write(console, data), colour=shows_colours(console.stream)).run()


def _label(step: str, rank: int | None, steps: int, sources: int) -> str:
    """The prefix of a log's lines; empty if there is only one log."""
    if sources == 1:
        return ""
    parts = [step] if steps > 1 else []
    return ", ".join([*parts, *([f"rank {rank}"] if rank is not None else [])])
