"""The protocol of engines that run steps: two implementations, which share one contract test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..models import ImageRef, PathMapping, Snapshots


@dataclass(frozen=True)
class StepDebug:
    """How a step is to be debugged.

    Attributes:
        ports: Port on 127.0.0.1 by rank; rank 0 for a step of one process. Consecutive: base + rank.
        wait: Whether it waits for a debugger before the script's first line.
        timeout: Seconds that it waits.
        on_error: Whether it runs at full speed and accepts a debugger only when it raises.
        any_program: Whether programs that are not scripts in the step's code are debugged, such as
            ``python -m pytest``.
        children: Whether child processes are debugged as well.
        launched: Which ranks are debugged, ``all`` or a number, where a command of one process starts ranks itself,
            such as with torchrun. Ranks beyond :attr:`ports` are debugged through rank 0's port.
        summaries: Whether tensors and tables are described to debuggers.
    """

    ports: Mapping[int, int]
    wait: bool = True
    timeout: int = 300
    on_error: bool = False
    any_program: bool = False
    children: bool = True
    launched: str = "0"
    summaries: bool = True


@dataclass(frozen=True)
class Tracking:
    """What mlflow records for a step.

    Attributes:
        experiment: The experiment's or the pipeline's name.
        run_id: The step's own run.
    """

    experiment: str
    run_id: str


@dataclass(frozen=True)
class StepSpec:
    """One step as an engine runs it.

    Attributes:
        run_id: The run's id: the mark by which everything of the run is found and ended.
        step: The step's name.
        project: The project's folder (where tasks.py is).
        folder: The step's own folder in the run: ``azureml-logs``, ``outputs``, ``logs``, ``work``,
            ``announce`` are in it.
        image: The image or environment that it runs in.
        code: Absolute path of its source folder or file.
        inputs: Absolute local path of each input that is data.
        outputs: Absolute local path of each output, and whether it is one file.
        ranks: Number of processes.
        processes: Processes of each instance.
        distribution: ``pytorch``, ``mpi``, ``tensorflow``, or empty.
        shm_size: Size of /dev/shm in a container; empty for the default.
        debug: How it is debugged; None where it is not.
        metrics: Whether what it logs by azureml-core is kept, in ``announce/metrics.jsonl``.
        published_options: Whether its command has the published options, which a script need not know.
        includes: Absolute paths of files and folders that appear beside the code in the working folder.
        parallel: Whether its command starts the driver of parallel steps.
        tracking: What mlflow records, so that its logs are kept in ``mlflow``; None for nothing.
        snapshots: Settings of snapshots where it fails; None for none.
    """

    run_id: str
    step: str
    project: Path
    folder: Path
    image: ImageRef
    code: Path | None
    inputs: Mapping[str, Path] = field(default_factory=dict)
    outputs: Mapping[str, tuple[Path, bool]] = field(default_factory=dict)
    ranks: int = 1
    processes: int = 1
    distribution: str = ""
    shm_size: str = ""
    debug: StepDebug | None = None
    metrics: bool = False
    published_options: bool = False
    includes: tuple[Path, ...] = ()
    parallel: bool = False
    tracking: Tracking | None = None
    snapshots: Snapshots | None = None

    @property
    def code_root(self) -> Path | None:
        """The source folder, or the one that the source file is in."""
        if self.code is None:
            return None
        return self.code if self.code.is_dir() else self.code.parent

    @property
    def injected(self) -> bool:
        """Whether the debuggee is injected into its processes."""
        return self.is_followed or self.snapshots is not None

    @property
    def is_followed(self) -> bool:
        """Whether it is debugged, has the published options, or its metrics are kept."""
        return self.metrics or self.published_options or bool(self.debug and self.debug.ports)

    def log(self, rank: int | None = None) -> Path:
        """The driver log: one for each rank where there are several, named as in Azure ML."""
        name = "70_driver_log.txt" if rank is None or self.ranks == 1 else f"70_driver_log_{rank}.txt"
        return self.folder / "azureml-logs" / name

    @property
    def events(self) -> Path:
        """The file to which the debuggee writes events, for all ranks."""
        return self.folder / "announce" / "events.jsonl"


@dataclass(frozen=True)
class StepView:
    """The paths of a step as the step itself sees them; none needs quotes in a shell.

    Attributes:
        work: The working directory: the source folder's entries, with the run's ``outputs`` and ``logs``.
        paths: Inputs and outputs, by ``inputs.NAME`` and ``outputs.NAME``.
        mappings: Path mappings for the debugger.
    """

    work: str
    paths: Mapping[str, str]
    mappings: tuple[PathMapping, ...]


class StepProcess(Protocol):
    """A step that has been started."""

    def poll(self) -> int | None:
        """The step's exit code once all its ranks have ended; minus the signal's number where a signal ended it.

        With several ranks it is that of the first rank that fails; the others are then ended.
        """

    def end(self) -> None:
        """End every process of the step: SIGTERM first, SIGKILL after half a second."""


class StepEngine(Protocol):
    """Runs steps."""

    name: str

    def mappings(self, spec: StepSpec) -> tuple[PathMapping, ...]:
        """Path mappings for the debugger; known before anything is created."""

    def prepare_view(self, spec: StepSpec) -> StepView:
        """Create the step's folders and links; the paths as the step will see them."""

    def default_variables(self, image: ImageRef) -> Mapping[str, str]:
        """The variables that every step in an environment has."""

    def start_step(self, spec: StepSpec, command: str, variables: Mapping[str, str]) -> StepProcess:
        """Start a step's command in bash; its output goes to ``spec.log(rank)``.

        Raises:
            UserError: It cannot be started. Nothing of it is left then.
        """

    def end_run(self, run_id: str) -> bool:
        """End every process or container that carries the run's mark; whether there was one."""
