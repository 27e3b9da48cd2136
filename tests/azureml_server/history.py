"""Run history: experiments and runs, with their logged metrics and the tags and properties that clients set."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

from .state import ARTIFACTS, ENDED, Experiment, Run, State
from .tokens import make_token
from .web import HttpError, Request, Response, Route, answer, not_found, page, route

#: What run history calls the ends of events' names.
_EVENTS = {
    "Start": "Running",
    "Queued": "Queued",
    "Completed": "Completed",
    "Failed": "Failed",
}


class History:
    """Args:
    state: The workspace.
    cancel: Ends the processes of a run and of all below it.
    """

    def __init__(self, state: State, cancel: Callable[[Run], None]) -> None:
        self._state, self._cancel = state, cancel

    def routes(self) -> list[Route]:
        history = "/history/v1.0{ws}"
        found = [
            route("GET", f"{history}/experiments/{{experiment}}", self.get_experiment),
            route("POST", f"{history}/experiments/{{experiment}}", self.make_experiment),
            route("GET", f"{history}/experimentids/{{experiment_id}}", self.get_experiment),
            route("POST", f"{history}/experiments:query", self.list_experiments),
            route("GET", f"{history}/runs/{{run}}", self.get_run),
            route("GET", f"{history}/runs/{{run}}/details", self.details),
            route("GET", f"{history}/runs/{{run}}/children", self.children),
            route("POST", "/metric/v2.0{ws}/runs/{run}/batch", self.log_metrics),
            route("POST", "/metric/v2.0{ws}/runs/{run}/list", self.list_metrics),
            route("POST", "/metric/v2.0{ws}/runs/{run}/full", self.full_metric),
        ]
        for place in (f"{history}/experiments/{{experiment}}", f"{history}/experimentids/{{experiment_id}}"):
            found += [
                route("POST", f"{place}/runs:query", self.query_runs),
                route("POST", f"{place}/batch/runs", self.patch_runs),
                route("POST", f"{place}/batch/events", self.events),
                route("GET", f"{place}/runs", self.list_runs),
                route("GET", f"{place}/runs/{{run}}", self.get_run),
                route("PATCH", f"{place}/runs/{{run}}", self.patch_run),
                route("GET", f"{place}/runs/{{run}}/details", self.details),
                route("GET", f"{place}/runs/{{run}}/children", self.children),
                route("GET", f"{place}/runs/{{run}}/token", self.token),
                route("POST", f"{place}/runs/{{run}}/events", self.event),
                route("DELETE", f"{place}/runs/{{run}}/tags", self.delete_tags),
                route("GET", f"{place}/runs/{{run}}/metricsingest/wait", self.ingested),
            ]
        return found

    # Experiments

    def get_experiment(self, request: Request) -> Any:
        return _experiment(self._experiment(request))

    def make_experiment(self, request: Request) -> Any:
        return _experiment(self._state.experiment(request["experiment"]))

    def list_experiments(self, request: Request) -> Any:
        with self._state.lock:
            return page([_experiment(one) for one in self._state.experiments.values()])

    def _experiment(self, request: Request) -> Experiment:
        with self._state.lock:
            wanted = request.names.get("experiment")
            for one in self._state.experiments.values():
                if one.name == wanted or one.id == request.names.get("experiment_id"):
                    return one
        raise not_found(f"The experiment {wanted or request.names.get('experiment_id')}")

    # Runs

    def _run(self, request: Request) -> Run:
        run = self._state.runs.get(request["run"])
        if run is None:
            raise not_found(f"Run {request['run']}")
        return run

    def get_run(self, request: Request) -> Any:
        run = self._run(request)
        with self._state.lock:
            return self._dto(run)

    def details(self, request: Request) -> Any:
        run = self._run(request)
        base = f"{self._state.url}/{ARTIFACTS}/ExperimentRun/{run.container}"
        with self._state.lock:
            return {
                "runId": run.id,
                "target": run.target,
                "status": run.status,
                "startTimeUtc": run.started,
                "endTimeUtc": run.ended,
                "error": run.error,
                "warnings": run.warnings,
                "properties": run.properties,
                "runDefinition": run.definition,
                "logFiles": {name: f"{base}/{name}?sig=x" for name in self._state.logs(run)},
            }

    def children(self, request: Request) -> Any:
        return self._page(request, self._state.children(self._run(request).id))

    def list_runs(self, request: Request) -> Any:
        experiment = self._experiment(request)
        return self._page(request, [run for run in self._state.runs.values() if run.experiment is experiment])

    def query_runs(self, request: Request) -> Any:
        experiment = self._experiment(request)
        conditions = _conditions((request.json or {}).get("filter") or "")
        with self._state.lock:
            found = [
                run
                for run in self._state.runs.values()
                if run.experiment is experiment and all(_holds(run, *condition) for condition in conditions)
            ]
        return self._page(request, found)

    def _page(self, request: Request, runs: list[Run]) -> Any:
        """One page, the latest runs first, as the service has them; the token is where the next one begins."""
        body = request.json if request.method == "POST" else {}
        query = {name.lower(): value for name, value in request.query.items()}
        start = int(query.get("$continuationtoken") or (body or {}).get("continuationToken") or 0)
        size = int(query.get("$top") or (body or {}).get("top") or 100)
        with self._state.lock:
            runs = sorted(runs, key=lambda run: run.number, reverse=True)
            result = page([self._dto(run) for run in runs[start : start + size]])
        if start + size < len(runs):
            result["continuationToken"] = str(start + size)
            link = f"{self._state.url}{request.path}?$continuationtoken={start + size}&$top={size}"
            result["nextLink"] = link
        return result

    def patch_run(self, request: Request) -> Any:
        return self._patch(self._experiment(request), request["run"], request.json or {})

    def patch_runs(self, request: Request) -> Any:
        experiment = self._experiment(request)
        runs = {one["runId"]: self._patch(experiment, one["runId"], one) for one in request.json["runs"]}
        return {"runs": runs, "errors": {}}

    def _patch(self, experiment: Experiment, run_id: str, body: dict[str, Any]) -> Any:
        with self._state.lock:
            run = self._state.runs.get(run_id)
            if run is None:
                parent = body.get("parentRunId")
                if parent and parent not in self._state.runs:
                    raise HttpError(400, "UserError", f"The parent run {parent} does not exist.")
                run = self._state.add_run(run_id, experiment.name, parent=parent)
            run.tags.update({name: str(value) for name, value in (body.get("tags") or {}).items()})
            for name, value in (body.get("properties") or {}).items():
                if run.properties.get(name, value) != value:
                    raise HttpError(400, "UserError", f"The property {name} is there and does not change.")
                run.properties[name] = value
            run.name = body.get("name") or body.get("displayName") or run.name
            run.target = body.get("target") or run.target
            run.script = body.get("scriptName") or run.script
            run.type = body.get("runType") or run.type
            status = body.get("status")
            if status and status != run.status and status != "NotStarted":
                self._state.move(run, status)
            return self._dto(run)

    def delete_tags(self, request: Request) -> Any:
        run = self._run(request)
        with self._state.lock:
            for name in request.json or []:
                run.tags.pop(name, None)
            return self._dto(run)

    def token(self, request: Request) -> Any:
        seconds = self._state.run_token_seconds
        expires = datetime.now(timezone.utc) + timedelta(seconds=seconds)
        return {"token": make_token(seconds, run=self._run(request).id), "expiryTimeUtc": expires.isoformat()}

    # Events

    def event(self, request: Request) -> Any:
        self._happened(self._run(request), request.json)
        return Response(200)

    def events(self, request: Request) -> Any:
        for one in request.json["events"]:
            run = self._state.runs.get(one["data"]["RunId"])
            if run:
                self._happened(run, one)
        return {"errors": []}

    def _happened(self, run: Run, event: dict[str, Any]) -> None:
        name, data = event["name"].rsplit(".", 1)[-1], event.get("data") or {}
        if name == "Warning":
            with self._state.lock:
                run.warnings.append({"source": data.get("Source", ""), "message": data.get("Message", "")})
        elif name == "Error":
            with self._state.lock:
                run.error = data.get("ErrorResponse")
        elif name in ("CancelRequested", "Canceled"):
            # It has ended once its processes have.
            if run.status not in ENDED:
                self._state.move(run, "CancelRequested")
                self._cancel(run)
        elif name in _EVENTS:
            self._state.move(run, _EVENTS[name])

    # Metrics

    def log_metrics(self, request: Request) -> Any:
        run = self._run(request)
        with self._state.lock:
            run.metrics += request.json["values"]
        return answer({"errors": []})

    def list_metrics(self, request: Request) -> Any:
        run = self._run(request)
        with self._state.lock:
            names = {one["name"]: one for one in run.metrics}
        return page([{"metricKey": {"name": name}, "columns": one.get("columns")} for name, one in names.items()])

    def full_metric(self, request: Request) -> Any:
        run, wanted = self._run(request), request.json["metricName"]
        with self._state.lock:
            logged = [one for one in run.metrics if one["name"] == wanted]
        if not logged:
            raise not_found(f"The metric {wanted}")
        return {**logged[0], "value": [value for one in logged for value in one["value"]]}

    def ingested(self, request: Request) -> Any:
        return Response(200)

    def _dto(self, run: Run) -> dict[str, Any]:
        return {
            "runId": run.id,
            "runNumber": run.number,
            "runUuid": run.id,
            "rootRunId": run.root,
            "rootRunUuid": run.root,
            "parentRunId": run.parent,
            "experimentId": run.experiment.id,
            "status": run.status,
            "name": run.name,
            "displayName": run.name,
            "runType": run.type,
            "target": run.target,
            "scriptName": run.script,
            "createdUtc": run.created,
            "startTimeUtc": run.started,
            "endTimeUtc": run.ended,
            "dataContainerId": run.container,
            "tags": dict(run.tags),
            "properties": dict(run.properties),
            "runDefinition": run.definition,
            "error": run.error,
            "warnings": list(run.warnings),
            "hidden": False,
            "createdBy": {"userObjectId": "tester", "userTenantId": "tenant", "userName": "Tester"},
        }


def _experiment(one: Experiment) -> dict[str, Any]:
    return {
        "experimentId": one.id,
        "name": one.name,
        "description": one.description,
        "createdUtc": one.created,
        "tags": one.tags,
    }


def _conditions(text: str) -> list[tuple[str, str, str]]:
    """The parts of an OData filter, joined by `and`, that the client makes."""
    found = []
    for part in re.split(r"\)? and \(?", text.strip("()")):
        words = part.strip("() ").split(" ", 2)
        if len(words) == 3:
            found.append((words[0], words[1], words[2].strip("'\"")))
    return found


def _holds(run: Run, name: str, operator: str, value: str) -> bool:
    values = {"rootrunid": run.root, "runid": run.id, "parentrunid": run.parent, "status": run.status}
    values |= {"runtype": run.type, "target": run.target}
    wanted = None if value == "null" else value
    if name.lower() in values:
        actual: str | None = values[name.lower()]
    elif name.lower().startswith("tags/"):
        actual = run.tags.get(name[5:])
    elif name.lower().startswith("properties/"):
        actual = run.properties.get(name[11:])
    else:
        return True
    return (actual != wanted) if operator == "ne" else (actual == wanted)
