"""What a backend can do. One protocol, one contract test."""

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
        rank: The rank to be debugged of a distributed step; None for all of them.
        on_error: Only when a step raises.
        wait: Hold before a script's first line.
        open_port: In a workspace: let in whoever reaches a step's port, without the run's token.
        name_steps: Name the step in its launch configuration, also where one is debugged.
        children: Let the debugger into a script's child processes as well.
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
        """The ranks of those that a step's own command makes: ``all`` or a number."""
        return "all" if self.rank is None else str(self.rank)


@dataclass(frozen=True)
class DryJobStep:
    """One step of a job as it would be submitted.

    Attributes:
        step: The step.
        environment: As the file names it.
        compute: The compute target; empty where none is named.
        without: Why no debugger would be let in; empty where one would.
        ranks: The ranks that would be debugged.
        way: How they would be reached.
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
        notes: What is worth knowing.
        errors: All that keeps it from being submitted.
    """

    file: Path
    steps: tuple[DryJobStep, ...]
    notes: tuple[str, ...]
    errors: tuple[UserError, ...]


class Backend(Protocol):
    """Runs pipelines and tells of them."""

    name: str
    #: Whether its steps may take what lies in the workspace's datastores.
    takes_cloud_data: bool

    def read(self, wanted: Wanted) -> Pipeline | None:
        """The pipeline of the settings, or as much of it as is wanted, where the backend reads it its own way.

        Returns:
            None where it is read as for this machine, by :mod:`workflows.pipelines.reader`.

        Raises:
            UserError: It cannot be run so.
        """

    def dry_run(self, wanted: Wanted, debug: DebugRequest | None) -> DryJob | None:
        """What would be submitted, where the backend reads the pipeline its own way; nothing is sent.

        Returns:
            None where it is read as for this machine.

        Raises:
            UserError: Nothing can be said of it.
        """

    def submit(
        self,
        pipeline: Pipeline,
        debug: DebugRequest | None,
        options: str = "",
        waiting: subprocess.Popen[bytes] | None = None,
    ) -> RunRecord:
        """Start a run, which goes on by itself.

        Args:
            pipeline: What to run.
            debug: What is to be debugged of it.
            options: What was typed to submit this and no other pipeline, for messages.
            waiting: A runner that waits to be told its run, for who has use for one.

        Raises:
            UserError: It cannot be started. Nothing of it is left then.
        """

    def runs(self) -> list[RunRecord]:
        """Every run, the latest first."""

    def find(self, wanted: str | None) -> RunRecord:
        """A run by id or number; the latest without any.

        Raises:
            UserError: There is none.
        """

    def refresh(self, run: RunRecord) -> RunRecord:
        """What is known of a run by now."""

    def cancel(self, run: RunRecord) -> RunRecord:
        """End everything of a run at once; the run as it is then."""

    def outputs(self, run: RunRecord, steps: Sequence[str]) -> dict[str, str]:
        """Where the outputs of completed steps of a run lie, by ``STEP.OUTPUT``: what ``--input`` takes.

        Args:
            run: The run.
            steps: The steps' names; of a nested pipeline, its own outputs are meant.

        Raises:
            UserError: It cannot be told.
        """

    def fetch_snapshots(self, run: RunRecord, steps: Sequence[StepRecord]) -> None:
        """Bring what failed steps of a run have left to look at into their folders here, where it is not yet.

        Of a step that is not known to be over, it is asked whether it is.

        Raises:
            UserError: It cannot be read.
        """
