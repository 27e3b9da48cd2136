"""The protocol of a backend, where pipelines run. One contract test covers all backends."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..errors import UserError
from ..pipelines.definition import Pipeline, Step
from ..runs.record import RunRecord, StepRecord

if TYPE_CHECKING:
    from ..flows.pipeline import Wanted


@dataclass(frozen=True)
class DebugRequest:
    """What is to be debugged.

    Attributes:
        steps: Names of the steps; empty for all.
        rank: The rank of a distributed step to debug; None for all ranks.
        on_error: Whether to stop only when a step raises an exception.
        wait: Whether to hold before a script's first line.
        open_port: In a workspace: whether a step's port accepts debuggers without the run's token.
        name_steps: Whether to name the step in its launch configuration even where only one is debugged.
        children: Whether to debug a script's child processes as well.
    """

    steps: tuple[str, ...] = ()
    rank: int | None = 0
    on_error: bool = False
    wait: bool = True
    open_port: bool = False
    name_steps: bool = False
    children: bool = True

    @property
    def launched(self) -> str:
        """Which of the ranks that a step's own command launches are debugged: ``all`` or a number."""
        return "all" if self.rank is None else str(self.rank)


@dataclass(frozen=True)
class DryJobStep:
    """One step of a job as it would be submitted.

    Attributes:
        step: The step.
        environment: The environment, as the file names it.
        compute: The compute target; empty where none is named.
        without: Why it would not be debugged; empty where it would.
        ranks: The ranks that would be debugged.
        way: How a debugger would reach them.
        inputs: What each input is bound to.
    """

    step: Step
    environment: str
    compute: str
    without: str = ""
    ranks: tuple[int, ...] = ()
    way: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DryJob:
    """A job as it would be submitted.

    Attributes:
        file: The file.
        steps: Its steps.
        notes: Notes for the user.
        errors: All errors that prevent its submission.
    """

    file: Path
    steps: tuple[DryJobStep, ...]
    notes: tuple[str, ...]
    errors: tuple[UserError, ...]


class Backend(Protocol):
    """Runs pipelines and reads their runs."""

    name: str
    #: Whether its steps may use data on the workspace's datastores.
    takes_cloud_data: bool

    def read(self, wanted: Wanted) -> Pipeline | None:
        """Read the wanted part of the pipeline of the settings, if the backend has its own reader.

        Returns:
            The pipeline; None where :mod:`workflows.pipelines.reader` reads it.

        Raises:
            UserError: It cannot be run.
        """

    def dry_run(self, wanted: Wanted, debug: DebugRequest | None) -> DryJob | None:
        """Describe what would be submitted, if the backend has its own reader. Nothing is sent.

        Returns:
            The description; None where :mod:`workflows.pipelines.reader` reads the pipeline.

        Raises:
            UserError: The pipeline cannot be read.
        """

    def submit(
        self,
        pipeline: Pipeline,
        debug: DebugRequest | None,
        options: str = "",
        waiting: subprocess.Popen[bytes] | None = None,
    ) -> RunRecord:
        """Start a run, which continues in the background.

        Args:
            pipeline: What to run.
            debug: What is to be debugged.
            options: The options that were typed to choose this pipeline, for messages.
            waiting: A runner process that waits for a run, for backends that use one.

        Raises:
            UserError: It cannot be started. Nothing of it remains then.
        """

    def runs(self) -> list[RunRecord]:
        """Every run, the latest first."""

    def find(self, wanted: str | None) -> RunRecord:
        """Find a run by id or number; without either, the latest run.

        Raises:
            UserError: There is none.
        """

    def refresh(self, run: RunRecord) -> RunRecord:
        """The current record of a run."""

    def cancel(self, run: RunRecord) -> RunRecord:
        """Cancel a run at once; returns its record."""

    def outputs(self, run: RunRecord, steps: Sequence[str]) -> dict[str, str]:
        """The paths or addresses of the outputs of completed steps, by ``STEP.OUTPUT``, as values for ``--input``.

        Args:
            run: The run.
            steps: The steps' names. The name of a nested pipeline stands for the pipeline's own outputs.

        Raises:
            UserError: They cannot be read.
        """

    def fetch_snapshots(self, run: RunRecord, steps: Sequence[StepRecord]) -> None:
        """Fetch the snapshots of failed steps into their folders here, unless they are already here.

        For a step that is not known to have ended, its current status is read first.

        Raises:
            UserError: They cannot be read.
        """
