"""Debugging the steps of a pipeline."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from invoke import Exit

from ..debugger.any_client import PRINT_HELP
from ..errors import BadValue, UserError
from ..formatting import format_duration
from . import _agents
from ._closed_output import INTERRUPTED
from ._command import Command, command
from ._inspect_flags import INSPECT_HELP, INSPECT_ITERABLE, ON_ERROR_HELP
from ._runs import (
    LOCATION_HELP,
    RELEASE_HELP,
    attach_run,
    cancel_run,
    check_not_attached,
    check_success,
    follow_run,
    follow_to_end,
    print_where_held,
    read_inputs,
    read_location_and_run,
    read_rank,
    read_ranks,
    show_debugged,
    submission_result,
)
from ._snapshots import (
    SNAPSHOT_HELP,
    SNAPSHOT_HELPS,
    SNAPSHOT_RANK_HELP,
    SnapshotSelection,
    attach_snapshot,
    check_no_rank,
    show_snapshot,
)
from ._stacks import HELP as STACKS_HELP

if TYPE_CHECKING:
    from pathlib import Path

    from ..backends.base import DebugRequest
    from ..flows.pipeline import PipelineFlow, Wanted

SUBMIT = (
    *("pipeline_file", "backend", "engine", "training_env", "base_image", "debug_port", "debug_timeout"),
    *("compute_target", "workspace", "resource_group", "subscription_id", "auth", "sdk", "reach", "download_mb"),
)
RUN_HELP = "Run: its id or number; default: the latest run."
SUBMIT_HELP = {
    "input": "NAME=PATH or NAME=VALUE: an input of the pipeline (STEP.NAME: of a step, or the output of a step that"
    " does not run here); may be repeated.",
    "step": "Debug this step, and run only the steps that it needs; may be repeated. Default: every step.",
    "skip": "Leave this step out; may be repeated. Give its outputs by --input STEP.OUTPUT=PATH.",
    "rank": "Rank of a distributed step to debug, N or all, on ports base + rank. Default: 0, or all with"
    " --on-error. Also those that the command makes itself (torchrun).",
    "on_error": "Run at full speed, and hold for a debugger only where a step raises.",
    "wait": "Hold each script before its first line (default). With --no-wait, attach at any time.",
    "children": "Debug the child processes of a script, too (default).",
    "open_port": "In Azure ML: accept every connection to a step's port, without this run's token.",
    "trials": "Number of trials to run of each sweep, in parallel up to the cores; the best trial's outputs are the"
    " sweep's. Default: one trial, with the first or lowest values.",
    "mini_batch": "Run only this mini-batch of a parallel step, counted from 0 as in Azure ML.",
    "from_run": "Go on from this earlier run: its completed steps are taken over, and the others run on their outputs."
    " With --step, run that step alone again on the inputs that it had.",
    "code_of_run": "With --from-run: run the code of that run, not the code that is here.",
    "follow": "Keep showing the logs until the run ends; after Ctrl-C the run goes on.",
}
LEFT = "The run goes on; inv pipeline.cancel ends it."


def _flow(call: Command) -> PipelineFlow:
    from ..flows.pipeline import PipelineFlow

    return PipelineFlow(call.settings, call.console)


def _wanted(
    typed: Sequence[str], step: Sequence[str], skip: Sequence[str], trials: str | None, mini_batch: str | None
) -> Wanted:
    from ..flows.pipeline import Wanted
    from ..pipelines.parts import read_parts

    return Wanted(read_inputs(typed), tuple(step), tuple(skip), read_parts(trials, mini_batch))


def _going_on(call: Command, flow: PipelineFlow, wanted: Wanted, from_run: str | None, code: bool) -> Wanted:
    """What is to be run, going on from an earlier run where one is named."""
    if from_run is None:
        if code:
            raise BadValue("--code-of-run needs the run whose code is meant.", "Name it: --from-run RUN")
        return wanted
    named = call.settings.set_by.get("pipeline_file") == "--pipeline-file"
    return flow.continue_run(from_run, wanted, named_file=named, code=code)


def _request(
    step: Sequence[str], rank: str | None, on_error: bool, wait: bool, open_port: bool, children: bool
) -> DebugRequest:
    from ..backends.base import DebugRequest
    from ..vscode import f5

    return DebugRequest(
        tuple(step),
        read_ranks(rank, on_error),
        on_error,
        wait,
        open_port=open_port,
        name_steps=bool(f5.configuration_name()),
        children=children,
    )


@command(
    settings=SUBMIT,
    json=True,
    help={
        **SUBMIT_HELP,
        "debug": "Let a debugger attach (default). With --no-debug, the steps only run.",
        "dry_run": "Show what would run, step by step, and what is missing; start nothing.",
    },
    iterable=["input", "step", "skip"],
    paths={"input": "name=path"},
)
def submit(
    call: Command,
    input: list[str],
    step: list[str],
    skip: list[str],
    rank: str | None = None,
    on_error: bool = False,
    wait: bool = True,
    debug: bool = True,
    open_port: bool = False,
    children: bool = True,
    trials: str | None = None,
    mini_batch: str | None = None,
    from_run: str | None = None,
    code_of_run: bool = False,
    follow: bool = False,
    dry_run: bool = False,
) -> None:
    """Start a run of the pipeline in the background; each step holds for a debugger, unless you add --no-debug."""
    request = _request(step, rank, on_error, wait, open_port, children) if debug else None
    flow = _flow(call)
    wanted = _going_on(call, flow, _wanted(input, step, skip, trials, mini_batch), from_run, code_of_run)
    if dry_run:
        flow.dry_run(wanted, request)
        return
    run = flow.submit(wanted, request, _options(call, wanted))
    call.console.line()
    call.console.line(f"Its log   inv pipeline.tail-log --run {run.number}")
    if request is not None:
        call.console.line(f"Attach    inv pipeline.attach --run {run.number}")
        if request.wait and not request.on_error:
            call.console.line("Steps hold for a debugger; at full speed: --no-wait, without one: --no-debug")
    call.console.result(submission_result(call.console, run, []))
    if follow:
        follow_to_end(call.console, flow.refresh, run)


@command(
    settings=SUBMIT,
    json=True,
    help=SUBMIT_HELP,
    iterable=["input", "step", "skip"],
    paths={"input": "name=path"},
    interrupted="What the run has started has been ended.",
)
def debug(
    call: Command,
    input: list[str],
    step: list[str],
    skip: list[str],
    rank: str | None = None,
    on_error: bool = False,
    wait: bool = True,
    open_port: bool = False,
    children: bool = True,
    trials: str | None = None,
    mini_batch: str | None = None,
    from_run: str | None = None,
    code_of_run: bool = False,
    follow: bool = False,
) -> None:
    """Run the whole chain: submit, tail-log, attach."""
    flow = _flow(call)
    request = _request(step, rank, on_error, wait, open_port, children)
    joined = flow.join(request) if request.name_steps else None
    check_not_attached(joined[1] if joined else ())
    wanted = _going_on(call, flow, _wanted(input, step, skip, trials, mini_batch), from_run, code_of_run)
    run, found = joined or flow.debug(wanted, request, _options(call, wanted))
    show_debugged(call, run, found, request.on_error)
    if follow:
        follow_to_end(call.console, flow.refresh, run)


@command(
    settings=("backend", "debug_timeout"),
    help={
        "run": RUN_HELP,
        "step": "Show the log of this step only.",
        "rank": "Show the log of this rank only.",
        "follow": "Keep showing the logs until the run or the step ends, also when a step holds.",
    },
    interrupted=LEFT,
    positional=["run"],
)
def tail_log(
    call: Command, run: str | None = None, step: str | None = None, rank: str = "all", follow: bool = False
) -> None:
    """Show the logs until a step holds for a debugger or the run ends."""
    flow = _flow(call)
    found = flow.find(run)
    only = flow.step(found, step)
    step = only.name if only else None
    number = read_rank(rank)
    most = max(one.ranks for one in ([only] if only else found.steps))
    if number is not None and number >= most:
        has = f"ranks 0 to {most - 1}" if most > 1 else "one process"
        raise UserError(f"There is no rank {number}: it has {has}.", "Choose one of these: --rank N|all")
    try:
        follow_run(call.console, flow.refresh, found, step, number, until_held=not follow)
    except KeyboardInterrupt:
        call.console.line()
        raise Exit(code=INTERRUPTED) from None
    found = flow.refresh(found)
    print_where_held(call.console, found, step)
    if found.final or (step is not None and found.step(step).final):
        check_success(found, step)


@command(
    settings=("backend", "debug_timeout"),
    json=True,
    help={
        "run": RUN_HELP,
        "step": "Step to attach to; default: all that are debugged.",
        "print": PRINT_HELP,
        "snapshot": SNAPSHOT_HELP,
        "rank": f"With --snapshot: {SNAPSHOT_RANK_HELP}",
        "take_over": _agents.TAKE_OVER_HELP,
    },
    positional=["run"],
)
def attach(
    call: Command,
    run: str | None = None,
    step: str | None = None,
    print: bool = False,
    snapshot: bool = False,
    rank: str | None = None,
    take_over: bool = False,
) -> None:
    """Write the launch configurations of a run's steps to .vscode/launch.json, or print them."""
    flow = _flow(call)
    chosen = flow.find(run)
    if snapshot:
        attach_snapshot(call, lambda: flow.snapshots(chosen, step), rank, print)
        return
    check_no_rank(rank)
    only = flow.step(chosen, step)
    if take_over:
        _agents.take_over(call.console, call.project, chosen.run_id)
    found = flow.tail_log(chosen, only.name if only else None)
    chosen = flow.refresh(chosen)
    attach_run(call.console, flow.attach, chosen, found, only_print=print)


@command(
    settings=("backend", "debug_timeout"),
    json=True,
    help={
        "location": LOCATION_HELP,
        "release": RELEASE_HELP,
        "run": RUN_HELP,
        "step": "Step, if its script's name is not unique.",
        "rank": "Rank of a distributed step, if several are debugged; all: all of them, side by side.",
        "on_error": ON_ERROR_HELP,
        **INSPECT_HELP,
        "timeout": "Seconds to wait for the stop; default: 60.",
    },
    iterable=INSPECT_ITERABLE,
    positional=["location", "run"],
    optional=["on_error"],
    paths={"location": "file:line", "at": "file:line"},
    interrupted=LEFT,
)
def inspect(
    call: Command,
    eval: list[str],
    at: list[str],
    set: list[str],
    location: str | None = None,
    run: str | None = None,
    step: str | None = None,
    rank: str | None = None,
    timeout: str = "60",
    release: bool = False,
    when: str | None = None,
    hits: str | None = None,
    times: str | None = None,
    log: str | None = None,
    steps: str | None = None,
    step_into: bool = False,
    frames: str | None = None,
    depth: str | None = None,
    all_code: bool = False,
    all_locals: bool = False,
    on_error: str | None = None,
) -> None:
    """Stop at lines of a step, or look at where it holds, and show stack and values, without an editor."""
    from ._inspect_flags import InspectFlags, inspect_run

    location, run = read_location_and_run(location, run)
    typed = InspectFlags(
        *(location, at, eval, set, when, hits, times, log, steps, step_into, frames, depth, all_code),
        *(timeout, on_error, all_locals),
    )
    flow = _flow(call)
    found = flow.find(run)
    result = inspect_run(
        call, found, typed, rank, release, lambda look, report: flow.inspect(found, step, look, report)
    )
    if not result.get("holds"):
        call.console.line("The step goes on: inv pipeline.status")
    call.console.result(result)


@command(
    settings=("backend",),
    json=True,
    help={
        "run": RUN_HELP,
        "step": "Step to look at; default: all.",
        "rank": "Rank to look at, N or all; default: all.",
        **STACKS_HELP,
    },
    iterable=["eval"],
    positional=["run"],
)
def stacks(
    call: Command,
    eval: list[str],
    run: str | None = None,
    step: str | None = None,
    rank: str = "all",
    watch: bool = False,
    all_code: bool = False,
) -> None:
    """Show where every process, rank, thread and task stands now, without stopping them."""
    from ._stacks import show_run

    number = read_rank(rank)
    flow = _flow(call)
    found = flow.find(run)
    show_run(call.console, flow.refresh, found, flow.step(found, step), number, eval, watch=watch, all_code=all_code)


@command(
    settings=("backend",),
    json=True,
    help={**SNAPSHOT_HELPS, "run": RUN_HELP, "step": "Step, if several have failed; default: the first."},
    iterable=["eval"],
    positional=["run"],
)
def snapshot(
    call: Command,
    eval: Sequence[str],
    run: str | None = None,
    step: str | None = None,
    rank: str | None = None,
    number: str | None = None,
    frame: str | None = None,
    list: bool = False,
) -> None:
    """Show the snapshot of a failed step: the exception, the stack, the variables."""
    flow = _flow(call)
    show_snapshot(
        call, lambda: flow.snapshots(flow.find(run), step), SnapshotSelection(rank, number, frame, tuple(eval), list)
    )


@command(settings=("backend",), json=True, help={"run": RUN_HELP}, positional=["run"])
def status(call: Command, run: str | None = None) -> None:
    """Show a run and its steps."""
    from ._status import show_status

    flow = _flow(call)
    found = flow.find(run)
    if run is None:
        from ..remote import latest_run

        latest_run.print_if_newer(call.console, call.project, "pipeline", "pipeline.status", found.created)
    show_status(call, found)


@command(settings=("backend",), json=True)
def list_(call: Command) -> None:
    """List the runs of this project, the latest first."""
    runs = _flow(call).runs()
    if not runs:
        call.console.line("No pipeline of this project has been run yet.")
    width = max((len(run.run_id) for run in runs), default=0)
    for run in runs:
        done = sum(step.ended_well for step in run.steps)
        started = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.created))
        took = format_duration(run.seconds)
        call.console.line(
            f"{run.number:>4}  {run.run_id:<{width}}  {run.status:<11}  {done}/{len(run.steps)} steps  "
            f"{started}  {took:>8}{'  debugged' if run.debugged else ''}"
        )
    call.console.result({"runs": [run.as_json() for run in runs]})


@command(
    settings=("backend",),
    json=True,
    help={"run": RUN_HELP},
    positional=["run"],
    interrupted="Some of its steps may still run.",
)
def cancel(call: Command, run: str | None = None) -> None:
    """End a run at once, with all processes and containers; its logs and outputs so far are kept."""
    from ..vscode import f5

    flow = _flow(call)
    found = (
        flow.find(run) if run or not f5.configuration_name() else flow.find_by_configuration(f5.configuration_name())
    )
    if found is None:
        call.console.line(f"No run of {f5.configuration_name()} is left to end.")
        return
    cancel_run(call.console, flow.refresh, flow.cancel, found)


def _options(call: Command, wanted: Wanted) -> str:
    """What has to be typed again for this pipeline and no other one."""
    import shlex

    if wanted.taken is not None:
        from ..flows.from_run import FLAG

        return shlex.join([*_of_file(call), FLAG, wanted.taken.run.run_id, *_typed(wanted.taken.typed, call.project)])
    return shlex.join([*_of_file(call), *_typed(wanted, call.project)])


def _typed(wanted: Wanted, project: Path) -> list[str]:
    values = {name: _from_anywhere(value, project) for name, value in wanted.inputs.items()}
    words = [word for name, value in values.items() for word in ("--input", f"{name}={value}")]
    return [*words, *(word for name in wanted.skip for word in ("--skip", name)), *wanted.parts.flags]


def _from_anywhere(value: str, project: Path) -> str:
    """An input as it means the same in every folder: a path that was typed below the project is made whole."""
    import os

    if os.path.isabs(value) or not os.path.exists(value) or os.path.realpath(os.curdir) == os.path.realpath(project):
        return value
    return os.path.abspath(value)


def _of_file(call: Command) -> list[str]:
    from ..paths import shown

    if call.settings.set_by.get("pipeline_file") != "--pipeline-file":
        return []
    return ["--pipeline-file", str(shown(call.settings.pipeline_file))]
