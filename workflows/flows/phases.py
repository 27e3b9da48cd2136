"""Lines about the phases of steps: queued, prepared and running, and holding for a debugger."""

from __future__ import annotations

from collections.abc import Collection

from ..formatting import format_duration
from ..runs import attachable, record
from ..runs.attachable import Attachable
from ..runs.record import RunRecord


class PhaseLines:
    """Makes lines about the phases of steps in a workspace, once each phase is over."""

    def __init__(self) -> None:
        self._reported: dict[str, int] = {}

    def new(self, run: RunRecord) -> list[str]:
        """A line for each phase that has ended since the last call."""
        lines = []
        for step in run.steps:
            phases = step.phases
            for index in range(self._reported.get(step.name, 0), len(phases) - 1):
                word, since = phases[index]
                lines.append(f"{step.name}: {word} {format_duration(phases[index + 1][1] - since)}")
            self._reported[step.name] = max(0, len(phases) - 1)
        return lines


class HoldLines:
    """Makes lines about steps that hold for a debugger, since their logs do not show that.

    Args:
        names: The steps to report on.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._reported: dict[tuple[str, int], str] = {}

    def new(self, run: RunRecord) -> list[str]:
        """A line for each step, or rank of one, that has begun or ended to hold since the last call."""
        lines = []
        for step in run.steps:
            if step.name not in self._names or not step.ports or step.status != record.RUNNING:
                continue
            for one in attachable.attachables_of_step(run, step):
                key = (step.name, one.rank or 0)
                before = self._reported.get(key)
                if one.state != before and (text := _of_hold(one, before)):
                    lines.append(f"{step.name}{'' if one.rank is None else f', rank {one.rank}'} {text}")
                self._reported[key] = one.state
        return lines


def _of_hold(one: Attachable, before: str | None) -> str:
    if one.state == attachable.WAITING:
        at = f"at {one.error_text}, " if one.error_text else ""
        limit = f", up to {one.limit:g} s" if one.limit is not None else ""
        which = f" --step {one.step.name}" if not one.run.single else ""
        rank = f" --rank {one.rank}" if one.rank is not None else ""
        return (
            f"holds {at}for a debugger on {one.address}{limit}: F5 in VS Code ({one.configuration}), or "
            f"inv {one.run.kind}.inspect FILE:LINE --run {one.run.number}{which}{rank}"
        )
    if one.state == attachable.NOT_ATTACHED:
        return "goes on, no debugger came in time"
    if one.state == attachable.ATTACHED:
        return f"has a debugger on {one.address}; while that has paused it, nothing comes"
    if one.state == attachable.DETACHED and before == attachable.ATTACHED:
        return "goes on without a debugger"
    return ""
