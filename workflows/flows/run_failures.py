"""Errors for failed steps of runs, and the commands that these errors name."""

from __future__ import annotations

import re
from pathlib import Path

from .. import storage
from ..errors import UserError
from ..paths import shown
from ..runs import attachable, source_secrets
from ..runs import record as records
from ..runs.record import RunRecord, StepRecord

#: Lines of a failed step's log that are shown.
SHOWN_LINES = 15
#: Python's message for a package that is not installed.
_MISSING = re.compile(r"^ModuleNotFoundError: No module named '([^'.]+)")


def rerun_command(run: RunRecord, step: str | None = None) -> str:
    """The command that debugs a run, or one step of it, again."""
    if run.single:
        return " ".join(filter(None, ["inv experiment.debug", run.options, run.name]))
    # The options choose the pipeline; without them another one might be run.
    if run.options.startswith("--deployment "):
        return f"inv deploy.debug {run.options}"  # a batch deployment, which is one step
    return " ".join(filter(None, ["inv pipeline.debug", run.options, f"--step {step}" if step else ""]))


def rerun_command_from_run(run: RunRecord, step: str) -> str:
    """The command that debugs a failed step again, without running the steps that have completed."""
    completed = any(one.status == records.COMPLETED for one in run.steps)
    if run.single or run.in_workspace or run.options.startswith("--deployment ") or not completed:
        return rerun_command(run, step)
    if "--from-run" in run.options:
        return rerun_command(run, step)
    return f"{rerun_command(run, step)} --from-run {run.number}"


def log_command(run: RunRecord, step: str) -> str:
    """The command that shows a step's complete log."""
    if run.single:
        return f"inv experiment.logs --run {run.number}"
    return f"inv pipeline.tail-log --run {run.number} --step {step}"


class StepFailed(UserError):
    """A step of a run has failed."""


def step_failed(run: RunRecord, step: StepRecord) -> StepFailed:
    """The error for a failed step, with the end of its log."""
    from ..logs.log_tail import tail_lines
    from ..logs.own_line import find_own_line
    from . import snapshots

    source_secrets.keep_secrets(run)
    lines: list[str] = []
    place: tuple[Path, int] | None = None
    for _rank, path in run.logs(step):
        found = tail_lines(path, SHOWN_LINES) if path.exists() else []
        # If there are several ranks, the log of the one that raised has the cause; the others were ended because of it.
        if found and (not lines or any(line.startswith("Traceback") for line in found)):
            lines = found
            place = find_own_line(path, step.mappings)
            if any(line.startswith("Traceback") for line in found):
                break
    if not lines and run.build_log(step).exists():
        lines = tail_lines(run.build_log(step), SHOWN_LINES)
    told = not lines or storage.find_disk_error(lines) is not None
    short = storage.shortage(run.folder) if told and not run.in_workspace else None
    if short is not None:
        return StepFailed(
            f"The {'run' if run.single else 'step'} {step.name} failed ({step.reason.rstrip('.')}). {short.problem}",
            short.remedy,
            details=lines,
        )
    if "preempt" in step.reason.lower():
        return StepFailed(
            f"The step {step.name} lost its node: {step.reason.rstrip('.')}.",
            f"Submit it again: {rerun_command(run, step.name)}; nodes of a dedicated compute are not taken away.",
            details=lines,
        )
    missing = next((match for line in reversed(lines) if (match := _MISSING.search(line))), None)
    if missing is not None:
        folder = "env/training/requirements.txt"
        return StepFailed(
            f"The {'run' if run.single else 'step'} {step.name} failed: the package {missing[1]} is not installed.",
            f"Add it to {folder} of your project (a new file will do), or to the step's own conda file, then: "
            f"{rerun_command_from_run(run, step.name)}",
            details=lines,
        )
    left = snapshots.snapshot_command(run, step)
    variables = f"; its variables: {left}" if left else ""
    return StepFailed(
        f"{'The run' if run.single else 'The step'} {run.run_id if run.single else step.name} failed: "
        f"{(step.reason or str(step.exit_code)).rstrip('.')}.",
        f"Correct it, then: {rerun_command_from_run(run, step.name)} "
        f"(its whole log: {log_command(run, step.name)}{variables})",
        details=[*lines, *_why_not_held(run, step)],
        file=shown(place[0]) if place is not None else None,
        line=place[1] if place is not None else None,
    )


def _why_not_held(run: RunRecord, step: StepRecord) -> list[str]:
    """A line on why a step that failed under --on-error did not hold; none if it did."""
    if (
        not run.on_error
        or not step.debugged
        or any(one.error is not None for one in attachable.attachables_of_step(run, step))
    ):
        return []
    return [
        "note: it did not hold, since no exception left its Python: the script has caught it, or a program ended with "
        "that exit code. A breakpoint where it is caught stops there."
    ]
