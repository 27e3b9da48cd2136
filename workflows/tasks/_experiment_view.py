"""Shows experiments and their runs, for `experiment.list` and `experiment.show`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import UserError
from ..experiments.metrics import format_value, read_all
from ..formatting import format_duration
from . import _agents
from ._runs import remark
from ._snapshots import print_snapshot_commands

if TYPE_CHECKING:
    from ..console import Console
    from ..experiments.metrics import Logged
    from ..flows.experiment import ExperimentFlow
    from ..runs.attachable import Attachable
    from ..runs.record import RunRecord
    from ._command import Command

#: The most nested runs that are shown.
SHOWN_NESTED = 20
#: The most metrics, parameters and tags in one line.
SHOWN_VALUES = 6
#: The widest plot, in columns.
PLOT_WIDTH = 100
#: Bytes that are read at the end of what a run has logged, for the last values.
LAST_BYTES = 64 * 1024


def show_experiments(call: Command, counts: Mapping[str, int], runs: Sequence[RunRecord]) -> None:
    """Show the experiments and their runs.

    Args:
        call: The command.
        counts: The number of all runs, by experiment.
        runs: The runs to show, the latest first.
    """
    from ..experiments import catalog

    console = call.console
    if not counts:
        console.line("This project has no experiment yet. First: inv experiment.debug NAME --script train.py")
    logged = {one.run_id: read_all(one, LAST_BYTES) for one in runs}
    number = max((len(str(one.number)) for one in runs), default=0)
    width = max((len(one.run_id) for one in runs), default=0)
    for name, count in counts.items():
        own = [one for one in runs if one.name == name]
        fewer = f", the latest {len(own)} of them shown (--all)" if own and len(own) < count else ""
        console.line(f"{name}  {count or 'no'} run{'' if count == 1 else 's'}{fewer}")
        for one in own:
            values = _format_values(logged[one.run_id].last(), logged[one.run_id].tags)
            started = time.strftime("%Y-%m-%d %H:%M", time.localtime(one.created))
            debugged = "debugged" if one.debugged else ""
            row = f"{one.number:>{number}}  {one.run_id:<{width}}  {one.status:<11}  {started}  {_duration(one):>10}"
            console.line(f"  {row}  {debugged:<8}  {values}".rstrip())
    console.result(
        {
            "experiments": [
                {"name": name, "runs": count, "created": catalog.creation_time(call.settings.project, name)}
                for name, count in counts.items()
            ],
            "runs": [
                {**one.as_json(), "metrics": _last_values(logged[one.run_id]), "tags": logged[one.run_id].tags}
                for one in runs
            ],
        }
    )


def show_run(call: Command, flow: ExperimentFlow, run: RunRecord, plot: str | None, *, is_latest: bool) -> None:
    """Show a run: its state, settings, metrics and tags.

    Args:
        call: The command.
        flow: The experiments' flow.
        run: The run.
        plot: The metric to draw; None for none.
        is_latest: Whether it was chosen as the latest run.

    Raises:
        UserError: The run has no such metric.
    """
    from ..experiments.plot import draw
    from ..runs import attachable

    console, logged = call.console, read_all(run)
    if plot is not None:
        _check_metric(run, logged, plot)
    if is_latest:
        from ..remote import latest_run

        latest_run.print_if_newer(console, call.project, "experiment", "experiment.show", run.created)
    endpoints = attachable.attachables_of_run(run)
    _show_state(console, flow, run, endpoints)
    print_snapshot_commands(console, run)
    _show_logged(console, logged)
    if not_read := flow.why_metrics_incomplete(run):
        console.line(f"  note: metrics: {not_read}")
    _show_nested(console, logged)
    if plot is not None:
        console.line(plot)
        for line in draw(logged.series(plot), min(console.width, PLOT_WIDTH)):
            console.line(line)
    agents = _agents.show_sessions(console, call.project, run.kind, run.run_id, run.number)
    result = {**run.as_json(), **logged.as_json(), "endpoints": [one.as_json() for one in endpoints if one.is_open]}
    result["agents"] = agents
    if plot is not None:
        result["points"] = logged.as_json()["metrics"][plot]
    console.result(result)


def _check_metric(run: RunRecord, logged: Logged, name: str) -> None:
    if logged.series(name):
        return
    names = [one for one in logged.metrics if logged.series(one)]
    remedy = (
        f"Existing ones: {', '.join(names)}"
        if names
        else "Its script has logged none. Log it with mlflow or with azureml-core's run."
    )
    raise UserError(f"The run {run.run_id} has no numeric metric {name}.", remedy)


def _show_state(console: Console, flow: ExperimentFlow, run: RunRecord, endpoints: Sequence[Attachable]) -> None:
    from ..paths import shown

    remarks = remark(endpoints, run.steps[0].reason or run.reason)
    console.line(f"{run.run_id}  {run.status}{f': {remarks}' if remarks else ''}")
    if run.trouble:
        console.line(f"  as last heard: the workspace: {run.trouble}")
    started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.created))
    rows = {
        "script": run.command,
        "engine": run.engine,
        "started": f"{started}, took {_duration(run)}{'' if run.final else ' so far'}",
        "debugged": "on error" if run.on_error else "yes" if run.debugged else "no",
        "folder": str(shown(run.folder)),
        **flow.workspace_details(run),
    }
    for title, text in rows.items():
        console.line(f"  {title:<10}{text}")


def _show_logged(console: Console, logged: Logged) -> None:
    of_mlflow = {"Parameters": logged.params, "Tags": logged.tags, "Properties": logged.properties}
    for title, values in {"Metrics": logged.last(), **of_mlflow}.items():
        if values:
            console.line(title)
        for name, value in values.items():
            count = logged.count(name) if title == "Metrics" else 1
            console.line(f"  {name} = {format_value(value)}{f'  (last of {count})' if count > 1 else ''}")


def _show_nested(console: Console, logged: Logged) -> None:
    if logged.nested:
        console.line("Nested runs")
    for one in logged.nested[:SHOWN_NESTED]:
        values = _format_values(one.last(), one.params)
        console.line(f"  {one.name or one.run_id}: {values or 'nothing logged'}")
    if len(logged.nested) > SHOWN_NESTED:
        console.line(f"  and {len(logged.nested) - SHOWN_NESTED} more (--json)")


def _format_values(metrics: Mapping[str, object], others: Mapping[str, object]) -> str:
    """The first metrics, and parameters or tags, in one line."""
    texts = [f"{name} {format_value(value)}" for name, value in metrics.items()]
    texts += [f"{name}={format_value(value)}" for name, value in others.items()]
    return ", ".join(texts[:SHOWN_VALUES])


def _last_values(logged: Logged) -> dict[str, object]:
    return {name: values[-1] for name, values in logged.as_json()["metrics"].items() if values}


def _duration(run: RunRecord) -> str:
    from ..flows.experiment import run_seconds

    return format_duration(run_seconds(run))
