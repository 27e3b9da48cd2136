"""The execution service: a script run, without a pipeline."""

from __future__ import annotations

import uuid
from typing import Any

from .jobs import Job, read_configuration
from .runner import Runner
from .state import DATASTORE, State
from .web import HttpError, Request, Route, route


class Execution:
    """Args:
    state: The workspace.
    runner: Does the work.
    """

    def __init__(self, state: State, runner: Runner) -> None:
        self._state, self._runner = state, runner

    def routes(self) -> list[Route]:
        return [route("POST", "/execution/v1.0{ws}/experiments/{experiment}/snapshotrun", self.start)]

    def start(self, request: Request) -> Any:
        body = request.json
        configuration = body["Configuration"]
        target = configuration.get("target")
        if target not in self._state.computes:
            raise HttpError(400, "UserError", f"Unable to find compute target: {target}")
        if body.get("SnapshotId") not in self._state.snapshots:
            raise HttpError(400, "UserError", f"The snapshot {body.get('SnapshotId')} does not exist.")
        run_id = request.query.get("runId") or str(uuid.uuid4())
        run = self._state.add_run(
            run_id, request["experiment"], type="azureml.scriptrun", parent=body.get("ParentRunId")
        )
        run.target, run.definition = target, configuration
        run.properties["ContentSnapshotId"] = body["SnapshotId"]
        run.script = configuration.get("script")
        job = Job(run, snapshot=body["SnapshotId"], script=configuration.get("script") or "")
        command = configuration.get("command")
        job.command = command if isinstance(command, str) else " ".join(command or [])
        job.arguments = [str(one) for one in configuration.get("arguments") or []]
        read_configuration(job, configuration)
        for name, reference in (configuration.get("dataReferences") or {}).items():
            path = str(self._state.file(DATASTORE, reference.get("pathOnDataStore") or ""))
            job.variables[f"AZUREML_DATAREFERENCE_{name}"] = path
            job.arguments = [path if one == f"$AZUREML_DATAREFERENCE_{name}" else one for one in job.arguments]
        self._runner.start(job)
        return {"runId": run.id}
