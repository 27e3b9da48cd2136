"""The logs of a run's steps on their way to the screen."""

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

#: Seconds for which what was read of a run's record holds, at least. That of thousands of steps takes a while to be
#: read, so it holds that many times as long.
RECORD_SECONDS, RECORD_SHARE = 0.05, 10
#: Seconds between two looks at whether its runner is still there.
ALIVE_SECONDS = 0.5
#: Seconds after the end of the last step from which on it is said what is waited for.
CLOSING_SECONDS = 2.0


class _Watched:
    """A run's record, read again where it may have changed."""

    def __init__(
        self,
        refresh: Callable[[RunRecord], RunRecord],
        run: RunRecord,
        say: Callable[[str], None],
        holds: HoldLines | None,
    ) -> None:
        self._refresh, self._say = refresh, say
        self._phases, self._holds = PhaseLines(), holds
        self._asked = self._next = self._closing = 0.0
        self._see(run)

    def now(self) -> RunRecord:
        """The record as it is."""
        now = time.monotonic()
        if now - self._asked > ALIVE_SECONDS:
            self._asked = now
            self._see(self._refresh(self._run))
        elif now > self._next and not self._run.final:
            self._see(records.load(self._run.folder) or self._run)
        else:
            return self._run
        took = time.monotonic() - now
        self._next = now + took + max(RECORD_SECONDS, RECORD_SHARE * took)
        held = self._holds.new(self._run) if self._holds is not None and not self._run.final else []
        for line in (*self._phases.new(self._run), *held):
            self._say(line)
        self._see_closing(now)
        return self._run

    def step(self, name: str) -> StepRecord:
        """One of its steps as it is."""
        self.now()
        return self._steps[name]

    def _see(self, run: RunRecord) -> None:
        self._run = run
        self._steps = {step.name: step for step in run.steps}

    def _see_closing(self, now: float) -> None:
        """Say it where a run goes on although all its steps are over, as one in a workspace does for a while."""
        run = self._run
        if run.final or not run.in_workspace or not all(step.final for step in run.steps):
            return
        self._closing = self._closing or now + CLOSING_SECONDS
        if now > self._closing:
            self._closing = math.inf
            self._say("  the steps are over; the workspace has still to close the run")


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
        console: Where they go.
        refresh: What is known of the run by now.
        run: The run.
        step: Only this one's, and until it ends.
        rank: Only this rank's.
        until_held: Also end where a step holds for its debugger.
    """
    chosen = [one for one in run.steps if step in (None, one.name)]
    # Where it ends with the first that holds, its caller says so.
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

    def holds(step: StepRecord) -> bool:
        states = {one.state for one in attachable.attachables_of_step(watched.now(), step) if one.is_open}
        # One that has just opened its port is about to hold; one that has been let go holds nobody up.
        return attachable.WAITING in states and attachable.LISTENING not in states

    def over(name: str) -> bool:
        return watched.now().final or watched.step(name).final

    def stop() -> bool:
        # A run may go on after its last step, and only its own end says how it went.
        ended = watched.now().final if step is None else over(step)
        add_begun(watched.now(), everything=ended)
        return ended or (until_held and any(map(holds, going())))

    def going() -> list[StepRecord]:
        return [one for one in watched.now().steps if one.name in names and one.name not in pending and not one.final]

    def add_begun(now: RunRecord, everything: bool) -> None:
        # Nobody looks for the logs of hundreds of steps that are still to come.
        for one in now.steps if pending else ():
            if everything or now.in_workspace or one.status != records.NOT_STARTED:
                for label, path in pending.pop(one.name, ()):
                    interleaver.add(label, path, functools.partial(over, one.name))

    names = {one.name for one in chosen}
    pending: dict[str, list[tuple[str, Path]]] = {one.name: [] for one in chosen}
    for name, number, path in sources:
        label = _label(name, number, len(chosen), len(sources))
        pending[name.partition(",")[0]].append((label, path))
    interleaver = Interleaver(
        [], lambda data: write(console, data), colour=shows_colours(console.stream), terminal=console.terminal
    )
    interleaver.run(stop)


def show_logs(console: Console, logs: Sequence[tuple[int | None, Path]]) -> None:
    """Show the logs of a step's ranks as they are now."""
    sources = [(f"rank {rank}" if len(logs) > 1 else "", path, lambda: True) for rank, path in logs]
    Interleaver(sources, lambda data: write(console, data), colour=shows_colours(console.stream)).run()


def _label(step: str, rank: int | None, steps: int, sources: int) -> str:
    """What stands before a line; nothing where there is one log only."""
    if sources == 1:
        return ""
    parts = [step] if steps > 1 else []
    return ", ".join([*parts, *([f"rank {rank}"] if rank is not None else [])])
