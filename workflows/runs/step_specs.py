"""What an engine needs to start a step of a run: its paths, inputs, outputs and how it is debugged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..engines.steps import StepDebug, StepSpec, Tracking
from ..errors import UserError
from ..models import Snapshots
from ..paths import cache_folder
from ..pipelines.commands import PARALLEL_DRIVER
from .plan import Plan, PlannedStep
from .record import RunRecord, StepRecord


class StepSpecs:
    """Makes the specs of the steps of one run.

    Args:
        run: The run's record.
        plan: Its plan.
        current_path: The present path of a path in the plan; the project may have been moved since.
    """

    def __init__(self, run: RunRecord, plan: Plan, current_path: Callable[[str], Path]) -> None:
        self._run = run
        self._plan = plan
        self._planned = {step.name: step for step in plan.steps}
        self._current_path = current_path

    def make(
        self,
        planned: PlannedStep,
        step: StepRecord,
        allot_debug_ports: Callable[[PlannedStep, StepRecord], StepDebug | None],
    ) -> StepSpec:
        """Make the spec of a step.

        Args:
            planned: The step.
            step: Its record.
            allot_debug_ports: Chooses the step's ports and returns how it is debugged; None if it is not.

        Raises:
            UserError: Another step has not written an output that this one needs.
            OSError: An input or the code cannot be copied.
        """
        folder = self._run.step_folder(planned.name)
        inputs = {}
        for name, entry in planned.inputs.items():
            if entry.path is not None:
                inputs[name] = self._protected_input(folder, name, self._current_path(entry.path))
            elif entry.step is not None and entry.output is not None:
                inputs[name] = self.output_path(entry.step, entry.output)
                if not inputs[name].exists():
                    raise UserError(
                        f"{entry.step} has not written its output {entry.output}, which {planned.name} needs.",
                        f"See what {entry.step} does with ${{{{outputs.{entry.output}}}}}.",
                    )
        return StepSpec(
            run_id=self._run.run_id,
            step=planned.name,
            project=self._run.project,
            folder=folder,
            image=planned.image,
            code=self._code_path(planned, folder) if planned.code else None,
            includes=tuple(map(self._current_path, planned.includes)),
            inputs=inputs,
            outputs={
                name: (self.output_path(planned.name, name), is_file) for name, is_file in planned.outputs.items()
            },
            ranks=planned.ranks,
            processes=planned.processes,
            distribution=planned.distribution,
            shm_size=planned.shm_size,
            debug=allot_debug_ports(planned, step),
            metrics=planned.metrics,
            published_options="--remote_debug" in planned.command,
            parallel=PARALLEL_DRIVER in planned.command,
            tracking=Tracking(self._run.name, step.run_id),
            snapshots=Snapshots(self._run.kind, self._plan.redact) if self._plan.snapshots else None,
        )

    def _protected_input(self, folder: Path, name: str, path: Path) -> Path:
        """An input's path; it is copied if a step that writes to it would change another run."""
        if self._run.engine != "process":
            # Containers get their inputs read-only.
            return path
        # Another run's output on this machine, or one that was fetched from a workspace, which happens only once.
        from_run = path.is_relative_to(self._run.folder.parent) or (
            "--from-run" in self._run.options and path.is_relative_to(cache_folder())
        )
        if not from_run:
            return path

        from .step_copies import copy_for_step

        return copy_for_step(path, folder / "inputs" / name)

    def _code_path(self, planned: PlannedStep, folder: Path) -> Path:
        """The path of a step's code; code of an earlier run is copied, because the step may write to it."""
        assert planned.code is not None
        code = self._current_path(planned.code)
        if not code.is_relative_to(self._run.folder.parent):
            return code

        from .step_copies import copy_code

        return copy_code(code, folder / "code-taken-over")

    def output_path(self, step: str, name: str) -> Path:
        """The path of an output: a folder, or a file in a folder of its own."""
        folder = self._run.step_folder(step) / "data" / name
        return folder / name if self._planned[step].outputs[name] else folder
