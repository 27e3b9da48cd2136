"""Debugging an experiment: a training script, in its container, on this machine or in a workspace."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke import Exit

from .. import report
from ..debugger.any_client import PRINT_HELP
from ..errors import BadValue, UserError
from ..paths import absolute
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
    example_location,
    follow_to_end,
    print_f5,
    print_where_held,
    read_inputs,
    read_location_and_run,
    read_rank,
    read_ranks,
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
    from ..experiments.configure import RunOptions
    from ..flows.experiment import ExperimentFlow

SETTINGS = (
    *("backend", "engine", "training_env", "base_image", "debug_port", "debug_timeout", "download_mb"),
    *("compute_target", "workspace", "resource_group", "subscription_id", "auth", "sdk", "reach"),
)
NAME_HELP = "The experiment's name: letters, digits, - and _."
RUN_HELP = "Run: its number, its id, or an experiment's name (its latest run); default: the latest run."
RUN_OPTIONS = {
    "name": NAME_HELP,
    "script": "Script to run; its arguments go after `--`. Default: that of the run configuration.",
    "environment": "Folder with an environment definition, a folder's name in env/, or a registered environment.",
    "data": "NAME=PATH: data that the script finds at $AZUREML_DATAREFERENCE_NAME; may be repeated. PATH can be in a"
    " workspace: azureml:ASSET[:VERSION|@latest] or azureml://datastores/STORE/paths/PATH.",
    "job": "Command job, component or sweep of Azure ML (.yml) to run in place of a script.",
    "input": "NAME=PATH or NAME=VALUE: an input of --job; may be repeated.",
    "edit": "Edit the run configuration in $EDITOR before the run starts.",
    "once": "Use these flags for this run only; the run configuration stays as it is.",
    "rank": "Rank of a distributed script to debug, N or all, on ports base + rank. Default: 0, or all with"
    " --on-error.",
    "follow": "Keep showing the log until the run ends; after Ctrl-C the run goes on.",
}
LEFT = "The run goes on; inv experiment.cancel ends it."


def _flow(call: Command) -> ExperimentFlow:
    from ..flows.experiment import ExperimentFlow

    return ExperimentFlow(call.settings, call.console)


def _options(
    call: Command,
    script: str | None,
    environment: str | None,
    data: Sequence[str],
    edit: bool,
    once: bool = False,
    job: str | None = None,
    input: Sequence[str] = (),
) -> RunOptions:
    import re

    from ..azureml.data_references import is_in_workspace
    from ..experiments.configure import RunOptions

    if job is not None:
        others = {"--script": script, "--environment": environment, "--data": data, "--edit": edit, "--once": once}
        typed = [flag for flag, value in others.items() if value] + (["--"] if "--" in sys.argv else [])
        if typed:
            raise BadValue(f"--job says what is run, and so does {typed[0]}.", "Leave out one of the two.")
        return RunOptions(job=absolute(job), inputs=read_inputs(input))
    if input:
        raise BadValue("--input is for the inputs of a --job.", "A script's data is given by --data NAME=PATH.")
    if script is not None and not script.endswith(".py"):
        from ..assets.kinds import check_is_script

        check_is_script(absolute(script), "--script")

    if edit and once:
        raise BadValue("--edit changes the run configuration, and --once leaves it.", "Leave out one of them.")
    places: dict[str, Path | str] = {}
    for entry in data:
        name, equals, path = entry.partition("=")
        # The name becomes part of an environment variable's name.
        if not equals or not path or not re.fullmatch(r"\w+", name, re.ASCII):
            raise BadValue(
                f"--data must be NAME=PATH, not {entry!r}.", "Correct it; a name has letters, digits and _ only."
            )
        places[name] = path if is_in_workspace(path) else absolute(path)
    return RunOptions(
        script=None if script is None else absolute(script),
        # A bare `--` means no arguments; without it the arguments stay as they were.
        arguments=call.remainder() if "--" in sys.argv else None,
        environment=environment,
        data=places or None,
        edit=edit,
        once=once,
    )


def _edit_here(call: Command, values: dict[str, Any]) -> bool:
    """With ``--remote --edit``: create and edit the run configuration on this machine, where the editor is."""
    if not values["edit"] or values["once"]:
        return False
    from ..experiments.configure import configure

    options = _options(call, values["script"], values["environment"], values["data"], True)
    configure(call.settings, call.console, values["name"], options)
    values.update(edit=False, script=None, environment=None, data=[])
    return True


@command(json=True, help={"name": NAME_HELP}, positional=["name"])
def create(call: Command, name: str) -> None:
    """Create an experiment, for experiment.run and experiment.debug."""
    from ..experiments import catalog

    flow = _flow(call)
    flow.create(name)
    call.console.line(f"Debug it  inv experiment.debug {name} --script train.py")
    path = catalog.runconfig_path(call.settings.project, name)
    call.console.result({"name": name, "run_configuration": str(path), "seconds": call.console.seconds})


@command(
    takes_remainder=True,
    settings=SETTINGS,
    json=True,
    help={**RUN_OPTIONS, "rank": "With --follow: this rank's log only; N or all."},
    iterable=["data", "input"],
    positional=["name"],
    paths={
        "script": "path",
        "job": "path",
        "environment": "path or name",
        "data": "name=path",
        "input": "name=path",
    },
    before=_edit_here,
    interrupted="What the run has started has been ended.",
)
def run(
    call: Command,
    name: str,
    data: list[str],
    input: list[str],
    script: str | None = None,
    job: str | None = None,
    environment: str | None = None,
    edit: bool = False,
    once: bool = False,
    rank: str = "all",
    follow: bool = False,
) -> None:
    """Run an experiment's script in the background, without a debugger."""
    number = read_rank(rank)
    flow = _flow(call)
    started = flow.run(name, _options(call, script, environment, data, edit, once, job, input))
    call.console.line()
    call.console.line(f"Its log   inv experiment.logs --run {started.number} --follow")
    call.console.line(f"Look      inv experiment.show --run {started.number}")
    call.console.line(f"End it    inv experiment.cancel --run {started.number}")
    call.console.result(submission_result(call.console, started, []))
    if follow:
        follow_to_end(call.console, flow.refresh, started, number)


@command(
    takes_remainder=True,
    settings=SETTINGS,
    json=True,
    help={
        **RUN_OPTIONS,
        "on_error": "Run at full speed, and hold for a debugger only where the script raises.",
        "children": "Debug the script's child processes, too (default).",
        "wait": "Hold the script before its first line (default). With --no-wait, attach at any time.",
    },
    iterable=["data", "input"],
    positional=["name"],
    paths={
        "script": "path",
        "job": "path",
        "environment": "path or name",
        "data": "name=path",
        "input": "name=path",
    },
    before=_edit_here,
    interrupted="What the run has started has been ended.",
)
def debug(
    call: Command,
    name: str,
    data: list[str],
    input: list[str],
    script: str | None = None,
    job: str | None = None,
    environment: str | None = None,
    edit: bool = False,
    once: bool = False,
    rank: str | None = None,
    on_error: bool = False,
    wait: bool = True,
    children: bool = True,
    follow: bool = False,
) -> None:
    """Run the whole chain: create, build, run, tail-log, attach."""
    from ..backends.base import DebugRequest
    from ..vscode import f5

    request = DebugRequest(rank=read_ranks(rank, on_error), on_error=on_error, wait=wait, children=children)
    flow = _flow(call)
    joined = flow.join(name, request) if f5.configuration_name() else None
    check_not_attached(joined[1] if joined else ())
    started, found = joined or flow.debug(
        name, _options(call, script, environment, data, edit, once, job, input), request
    )
    console = call.console
    console.line()
    if found:
        print_f5(console, found)
        sample = example_location(started, found[0]) if len(found) == 1 else ""
        if sample:
            console.line(f"Without editor  inv experiment.inspect {sample} --run {started.number}")
            if found[0].error_text:
                console.line(f"Only look       inv experiment.inspect --run {started.number}  (it holds on)")
        console.line(f"Its log         inv experiment.logs --run {started.number} --follow")
        console.line(f"End it          inv experiment.cancel --run {started.number}")
    else:
        why = "the script did not raise" if on_error else "it has started no Python script that could be debugged"
        console.line(f"The run {started.run_id} has completed, and {why}.")
    console.result(submission_result(console, started, found))
    call.ready()
    if follow:
        follow_to_end(console, flow.refresh, started)


@command(
    settings=("debug_timeout",),
    json=True,
    help={
        "run": RUN_HELP,
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
    print: bool = False,
    snapshot: bool = False,
    rank: str | None = None,
    take_over: bool = False,
) -> None:
    """Write the launch configuration of a debugged run to .vscode/launch.json, or print it."""
    flow = _flow(call)
    chosen = flow.find(run)
    if snapshot:
        attach_snapshot(call, lambda: flow.snapshots(chosen), rank, print)
        return
    check_no_rank(rank)
    if take_over:
        _agents.take_over(call.console, call.project, chosen.run_id)
    found = flow.tail_log(chosen)
    chosen = flow.refresh(chosen)
    attach_run(call.console, flow.attach, chosen, found, only_print=print)


@command(
    settings=("debug_timeout",),
    json=True,
    help={
        "location": LOCATION_HELP,
        "release": RELEASE_HELP,
        "run": RUN_HELP,
        "rank": "Rank of a distributed script, if several are debugged; all: all of them, side by side.",
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
    """Stop at lines of the script, or look at where it holds, and show stack and values, without an editor."""
    from ._inspect_flags import InspectFlags, inspect_run

    location, run = read_location_and_run(location, run)
    typed = InspectFlags(
        *(location, at, eval, set, when, hits, times, log, steps, step_into, frames, depth, all_code),
        *(timeout, on_error, all_locals),
    )
    flow = _flow(call)
    found = flow.find(run)
    result = inspect_run(call, found, typed, rank, release, lambda look, report: flow.inspect(found, look, report))
    call.console.result(result)


@command(
    json=True,
    help={"run": RUN_HELP, "rank": "Rank to look at, N or all; default: all.", **STACKS_HELP},
    iterable=["eval"],
    positional=["run"],
)
def stacks(
    call: Command,
    eval: list[str],
    run: str | None = None,
    rank: str = "all",
    watch: bool = False,
    all_code: bool = False,
) -> None:
    """Show where every process, rank, thread and task stands now, without stopping them."""
    from ._stacks import show_run

    number = read_rank(rank)
    flow = _flow(call)
    found = flow.find(run)
    show_run(call.console, flow.refresh, found, found.steps[0], number, eval, watch=watch, all_code=all_code)


@command(json=True, help={**SNAPSHOT_HELPS, "run": RUN_HELP}, iterable=["eval"], positional=["run"])
def snapshot(
    call: Command,
    eval: Sequence[str],
    run: str | None = None,
    rank: str | None = None,
    number: str | None = None,
    frame: str | None = None,
    list: bool = False,
) -> None:
    """Show the snapshot of a failed script: the exception, the stack, the variables."""
    flow = _flow(call)
    show_snapshot(
        call, lambda: flow.snapshots(flow.find(run)), SnapshotSelection(rank, number, frame, tuple(eval), list)
    )


@command(json=True, help={"all": "List every run, not only the latest ten."})
def list_(call: Command, all: bool = False) -> None:
    """List the experiments and their runs, the latest first."""
    from ._experiment_view import show_experiments

    show_experiments(call, *_flow(call).listing(all))


@command(json=True, help={"run": RUN_HELP}, positional=["run"])
def status(call: Command, run: str | None = None) -> None:
    """Show how a run stands, what can be attached to, and which agents are; experiment.show has all that was logged."""
    from ._status import show_status

    show_status(call, _flow(call).find(run))


@command(json=True, help={"run": RUN_HELP, "plot": "Draw this metric over its steps."}, positional=["run"])
def show(call: Command, run: str | None = None, plot: str | None = None) -> None:
    """Show a run: its state, settings, metrics and tags."""
    from ._experiment_view import show_run

    flow = _flow(call)
    show_run(call, flow, flow.find(run), plot, is_latest=run is None)


@command(
    settings=("debug_timeout",),
    help={
        "run": RUN_HELP,
        "build": "Show the log of the environment's build.",
        "follow": "Keep showing the log until the run ends or you press Ctrl-C.",
        "rank": "Show the log of this rank only: N or all.",
    },
    positional=["run"],
)
def logs(call: Command, run: str | None = None, build: bool = False, follow: bool = False, rank: str = "all") -> None:
    """Show the log of a run's script, or of its environment's build."""
    from ..flows.experiment_outputs import control_log
    from ..runs import record as records
    from ._log_output import stream
    from ._run_logs import show_logs
    from ._runs import follow_run

    number = read_rank(rank)
    flow = _flow(call)
    found = flow.find(run)
    step = found.steps[0]
    if number is not None and number >= step.ranks:
        has = f"ranks 0 to {step.ranks - 1}" if step.ranks > 1 else "one process only"
        raise UserError(f"There is no rank {number}: the run has {has}.", "Choose one of these: --rank N|all")
    if build:
        from ..logs.following import follow as following

        def built() -> bool:
            now = flow.refresh(found)
            if now.in_workspace:
                return not follow or now.steps[0].status not in (records.NOT_STARTED, records.PREPARING)
            return not follow or now.status != records.PREPARING

        stream(call.console, following(control_log(found), built))
        if found.in_workspace and not control_log(found).exists():
            call.console.line(
                "The workspace has built no environment for it: it was there, or its log is not there yet."
            )
        return
    if follow:
        try:
            follow_run(call.console, flow.refresh, found, None, number)
        except KeyboardInterrupt:
            call.console.line()
            raise Exit(code=INTERRUPTED) from None
        found = flow.refresh(found)
        check_success(found)
        return
    paths = [(place, path) for place, path in found.logs(step) if number in (None, place or 0)]
    if not any(path.exists() for _place, path in paths):
        state = step.phases[-1][0] if step.phases and not found.final else found.status
        raise UserError(
            f"The script of the run {found.run_id} has not been started: {state}.",
            f"See the build's log: inv experiment.logs --run {found.number} --build",
        )
    show_logs(call.console, paths)
    print_where_held(call.console, found, None)


@command(
    settings=("download_mb",),
    json=True,
    help={
        "run": RUN_HELP,
        "open": "Open this file with its default program.",
        "copy": "Copy everything into this folder, overwriting nothing.",
    },
    positional=["run"],
)
def outputs(call: Command, run: str | None = None, open: str | None = None, copy: str | None = None) -> None:
    """List, open or copy what a run's script has written to outputs and logs."""
    from ..flows import experiment_outputs
    from ..open_with import open_file
    from ..paths import shown

    flow = _flow(call)
    found = flow.find(run)
    named = flow.fetch_outputs(found)
    written = experiment_outputs.outputs(found)
    result: dict[str, object] = {
        "run_id": found.run_id,
        "files": [{"name": name, "path": str(path), "bytes": path.lstat().st_size} for name, path in written],
    }
    if copy is not None and not copy.strip():
        # A shell variable that is not set: the current folder is not meant.
        raise UserError("--copy is empty.", "Name a folder; it may exist or not.")
    if report.is_wanted() and (open is not None or copy is not None):
        # The files are wanted on the machine where the command was typed.
        chosen = written if open is None else [(open, experiment_outputs.find_output(found, open))]
        report.add(fetch=[[name, str(path)] for name, path in chosen if path.is_file()], copy=copy, run_id=found.run_id)
    elif open is not None:
        open_file(experiment_outputs.find_output(found, open))
    elif copy is not None:
        folder = Path(copy).expanduser().absolute()
        count = experiment_outputs.copy_outputs(found, folder)
        call.console.line(f"{count} file{'' if count == 1 else 's'} copied to {shown(folder)}")
        result["folder"] = str(folder)
    else:
        if not written:
            call.console.line(f"The run {found.run_id} has written nothing to outputs or logs.")
        for line in _rows(written):
            call.console.line(line)
        for name, place in named.items():
            call.console.line(f"{name} is in the workspace: {place}")
    if named:
        result["in_workspace"] = named
    call.console.result(result)


def _rows(written: Sequence[tuple[str, Path]]) -> Iterator[str]:
    width = max((len(name) for name, _path in written), default=0)
    for name, path in written:
        yield f"{name:<{width}}  {path.lstat().st_size:>12,} bytes"


@command(json=True, help={"run": RUN_HELP}, interrupted="Something of it may still run.", positional=["run"])
def cancel(call: Command, run: str | None = None) -> None:
    """End a run at once; its logs and outputs so far are kept."""
    from ..vscode import f5

    flow = _flow(call)
    # The editor has left the run that it debugged, which need not be the latest one of that name.
    found = (flow.session(run) if run and f5.configuration_name() else None) or flow.find(run)
    if f5.configuration_name() and not found.final and not found.debugged:
        call.console.line(f"The run {found.run_id} goes on.")
        return
    cancel_run(call.console, flow.refresh, flow.cancel, found)


@command(json=True, help={"dry_run": "Show what would be removed, and remove nothing."})
def prune(call: Command, dry_run: bool = False) -> None:
    """Remove images and environments that no project uses."""
    from ..flows.housekeeping import prune as remove

    removed = remove(call.console, call.project, call.settings.image_tag, dry_run)
    call.console.result({"removed": removed, "dry_run": dry_run})
