"""The pipeline service: modules, data sources, graphs, and their runs."""

from __future__ import annotations

import queue
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from .graphs import StepReader, dependencies
from .runner import Runner
from .state import DATASTORE, ENDED, PIPELINE_WORDS, Run, State
from .web import HttpError, Request, Response, Route, not_found, route

#: Fills in the rest of what the SDK's classes want to see.
_DATES = {"CreatedDate": "2026-01-01T00:00:00Z", "LastModifiedDate": "2026-01-01T00:00:00Z", "EntityStatus": "0"}


@dataclass
class PipelineRun:
    """A pipeline's run: its graph, and the runs of the steps that have begun."""

    run: Run
    graph: dict[str, Any]
    parameters: dict[str, str]
    go_on: bool
    submitted: bool = False
    nodes: dict[str, Run] = field(default_factory=dict)


class Pipelines:
    """Args:
    state: The workspace.
    runner: Does the steps.
    closing: Seconds that a run goes on after its last step.
    """

    def __init__(self, state: State, runner: Runner, closing: Callable[[], float]) -> None:
        self._state, self._runner, self._closing = state, runner, closing
        self._modules: dict[str, dict[str, Any]] = {}
        self._sources: dict[str, dict[str, Any]] = {}
        self._types: dict[str, dict[str, Any]] = {}
        self._pipelines: dict[str, PipelineRun] = {}

    def routes(self) -> list[Route]:
        base = "/pipelines/v1.0{ws}"
        run = f"{base}/PipelineRuns/{{pipeline}}"
        return [
            route("GET", f"{base}/DataTypes", lambda request: list(self._types.values())),
            route("POST", f"{base}/DataTypes", self.make_type),
            route("GET", f"{base}/Modules/Hash/{{hash}}", self.by_hash),
            route("POST", f"{base}/Modules", self.make_module),
            route("GET", f"{base}/Modules/{{module}}", self.module),
            route("GET", f"{base}/DataSources/Hash/{{hash}}", self.by_hash),
            route("POST", f"{base}/DataSources", self.make_source),
            route("GET", f"{base}/DataSources/{{source}}", self.source),
            route(
                "GET",
                f"{base}/Graphs/{{pipeline}}",
                lambda request: {"Id": request["pipeline"], **self._of(request).graph},
            ),
            route("POST", f"{base}/PipelineRuns/Unsubmitted/CreationInfoWithGraph", self.make_run),
            route("POST", f"{base}/PipelineRuns/Submit/{{pipeline}}", self.submit),
            route("GET", run, lambda request: self._entity(self._of(request))),
            route("DELETE", f"{run}/Execution", self.cancel),
            route(
                "POST",
                f"{run}/Graph/Node/StatusCode",
                lambda request: self._status(self._of(request), request.json[-1])["StatusCode"],
            ),
            route(
                "POST", f"{run}/Graph/Node/Status", lambda request: self._status(self._of(request), request.json[-1])
            ),
            route("POST", f"{run}/Graph/AllNodes/Status", self.all_nodes),
            route("POST", f"{run}/Graph/Shareable/{{log}}", self.log),
            route("POST", f"{run}/Outputs", self.outputs),
        ]

    # Modules, data sources, types

    def make_type(self, request: Request) -> Any:
        body = request.json
        entity = {**_DATES, "Id": body["Name"], **body}
        self._types[body["Name"]] = entity
        return entity

    def by_hash(self, request: Request) -> Any:
        # Nothing is reused here.
        raise not_found(request["hash"])

    def make_module(self, request: Request) -> Any:
        body, found = request.json, str(uuid.uuid4())
        if not body.get("IsInterfaceOnly") and body.get("StorageId") not in self._state.snapshots:
            raise HttpError(400, "UserError", f"The snapshot {body.get('StorageId')} does not exist.")
        self._modules[found] = {**_DATES, "UploadState": "Completed", **body, "Id": found}
        return self._modules[found]

    def module(self, request: Request) -> Any:
        module = self._modules.get(request["module"])
        if module is None:
            raise not_found(f"The module {request['module']}")
        interface = module.get("StructuredInterface") or {}
        ports = {
            "Inputs": [
                {"Name": one["Name"], "DataTypesIds": one.get("DataTypeIdsList")}
                for one in interface.get("Inputs") or []
            ],
            "Outputs": [
                {"Name": one["Name"], "DataTypeId": one.get("DataTypeId")} for one in interface.get("Outputs") or []
            ],
        }
        parameters = {name: interface.get(name) or [] for name in ("Parameters", "MetadataParameters")}
        return {"Data": module, "Interface": {**parameters, "Ports": ports}}

    def make_source(self, request: Request) -> Any:
        body, found = request.json, str(uuid.uuid4())
        self._sources[found] = {**_DATES, **body, "Id": found}
        return self.source(Request("GET", "", names={"source": found}))

    def source(self, request: Request) -> Any:
        source = self._sources.get(request["source"])
        if source is None:
            raise not_found(f"The data source {request['source']}")
        place = {"RelativePath": source.get("PathOnDataStore"), "AmlDataStoreName": source.get("DataStoreName")}
        return {
            **source,
            "UploadState": "Completed",
            "DataLocation": {"DataReference": {"Type": "AzureBlob", "AzureBlobReference": place}},
        }

    # Runs of pipelines

    def _of(self, request: Request) -> PipelineRun:
        pipeline = self._pipelines.get(request["pipeline"])
        if pipeline is None:
            raise not_found(f"The pipeline run {request['pipeline']}")
        return pipeline

    def make_run(self, request: Request) -> Any:
        info, graph = request.json["CreationInfo"], request.json["Graph"]
        defaults = (request.json.get("GraphInterface") or {}).get("Parameters") or []
        parameters = {one["Name"]: str(one.get("DefaultValue")) for one in defaults}
        parameters.update(info.get("ParameterAssignments") or {})
        name = request.query.get("experimentName") or info.get("RunHistoryExperimentName")
        if not name:
            raise HttpError(400, "UserError", "No experiment is named.")
        run = self._state.add_run(str(uuid.uuid4()), name, type="azureml.PipelineRun")
        run.name = info.get("Description")
        run.properties.update({"azureml.runsource": "azureml.PipelineRun", "runSource": "SDK"})
        run.properties.update(info.get("Properties") or {})
        run.tags.update(info.get("tags") or {})
        go_on = bool(info.get("ContinueExperimentOnNodeFailure") or info.get("ContinueRunOnStepFailure"))
        self._pipelines[run.id] = PipelineRun(run, graph, parameters, go_on)
        return self._entity(self._pipelines[run.id])

    def submit(self, request: Request) -> Any:
        pipeline = self._of(request)
        pipeline.submitted = True
        thread = threading.Thread(target=self._work, args=(pipeline,), name=f"run {pipeline.run.id}", daemon=True)
        self._runner.adopt(thread)
        return Response(200)

    def cancel(self, request: Request) -> Any:
        pipeline = self._of(request)
        self._runner.cancel(pipeline.run)
        return Response(200)

    def _entity(self, pipeline: PipelineRun) -> dict[str, Any]:
        run = pipeline.run
        word = PIPELINE_WORDS.get(run.status, run.status)
        return {
            **_DATES,
            "Id": run.id,
            "GraphId": run.id,
            "Description": run.name,
            "Status": {"StatusCode": word, "StatusDetail": None, "CreationTime": run.created, "EndTime": run.ended},
            "IsSubmitted": pipeline.submitted,
            "HasErrors": False,
            "UploadState": "Completed",
            "RunHistoryExperimentName": run.experiment.name,
            "RunSource": "SDK",
            "RunType": "SDK",
            "TotalRunSteps": len(pipeline.graph["ModuleNodes"]),
            "tags": run.tags,
            "Properties": run.properties,
            "ParameterAssignments": pipeline.parameters,
        }

    # Nodes

    def _status(self, pipeline: PipelineRun, node: str) -> dict[str, Any]:
        run = pipeline.nodes.get(node)
        status = run.status if run else "NotStarted"
        if run is None and pipeline.run.status in ENDED:
            status = "Canceled"
        return {
            "StatusCode": PIPELINE_WORDS.get(status, status),
            "RunId": run.id if run else None,
            "StartTime": run.started if run else None,
            "EndTime": run.ended if run else None,
        }

    def all_nodes(self, request: Request) -> Any:
        pipeline = self._of(request)
        return {node["Id"]: self._status(pipeline, node["Id"]) for node in pipeline.graph["ModuleNodes"]}

    def _node(self, request: Request) -> Run:
        run = self._of(request).nodes.get(request.json[-1])
        if run is None:
            raise HttpError(404, "UserError", "The step has not begun.")
        return run

    def log(self, request: Request) -> Any:
        run = self._node(request)
        names = [name for name in self._state.logs(run) if "70_driver_log" in name or name.startswith("user_logs/")]
        wanted = names if request["log"].upper() == "STDOUT" else []
        text = b"".join(self._state.artifact(run, name).read_bytes() for name in wanted)
        return Response(200, text, type="text/plain")

    def outputs(self, request: Request) -> Any:
        run = self._node(request)
        found = {}
        for name, place in run.outputs.items():
            reference = {
                "Container": DATASTORE,
                "RelativePath": place,
                "AmlDataStoreName": "workspaceblobstore",
                "Account": "storage",
                "Uri": f"{self._state.url}/{DATASTORE}/{place}",
            }
            location = {"StorageType": "AzureBlob", "DataReference": {"Type": "1", "AzureBlobReference": reference}}
            found[name] = {"DataTypeId": "AnyDirectory", "DataLocation": location}
        return found

    # The work

    def _work(self, pipeline: PipelineRun) -> None:
        run, state = pipeline.run, self._state
        nodes = {node["Id"]: node for node in pipeline.graph["ModuleNodes"]}
        needs = dependencies(pipeline.graph)
        reader = StepReader(state, pipeline.graph, self._modules, self._sources, pipeline.parameters)
        ended: queue.SimpleQueue[str] = queue.SimpleQueue()
        done: dict[str, str] = {}
        state.move(run, "Running")
        while len(done) < len(nodes):
            stopped = run.cancelled.is_set() or (not pipeline.go_on and "Failed" in done.values())
            if stopped and all(name in done for name in pipeline.nodes):
                break
            for name in nodes:
                blocked = any(done.get(other) not in (None, "Completed") for other in needs[name])
                if name in pipeline.nodes or name in done or stopped:
                    continue
                if blocked:
                    done[name] = "Canceled"
                elif all(done.get(other) == "Completed" for other in needs[name]):
                    self._begin(pipeline, reader, nodes[name], partial(ended.put, name))
            if stopped:
                for child in pipeline.nodes.values():
                    self._runner.cancel(child)
            try:
                name = ended.get(timeout=0.05)
            except queue.Empty:
                continue
            done[name] = pipeline.nodes[name].status
        time.sleep(self._closing())
        self._finish(pipeline, list(done.values()))

    def _finish(self, pipeline: PipelineRun, statuses: list[str]) -> None:
        run = pipeline.run
        with self._state.lock:
            if run.cancelled.is_set():
                self._state.move(run, "Canceled")
            elif "Failed" in statuses:
                failed = [str(one.name) for one in pipeline.nodes.values() if one.status == "Failed"]
                self._state.move(run, "Failed", f"Pipeline has failed child jobs. Failed nodes: /{', /'.join(failed)}.")
            elif all(status == "Completed" for status in statuses):
                self._state.move(run, "Completed")
            else:
                self._state.move(run, "Canceled")

    def _begin(
        self, pipeline: PipelineRun, reader: StepReader, node: dict[str, Any], ended: Callable[[], None]
    ) -> None:
        module, parent = self._modules[node["ModuleId"]], pipeline.run
        run = self._state.add_run(
            str(uuid.uuid4()), parent.experiment.name, parent=parent.id, type="azureml.StepRun", name=module["Name"]
        )
        with self._state.lock:
            run.tags |= {"azureml.pipeline": parent.id, "azureml.nodeid": node["Id"]}
            run.properties |= {
                "azureml.runsource": "azureml.StepRun",
                "azureml.pipelinerunid": parent.id,
                "azureml.moduleid": module["Id"],
                "azureml.moduleName": module["Name"],
                "azureml.nodeid": node["Id"],
                "StepType": "PythonScriptStep",
                "ContentSnapshotId": str(module.get("StorageId")),
            }
            pipeline.nodes[node["Id"]] = run
        try:
            job = reader.read(run, node, pipeline.nodes)
        except Exception as error:
            self._state.move(run, "Failed", f"{type(error).__name__}: {error}")
            ended()
            return
        self._runner.start(job, ended)
