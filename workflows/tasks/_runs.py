"""What the tasks of all stories read and show of runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from invoke import Exit

from ..errors import BadValue, UserError
from ._closed_output import INTERRUPTED

if TYPE_CHECKING:
    from ..console import Console
    from ..runs.attachable import Attachable
    from ..runs.record import RunRecord
    from ._command import Command


#: For `inspect` of a run.
LOCATION_HELP = "FILE:LINE or FILE:FUNCTION to stop at, such as train.py:21. Without it, show where the program holds."
RELEASE_HELP = "Show the exception at which the program holds, then let the program end."

#: Seconds that a step may take to end after its script has ended.
END_SECONDS = 3.0
POLL_SECONDS = 0.05


#: The most launch configurations that are named.
_MOST_SHOWN = 8


def read_inputs(typed: Sequence[str]) -> dict[str, str]:
    """The values typed after each ``--input``, by name.

    Raises:
        BadValue: A value has no name.
    """
    found = {}
    for entry in typed:
        name, equals, value = entry.partition("=")
        if not equals or not name.strip():
            raise BadValue(f"--input must be NAME=PATH or NAME=VALUE, not {entry!r}.", "Correct it.")
        found[name.strip()] = value
    return found


def read_location_and_run(location: str | None, run: str | None) -> tuple[str | None, str | None]:
    """The location and the run from the positional arguments of `inspect`; both are optional, in either order."""
    if location is None or ":" in location:
        return location, run
    if run is not None:
        return (run, location) if ":" in run else (location, run)
    names_file = location.endswith(".py") or "/" in location or "\\" in location
    return (location, None) if names_file else (None, location)


def read_rank(text: str) -> int | None:
    """The rank typed after ``--rank``; None for all ranks.

    Raises:
        BadValue: It is neither a number nor ``all``.
    """
    if text == "all":
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 5:
        raise BadValue(f"--rank must be a number or `all`, not {text!r}.", "Correct it.")
    return int(text)


def read_ranks(text: str | None, on_error: bool) -> int | None:
    """The rank to debug; None for all ranks.

    Args:
        text: The typed value; None if there was none.
        on_error: Whether the script waits for a debugger only where it raises, which can happen in any rank.

    Raises:
        BadValue: As :func:`read_rank`.
    """
    return read_rank(text if text is not None else "all" if on_error else "0")


def remark(found: Sequence[Attachable], reason: str) -> str:
    """The remark about a step in a list: why it failed, or where a debugger can attach."""
    from ..flows.run_failures import rerun_command
    from ..runs import attachable

    if reason:
        return reason
    if not found or found[0].step.final:
        late = [one for one in found if one.state == attachable.NOT_ATTACHED]
        return f"no debugger came in time; again: {rerun_command(late[0].run, late[0].step.name)}" if late else ""
    texts = []
    for one in found:
        rank = "" if one.rank is None else f"rank {one.rank} "
        word = {
            attachable.WAITING: "holds for a debugger on",
            attachable.ATTACHED: "debugger attached on",
            attachable.NOT_ATTACHED: "no debugger came in time; one is still welcome on",
            attachable.LISTENING: "debugger welcome on",
            attachable.DETACHED: "debugger welcome again on",
            attachable.CLOSED: "no debugger can be let in on",
            attachable.OUT_OF_REACH: "cannot be reached from here on",
        }[one.state]
        if one.state == attachable.WAITING and one.error_text:
            word = f"holds at {one.error_text}, for a debugger on"
        texts.append(f"{rank}{word} {one.address}")
    return "; ".join(texts[:3]) + (f"; and {len(texts) - 3} more ranks" if len(texts) > 3 else "")


def check_not_attached(found: Sequence[Attachable]) -> None:
    """Check that the editor that is waiting for this command can attach.

    Raises:
        UserError: Another debugger is attached.
    """
    from ..runs import agent_sessions, attachable
    from ..vscode import f5

    for one in found:
        names = attachable.configurations_by_rank(one.step)[one.rank or 0]
        if f5.configuration_name() in names and one.state == attachable.ATTACHED:
            agent = agent_sessions.session_at_port(one.run.project, one.port)
            if agent is not None:
                command = agent_sessions.take_over_command(one.run.kind, one.run.number)
                raise UserError(
                    f"An agent ({agent.client}) is attached to the program on {one.address}.",
                    f"To take over, then press F5 again: {command}",
                )
            raise UserError(
                f"An editor is already attached to the program on {one.address}.",
                "Disconnect it (Shift+F5 in VS Code) and try again.",
            )


def attach_run(
    console: Console,
    attach: Callable[[RunRecord, list[Attachable]], object],
    run: RunRecord,
    found: list[Attachable],
    *,
    only_print: bool,
) -> None:
    """Write the launch configurations for the endpoints, or only print what a DAP client needs."""
    from .. import report
    from ..debugger.any_client import print_endpoints
    from ..runs import active_markers

    # With this command the user takes the run over from the command that started it.
    active_markers.mark_submitted(run.folder)
    if not only_print or report.is_wanted():
        # With --remote, this also forwards the ports.
        attach(run, found)
    result = submission_result(console, run, found)
    if only_print:
        print_endpoints(console, result)
    console.result(result)


def cancel_run(
    console: Console,
    refresh: Callable[[RunRecord], RunRecord],
    cancel: Callable[[RunRecord], RunRecord],
    run: RunRecord,
) -> None:
    """Cancel a run. At the end of an editor's debug session, do so only if nothing else needs the run."""
    from ..runs.attachable import still_debugged
    from ..vscode import f5

    if f5.configuration_name():
        others = [] if run.final else still_debugged(run, f5.configuration_name())
        if others:
            console.line(f"The run {run.run_id} goes on: {'; '.join(others)}.")
            return
        run = _wait_for_end(console, refresh, run, f5.configuration_name())
    if run.final:
        console.line(f"The run {run.run_id} is over already: {run.status}.")
        console.result({"run_id": run.run_id, "status": run.status, "canceled": False})
        return
    with console.step("cancel") as shown:
        run = cancel(run)
        shown.text = f"{run.run_id}: {run.status}"
    canceled = run.status == "Canceled"
    console.result({"run_id": run.run_id, "status": run.status, "canceled": canceled, "seconds": console.seconds})


def _wait_for_end(console: Console, refresh: Callable[[RunRecord], RunRecord], run: RunRecord, left: str) -> RunRecord:
    """Wait a moment for the step that an editor has debugged to end by itself, and return the current run.

    The debug session ends with the script, and the step ends a little later. It has completed then, and must not be
    canceled.
    """
    from ..runs.attachable import configurations_by_rank

    deadline, announced = time.monotonic() + END_SECONDS, False
    while True:
        steps = [step for step in run.steps if any(left in some for some in configurations_by_rank(step).values())]
        goes_on = any(not step.final for step in run.steps)
        if run.final or not steps or (goes_on and all(step.final for step in steps)) or time.monotonic() > deadline:
            return run
        if not announced:
            console.line(f"Waiting up to {END_SECONDS:g} s for {steps[0].name} to end by itself.")
            announced = True
        time.sleep(POLL_SECONDS)
        run = refresh(run)


def print_where_held(console: Console, run: RunRecord, step: str | None) -> None:
    """Print where to attach to the waiting steps, and which steps have gone on without a debugger."""
    from ..flows.run_failures import rerun_command
    from ..runs import attachable

    for one in attachable.attachables_of_run(run):
        if step not in (None, one.step.name):
            continue
        rank = "" if one.rank is None else f", rank {one.rank},"
        if one.state == attachable.WAITING and one.is_open:
            where = f"holds for a debugger on {one.address}"
            console.line(f"{one.step.name}{rank} {where}: inv {run.kind}.attach --run {run.number}")
        elif one.state == attachable.NOT_ATTACHED:
            command = rerun_command(run, one.step.name)
            console.line(f"{one.step.name}{rank} has gone on, no debugger came in time; again: {command}")


def check_success(run: RunRecord, step: str | None = None) -> None:
    """Check that a run, or one of its steps, has not failed. Its log has already been shown.

    Raises:
        UserError: It has failed or was canceled.
    """
    from ..flows.run_failures import rerun_command, step_failed
    from ..runs import record as records

    chosen = [run.step(step)] if step is not None else run.steps
    failed = next((one for one in chosen if one.status == records.FAILED), None)
    if failed is not None:
        error = step_failed(run, failed)
        error.details = ()
        raise error
    over = chosen[0] if step is not None else run
    if over.status in (records.CANCELED, records.INTERRUPTED, records.SKIPPED):
        why = f", {over.reason}" if over.reason else ""
        raise UserError(f"The run {run.run_id} is over: {over.status}{why}.", f"Submit it again: {rerun_command(run)}")


def follow_run(
    console: Console,
    refresh: Callable[[RunRecord], RunRecord],
    run: RunRecord,
    step: str | None = None,
    rank: int | None = None,
    until_held: bool = False,
) -> None:
    """Stream the logs of a run; see :func:`~workflows.tasks._run_logs.stream_run`."""
    from ._run_logs import stream_run

    stream_run(console, refresh, run, step, rank, until_held)


def follow_to_end(
    console: Console, refresh: Callable[[RunRecord], RunRecord], run: RunRecord, rank: int | None = None
) -> None:
    """Stream a run's logs until it ends; Ctrl-C leaves it running.

    If an editor has started the run for one step, only that step's log is streamed, until the step ends: while the
    command runs, F5 attaches instead of starting another run.
    """
    from ..runs.attachable import configurations_by_rank
    from ..vscode import f5

    step = None
    for one in () if run.single else run.steps:
        for number, some in configurations_by_rank(one).items():
            if f5.configuration_name() in some:
                step, rank = one.name, number
    try:
        follow_run(console, refresh, run, step, rank)
    except KeyboardInterrupt:
        console.line()
        console.line(f"The run goes on; to end it: inv {run.kind}.cancel --run {run.number}")
        raise Exit(code=INTERRUPTED) from None
    run = refresh(run)
    check_success(run, step)
    console.line(f"{f'The step {step} of the run' if step else 'The run'} {run.run_id} has completed.")


def example_location(run: RunRecord, one: Attachable) -> str:
    """A location in a step's script for a first inspection; empty if there is none."""
    from pathlib import Path

    from ..runs import plan
    from ._inspection import quote_location, sample_line

    if one.error is not None and one.error_text and one.error.get("file"):
        return quote_location(Path(str(one.error["file"])).name, one.error.get("line"))
    command = next(step.command for step in plan.load(run.folder).steps if step.name == one.step.name)
    for name in _script_names(command):
        for local, _remote in one.step.mappings:
            line = sample_line(Path(local, name))
            if line is not None:
                return quote_location(name, line)
    return ""


def _script_names(command: str) -> list[str]:
    """The scripts that a bash command may name: its words, and everything in it that looks like one."""
    import re
    import shlex

    try:
        # The time of shlex.split grows with the square of a word's length.
        words = [word for word in shlex.split(command[:20_000]) if word.endswith(".py")]
    except ValueError:
        words = []
    for word in re.findall(r"[^\s'\"]+", command):
        if (end := word.rfind(".py")) > 0:
            words.append(word[: end + 3])
    return words


def print_f5(console: Console, found: Sequence[Attachable]) -> None:
    """Print the names of the launch configurations for F5."""
    names = list(dict.fromkeys(one.configuration for one in found))
    shown = ", ".join(f'"{name}"' for name in names[:_MOST_SHOWN])
    more = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
    console.line(f"Press F5 in VS Code: {shown}{more}{' (all of them: the compound)' if len(names) > 1 else ''}")


def show_debugged(call: Command, run: RunRecord, found: Sequence[Attachable], on_error: bool = False) -> None:
    """Show what to do with a run whose first step waits for a debugger, and the command's result.

    Args:
        call: The command.
        run: The run.
        found: The endpoints; empty if the run has completed.
        on_error: Whether steps wait for a debugger only where they raise.
    """
    console = call.console
    console.line()
    if found:
        print_f5(console, found)
        # Not for several ranks: the inspected one would wait for the others.
        sample = example_location(run, found[0]) if len(found) == 1 else ""
        if sample:
            console.line(f"Without editor  inv pipeline.inspect {sample} --run {run.number}")
            if found[0].error_text:
                console.line(f"Only look       inv pipeline.inspect --run {run.number}  (it holds on)")
        console.line(f"The steps       inv pipeline.status --run {run.number}")
        console.line(f"Their logs      inv pipeline.tail-log --run {run.number} --follow")
        console.line(f"End it          inv pipeline.cancel --run {run.number}")
    else:
        why = "no step raised" if on_error else "no step has started a Python script that could be debugged"
        console.line(f"The run {run.run_id} has completed, and {why}.")
    console.result(submission_result(call.console, run, found))
    call.ready()


def submission_result(console: Console, run: RunRecord, found: Sequence[Attachable]) -> dict[str, object]:
    """The result that ``--json`` shows for a run that was started or attached to."""
    return {
        "backend": "azureml" if run.in_workspace else "local",
        "run_id": run.run_id,
        "number": run.number,
        "status": run.status,
        "endpoints": [one.as_json() for one in found],
        "seconds": console.seconds,
    }
