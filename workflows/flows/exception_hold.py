"""Inspects a step that holds at an exception. It holds on for further inspections until it is released."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..runs.attachable import Attachable
from ..runs.record import RunRecord

if TYPE_CHECKING:
    from .watching import Watching


def check_on_error(run: RunRecord) -> None:
    """Check that a run may hold at an exception.

    Raises:
        UserError: It was not debugged with ``--on-error``.
    """
    if not run.on_error:
        raise nothing_holds_error(run)


def nothing_holds_error(run: RunRecord) -> UserError:
    """The error for a run in which no step holds at an exception."""
    return UserError(
        f"Nothing in the run {run.run_id} holds at an exception.",
        f"Name a line to stop at: inv {run.kind}.inspect FILE:LINE; to hold at errors: inv {run.kind}.debug --on-error",
    )


def inspect_hold_of_step(
    watching: Watching,
    run: RunRecord,
    place: tuple[Path, int] | None,
    found: Sequence[Attachable],
    expressions: Sequence[str],
    timeout: float,
    release: bool,
) -> dict[str, Any]:
    """Inspect the exception at which a step holds.

    Args:
        watching: How to watch.
        run: The run.
        place: The file and line whose frame is shown; None for the innermost frame of the user's own code.
        found: The ranks that hold; the first one is inspected.
        expressions: What to evaluate.
        timeout: Seconds for the debugger to get the exception.
        release: Whether the step goes on after that.

    Raises:
        UserError: The place is not part of the stack, and the step holds on; or no step holds at an exception.
    """
    from ..debugger.inspect_exceptions import inspect_hold

    one = found[0]
    if not one.error_text:
        raise nothing_holds_error(run)
    hold = inspect_hold(one.endpoint, place, expressions, timeout, release=release)
    which = "" if one.rank is None else f" --rank {one.rank}"
    look = f"inv {run.kind}.inspect --run {run.number}{which}"
    if not run.single:
        look = f"inv {run.kind}.inspect --run {run.number} --step {one.step.name}{which}"
    if not hold.is_part and place is not None:
        stopped = hold.seen.stopped
        raise UserError(
            f"{one.step.name} holds at {one.error_text} in {Path(stopped.file).name}:{stopped.line}, which "
            f"{place[0].name}:{place[1]} is not part of.",
            f"It keeps holding. To see it: {look}"
            if hold.holds
            else "It was released, because an older version started it.",
        )
    if hold.holds:
        seconds = f", up to {one.limit:g} s" if one.limit is not None else ""
        watching.console.line(f"  note: {one.step.name} holds on{seconds}; to let it go: {look} --release")
    return {**replace(hold.seen, child=one.child_pid).as_json(), "holds": hold.holds}
