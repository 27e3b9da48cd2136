"""Shows the status of a run and its steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..formatting import format_duration
from . import _agents
from ._runs import remark
from ._snapshots import print_snapshot_commands

if TYPE_CHECKING:
    from ..runs.record import RunRecord
    from ._command import Command

#: The most metrics and parameters of a step that are shown.
SHOWN_LOGGED = 6


def show_status(call: Command, found: RunRecord) -> None:
    """Show a run and its steps, where a debugger can attach, and which agents are attached."""
    from ..experiments.metrics import as_json_value, format_value
    from ..experiments.mlflow_reader import read_run
    from ..paths import shown as shown_path
    from ..runs import attachable

    console = call.console
    console.line(f"{found.run_id}  {found.status}{f': {found.reason}' if found.reason else ''}")
    if found.trouble:
        console.line(f"  as last heard: the workspace: {found.trouble}")
    width = max(len(step.name) for step in found.steps)
    states = {step.name: attachable.attachables_of_step(found, step) for step in found.steps}
    logged = {step.name: read_run(found.step_folder(step.name), step.run_id, last=True) for step in found.steps}
    for step in found.steps:
        took = format_duration(step.seconds) if step.started else ""
        remarks = remark(states[step.name], step.reason or step.waits_for)
        status = step.phases[-1][0] if step.phases and not step.final else step.status
        console.line(f"  {step.name:<{width}}  {status:<10}  {took:>8}  {remarks}".rstrip())
        texts = [f"{name} {format_value(value)}" for name, value in logged[step.name].last().items()]
        texts += [f"{name}={format_value(value)}" for name, value in logged[step.name].params.items()]
        if texts:
            console.line(f"  {'':<{width}}  {', '.join(texts[:SHOWN_LOGGED])}")
    console.line(f"Logs and outputs: {shown_path(found.folder)}")
    agents = _agents.show_sessions(console, call.project, found.kind, found.run_id, found.number)
    print_snapshot_commands(console, found)
    result = found.as_json()
    for entry in result["steps"]:
        entry["endpoints"] = [one.as_json() for one in states[entry["name"]]]
        one = logged[entry["name"]]
        entry |= {"metrics": {name: as_json_value(value) for name, value in one.last().items()}, "params": one.params}
    console.result({**result, "agents": agents})
