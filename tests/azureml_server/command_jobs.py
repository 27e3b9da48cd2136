"""Jobs of SDK v2: commands and pipelines, submitted whole."""

from __future__ import annotations

import re
import threading
import uuid
from typing import Any

from .assets import Assets
from .runner import Runner
from .services import Services
from .specifications import Place, Reader, text_of
from .state import ENDED, Run, State
from .web import HttpError, Request, Response, Route, answer, not_found, page, route

_NEEDS = re.compile(r"\$\{\{\s*parent\.jobs\.([\w-]+)\.")
_WHOLE_OUTPUT = re.compile(r"\$\{\{\s*parent\.outputs\.([\w-]+)\s*\}\}")
#: Steps that have runs of their own below them, and what run history calls those steps.
_KINDS = {"pipeline": "azureml.PipelineRun", "sweep": "azureml.HyperDriveRun"}


class Jobs:
    """Args:
    state: The workspace.
    runner: Does the work.
    assets: Code, components and environments.
    services: What jobs ask for beside their command.
    """

    def __init__(self, state: State, runner: Runner, assets: Assets, services: Services) -> None:
        self._state, self._runner, self._services = state, runner, services
        self._reader = Reader(state, assets)
        self._specifications: dict[str, dict[str, Any]] = {}

    def routes(self) -> list[Route]:
        return [
            route("PUT", "{ws}/jobs/{job}", self.create),
            route("GET", "{ws}/jobs/{job}", self.get),
            route("GET", "{ws}/jobs", self.listed),
            route("POST", "{ws}/jobs/{job}/cancel", self.cancel),
            route("GET", "/cancelled/{job}", self.cancelled),
            route("POST", "/history/v1.0{ws}/rundata", self.data),
            route("POST", "/data/v1.0{ws}/dataversion/batchGetResolvedUris", self.resolved),
        ]

    def create(self, request: Request) -> Any:
        spec, name = request.json["properties"], request["job"]
        if name in self._specifications:
            return self._dto(self._state.runs[name])
        pipeline = spec["jobType"] == "Pipeline"
        if not pipeline:
            self._see_compute(spec)
        for step in (spec.get("jobs") or {}).values():
            self._see_compute({"computeId": spec.get("settings", {}).get("default_compute"), **step})
        kind = "azureml.PipelineRun" if pipeline else "azureml.scriptrun"
        run = self._state.add_run(name, spec.get("experimentName") or "Default", type=kind)
        run.name = spec.get("displayName")
        run.tags.update(spec.get("tags") or {})
        run.properties.update(spec.get("properties") or {})
        self._specifications[name] = spec
        if pipeline:
            self._runner.adopt(threading.Thread(target=self._work, args=(run, spec), name=f"run {name}", daemon=True))
        else:
            self._begin(run, spec, Place({key: text_of(value) for key, value in (spec.get("inputs") or {}).items()}))
        return answer(self._dto(run), 201)

    def specification(self, name: str) -> dict[str, Any]:
        """For tests: what was submitted as a job, as it was received."""
        return self._specifications[name]

    def _see_compute(self, spec: dict[str, Any]) -> None:
        name = _compute(spec)
        if name and name not in self._state.computes:
            raise HttpError(400, "UserError", f"Unknown compute target '{name}'.")

    def _run(self, request: Request) -> Run:
        run = self._state.runs.get(request["job"])
        if run is None:
            raise not_found(f"The job {request['job']}")
        return run

    def get(self, request: Request) -> Any:
        return self._dto(self._run(request))

    def listed(self, request: Request) -> Any:
        with self._state.lock:
            return page([self._dto(self._state.runs[name]) for name in self._specifications])

    def cancel(self, request: Request) -> Any:
        run = self._run(request)
        self._runner.cancel(run)
        return Response(202, b"", self._wait(run))

    def cancelled(self, request: Request) -> Any:
        run = self._run(request)
        return Response(200, b"{}") if run.status in ENDED else Response(202, b"", self._wait(run))

    def _wait(self, run: Run) -> dict[str, str]:
        return {"Location": f"{self._state.url}/cancelled/{run.id}", "Retry-After": "1"}

    def data(self, request: Request) -> Any:
        run = self._state.runs.get((request.json or {}).get("runId", ""))
        if run is None:
            raise not_found("The run")
        told = {"runId": run.id, "rootRunId": run.root, "status": run.status, "dataContainerId": run.container}
        outputs = {name: {"assetId": _asset(run, name), "type": "UriFolder"} for name in run.outputs}
        return {"runMetadata": {**told, "outputs": outputs}, "runDefinition": None, "jobSpecification": None}

    def resolved(self, request: Request) -> Any:
        """Where assets that jobs have made lie, by their ids."""
        known = {_asset(run, name): run.outputs[name] for run in self._state.runs.values() for name in run.outputs}
        parts = self._state.scope.strip("/").split("/")
        long = f"azureml://subscriptions/{parts[1]}/resourcegroups/{parts[3]}/workspaces/{parts[-1]}/"
        found = {
            one: {"uri": known[one].replace("azureml://", long, 1), "type": "uri_folder"}
            for one in request.json["values"]
            if one in known
        }
        return {"values": found}

    def _dto(self, run: Run) -> dict[str, Any]:
        spec = self._specifications[run.id]
        services: dict[str, Any] = {
            "Tracking": {"jobServiceType": "Tracking", "endpoint": f"{self._state.url}/mlflow"},
            "Studio": {"jobServiceType": "Studio", "endpoint": f"https://ml.azure.com/runs/{run.id}"},
        }
        for name, told in (spec.get("services") or {}).items():
            services[name] = {**told, "status": self._services.status(run, name)}
        # Of a step's outputs it is not told where they lie: the SDK asks the data service.
        outputs = {
            name: {**told, "uri": None if run.parent else run.outputs.get(name)}
            for name, told in (spec.get("outputs") or {}).items()
        }
        logs = f"azureml://datastores/workspaceartifactstore/ExperimentRun/{run.container}"
        outputs["default"] = {"jobOutputType": "uri_folder", "mode": "ReadWriteMount", "uri": logs}
        return {
            "id": f"{self._state.scope}/jobs/{run.id}",
            "name": run.id,
            "type": "Microsoft.MachineLearningServices/workspaces/jobs",
            "systemData": {"createdAt": run.created, "createdBy": "Tester", "createdByType": "User"},
            "properties": {
                **spec,
                "status": run.status,
                "tags": dict(run.tags),
                "properties": dict(run.properties),
                "isArchived": False,
                "parentJobName": run.parent,
                "experimentName": run.experiment.name,
                "services": services,
                "outputs": outputs,
            },
        }

    # The work

    def _begin(self, run: Run, spec: dict[str, Any], place: Place, ended: threading.Event | None = None) -> None:
        run.target = _compute(spec)
        done = ended.set if ended is not None else lambda: None
        try:
            job = self._reader.read(run, spec, place)
        except Exception as error:
            self._state.move(run, "Failed", f"{type(error).__name__}: {error}")
            done()
            return
        job.where = self._services.prepare(run, spec.get("services") or {}, job.nodes)

        def finish() -> None:
            self._services.end(run)
            done()

        self._runner.start(job, finish)

    def _work(self, run: Run, spec: dict[str, Any], place: Place | None = None, default: Any = None) -> None:
        """The steps of a pipeline: each as soon as those that it needs have completed."""
        steps = {name: self._reader.whole(step) for name, step in spec["jobs"].items()}
        default = (spec.get("settings") or {}).get("default_compute") or default
        needs = {name: set(_NEEDS.findall(repr(step.get("inputs") or {}))) for name, step in steps.items()}
        if place is None:
            place = Place({name: text_of(value) for name, value in (spec.get("inputs") or {}).items()})
        children: dict[str, Run] = {}
        events: dict[str, threading.Event] = {}
        self._state.move(run, "Running")
        while len(children) < len(steps) or any(not event.is_set() for event in events.values()):
            failed = any(child.status in ("Failed", "Canceled") for child in children.values())
            if run.cancelled.is_set() or failed:
                break
            for name, step in steps.items():
                ready = all(one in children and children[one].status == "Completed" for one in needs[name])
                if name in children or not ready:
                    continue
                for other in needs[name]:
                    place.outputs |= {(other, key): value for key, value in children[other].outputs.items()}
                children[name], events[name] = self._child(run, name, step), threading.Event()
                self._begin_step(children[name], step, place, default, events[name])
            run.cancelled.wait(0.05)
        for child in children.values():
            if child.status not in ENDED:
                self._runner.cancel(child)
        for event in events.values():
            event.wait(10)
        for name, step in steps.items():
            for port, bound in (step.get("outputs") or {}).items():
                match = _WHOLE_OUTPUT.fullmatch(text_of(bound).strip())
                if match is not None and name in children and port in children[name].outputs:
                    run.outputs[match[1]] = children[name].outputs[port]
        self._finish(run, children)

    def _child(self, run: Run, name: str, step: dict[str, Any]) -> Run:
        kind = _KINDS.get(_kind(step), "azureml.StepRun")
        child = self._state.add_run(str(uuid.uuid4()), run.experiment.name, parent=run.id, type=kind, name=name)
        child.properties |= {"azureml.pipelinerunid": run.id, "azureml.moduleName": name}
        self._specifications[child.id] = {**step, "jobType": "Command", "displayName": name}
        return child

    def _begin_step(self, child: Run, step: dict[str, Any], place: Place, default: Any, done: threading.Event) -> None:
        """Begin a step; one that has steps of its own is over when they are."""
        kind = _kind(step)
        if kind not in _KINDS:
            self._begin(child, {"computeId": default, **step}, place, done)
            return

        def work() -> None:
            try:
                if kind == "pipeline":
                    self._work(child, step, Place(self._reader.values(step, place)), default)
                else:
                    self._sweep(child, step, place, default)
            except Exception as error:
                self._state.move(child, "Failed", f"{type(error).__name__}: {error}")
            finally:
                done.set()

        self._runner.adopt(threading.Thread(target=work, name=f"run {child.id}", daemon=True))

    def _sweep(self, run: Run, step: dict[str, Any], place: Place, default: Any) -> None:
        """The trials of a sweep, one after the other; its outputs are those of the first."""
        trial = step["trial"]
        trial = self._reader.whole({"componentId": trial} if isinstance(trial, str) else trial)
        limits = step.get("limits") or {}
        count = int(limits.get("max_total_trials") or limits.get("maxTotalTrials") or 1)
        space = step.get("search_space") or step.get("searchSpace") or {}
        children: dict[str, Run] = {}
        self._state.move(run, "Running")
        for number in range(count):
            chosen = {name: _value(told, number) for name, told in space.items()}
            spec = {"computeId": default, **trial, "inputs": {**(step.get("inputs") or {}), **chosen}}
            spec["outputs"] = step.get("outputs") or {}
            child = self._child(run, f"{run.name}_{number}", {**trial, "type": "command"})
            children[child.id] = child
            event = threading.Event()
            self._begin(child, spec, place, event)
            while not event.wait(0.05):
                if run.cancelled.is_set():
                    self._runner.cancel(child)
            if child.status != "Completed":
                break
        run.outputs.update(next(iter(children.values())).outputs)
        self._finish(run, children)

    def _finish(self, run: Run, children: dict[str, Run]) -> None:
        failed = [name for name, child in children.items() if child.status == "Failed"]
        if run.cancelled.is_set():
            self._state.move(run, "Canceled")
        elif failed:
            text = f"Pipeline has failed child jobs. Failed nodes: /{', /'.join(failed)}."
            self._state.move(run, "Failed", text)
        else:
            self._state.move(run, "Completed")


def _asset(run: Run, output: str) -> str:
    """The id of the data asset that an output is."""
    return f"azureml://locations/here/workspaces/it/data/azureml_{run.id}_output_data_{output}/versions/1"


def _compute(spec: dict[str, Any]) -> str:
    return str(spec.get("computeId") or spec.get("compute") or "").removeprefix("azureml:").rpartition("/")[2]


def _kind(step: dict[str, Any]) -> str:
    return "pipeline" if step.get("jobs") else str(step.get("type") or "").lower()


def _value(told: Any, number: int) -> Any:
    """A trial's value of a parameter: of a choice the next one, else the lowest."""
    kind, arguments = (told[0], told[1]) if isinstance(told, list) else (told.get("type"), [told.get("values")])
    values = arguments[0] if isinstance(arguments[0], list) else arguments
    return values[number % len(values)] if kind == "choice" else values[0]
