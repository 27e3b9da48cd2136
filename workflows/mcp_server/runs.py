"""The runs and the service of the project: finding them, and their JSON objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..runs import agent_sessions, attachable
from ..runs import record as records
from ..runs.record import RunRecord, StepRecord

if TYPE_CHECKING:
    from ..flows.existing_service import ExistingService
    from ..flows.experiment import ExperimentFlow
    from ..flows.pipeline import PipelineFlow
    from ..runs.attachable import Attachable
    from .state import State

PIPELINE, EXPERIMENT, DEPLOY = "pipeline", "experiment", "deploy"
#: Runs that are listed.
MOST_RUNS = 10
#: Steps of a run that are listed.
MOST_STEPS = 100
_RANK = {records.FAILED: 0, records.RUNNING: 1, records.PREPARING: 2}


def flow_of(state: State, story: str) -> PipelineFlow | ExperimentFlow:
    """The flow of a story that has runs."""
    if story == EXPERIMENT:
        from ..flows.experiment import ExperimentFlow

        return ExperimentFlow(state.settings, state.console())
    from ..flows.pipeline import PipelineFlow

    return PipelineFlow(state.settings, state.console())


def present(state: State) -> ExistingService:
    """The project's service."""
    from ..flows.existing_service import ExistingService

    return ExistingService(state.settings, state.console())


def all_runs(state: State) -> list[RunRecord]:
    """All runs of the project (pipelines and experiments), the latest first."""
    from ..runs import store

    found = [*store.all_runs(state.project, PIPELINE), *store.all_runs(state.project, EXPERIMENT)]
    return sorted(found, key=lambda run: -run.number)


def find_run(state: State, run: str | None, story: str | None = None) -> RunRecord:
    """Find a run.

    Args:
        state: The server's state.
        run: Its number or id; None for the latest.
        story: Search only this story; None for all.

    Raises:
        UserError: There is none.
    """
    if story is None and run is None:
        latest = next(iter(all_runs(state)), None)
        if latest is None:
            raise UserError("Nothing of this project has been run yet.", "Start a story with start.")
        return flow_of(state, latest.kind).refresh(latest)
    stories = (story,) if story in (PIPELINE, EXPERIMENT) else (PIPELINE, EXPERIMENT)
    error = UserError("", "")
    for one in stories:
        try:
            return flow_of(state, one).find(run)
        except UserError as missing:
            error = missing
    if len(stories) > 1:
        raise UserError(f"There is no run {run} here.", "List the runs with status.") from error
    raise error


def step_of(run: RunRecord, name: str | None) -> StepRecord | None:
    """A step by name; None if no name is given.

    Raises:
        UserError: There is none of that name.
    """
    if name is None:
        return None
    names = [step.name for step in run.steps]
    fitting = [name] if name in names else [one for one in names if one.endswith(f".{name}")]
    if len(fitting) != 1:
        raise UserError(f"There is no step {name} in the run {run.run_id}.", f"Its steps: {', '.join(names)}.")
    return run.step(fitting[0])


def endpoint_json(one: Attachable) -> dict[str, Any]:
    """The JSON object of what can be attached to."""
    found: dict[str, Any] = {"step": one.step.name, "rank": one.rank, "state": one.state, "open": one.is_open}
    if one.error_text:
        found["holds_at"] = one.error_text
        found["place"] = exception_place(one)
    return found


def exception_place(one: Attachable) -> str:
    """File and line of the exception at which a program holds, with the file's path on this machine."""
    error = one.error or {}
    file = str(error.get("file") or "")
    if not file:
        return ""
    for mapping in one.endpoint.path_mappings:
        inside = file.removeprefix(mapping.remote_root)
        if inside != file and inside[:1] in ("/", "\\"):
            file = str(mapping.local_root.joinpath(*inside.replace("\\", "/").strip("/").split("/")))
            break
    return f"{file}:{error.get('line')}"


def run_json(state: State, run: RunRecord, *, steps: bool = True) -> dict[str, Any]:
    """The JSON object of a run, with its steps and what can be attached to."""
    found: dict[str, Any] = {
        "run": run.number,
        "run_id": run.run_id,
        "story": run.kind,
        "name": run.name,
        "status": run.status,
        "seconds": round(run.seconds, 1),
    }
    if run.reason:
        found["reason"] = run.reason
    if run.trouble:
        found["as_last_heard"] = run.trouble
    if not steps:
        return found
    found["folder"] = str(run.folder)
    chosen = run.steps
    if len(chosen) > MOST_STEPS:
        # Steps that run or have failed matter most.
        chosen = sorted(chosen, key=lambda step: _RANK.get(step.status, len(_RANK)))[:MOST_STEPS]
        found["more_steps"] = len(run.steps) - MOST_STEPS
    found["steps"] = [_step_json(run, step) for step in chosen]
    attached = [one.as_json() for one in agent_sessions.list_sessions(state.project, run.run_id)]
    if attached:
        found["agents"] = attached
    return found


def _step_json(run: RunRecord, step: StepRecord) -> dict[str, Any]:
    from ..flows.snapshots import files_of

    found: dict[str, Any] = {"step": step.name, "status": step.status, "seconds": round(step.seconds, 1)}
    more = {"reason": step.reason, "waits_for": step.waits_for, "exit_code": step.exit_code}
    found |= {name: value for name, value in more.items() if value not in ("", None)}
    if step.ranks > 1:
        found["ranks"] = step.ranks
    endpoints = [endpoint_json(one) for one in attachable.attachables_of_step(run, step)]
    if endpoints and not step.final:
        found["endpoints"] = endpoints
    if step.status == records.FAILED and files_of(run, step):
        found["has_snapshot"] = True
    return found


def service_json(state: State) -> dict[str, Any] | None:
    """The JSON object of the project's service; None if there is none."""
    from ..debugger.readiness import current_state

    there = present(state)
    service = there.running()
    if service is None:
        return None
    status = there.state(service)
    found: dict[str, Any] = {
        "story": DEPLOY,
        "name": service.name,
        "engine": service.engine,
        "status": status,
        "script": str(service.score_script),
    }
    if status == "running" and current_state(service.events) == "waiting":
        found["holds"] = "for a debugger, before its script is loaded"
    if service.started:
        found["scoring_url"] = service.scoring_url
    attached = [one.as_json() for one in agent_sessions.list_sessions(state.project, "")]
    if attached:
        found["agents"] = attached
    return found


def list_attachable(state: State, run: RunRecord, only: str | None = None, rank: int | None = None) -> list[Attachable]:
    """What can be attached to now: what holds comes first, what already has a debugger last."""
    found = [
        one
        for step in run.steps
        if only in (None, step.name)
        for one in attachable.attachables_of_step(run, step)
        if one.is_open and (rank is None or (one.rank or 0) == rank)
    ]
    order = {attachable.WAITING: 0, attachable.ATTACHED: 2}
    return sorted(found, key=lambda one: order.get(one.state, 1))
