"""What the steps of a run in a workspace go through before and while they run: queued, prepared, running."""

from __future__ import annotations

from ..runs.record import RunRecord
from ..words import in_words


class PhaseLines:
    """Says what steps in a workspace have gone through, once each phase is over."""

    def __init__(self) -> None:
        self._told: dict[str, int] = {}

    def new(self, run: RunRecord) -> list[str]:
        """A line for each phase that has ended since the last call."""
        lines = []
        for step in run.steps:
            phases = step.phases
            for index in range(self._told.get(step.name, 0), len(phases) - 1):
                word, since = phases[index]
                lines.append(f"{step.name}: {word} {in_words(phases[index + 1][1] - since)}")
            self._told[step.name] = max(0, len(phases) - 1)
        return lines
