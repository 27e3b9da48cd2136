"""What the workspace says of a run, in as few requests as it allows; and the words to it.

The SDK's own ``get_children`` asks three times for each child; the client under it lists all of them in one
request, with status and tags. Logs are read from where the service keeps them, only what is new.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .plan import ChildRun

#: Seconds for one request.
PATIENCE = 30.0
#: Words of the service for a run that is over, as ours.
ENDED = {"Completed": "Completed", "Finished": "Completed", "Failed": "Failed", "Canceled": "Canceled"}


class PipelineService:
    """One pipeline run in a workspace.

    Args:
        workspace: The SDK's workspace.
        run_id: The run's id.
    """

    def __init__(self, workspace: Any, run_id: str) -> None:
        self.run_id = run_id
        self._workspace = workspace
        self._run: Any = None
        self._clients: dict[str, Any] = {}
        # Closed with the process; several threads read.
        self._http: Any = None

    @property
    def run(self) -> Any:
        """The SDK's run, asked for once."""
        if self._run is None:
            self._run = self._workspace.get_run(self.run_id)
        return self._run

    @property
    def experiment(self) -> str:
        """The experiment's name."""
        return str(self.run.experiment.name)

    def status(self) -> tuple[str, str]:
        """The run's own status, and why it failed; one request."""
        found = self._client(self.run_id).get_run()
        return str(found.status), _message(found.error)

    def children(self) -> list[ChildRun]:
        """Every child run; one request for each 500."""
        found = []
        for one in self._client(self.run_id).get_child_runs(self.run_id):
            properties = one.properties or {}
            found.append(
                ChildRun(
                    step=str(properties.get("azureml.moduleName") or one.name or one.run_id),
                    run_id=str(one.run_id),
                    status=str(one.status),
                    tags=dict(one.tags or {}),
                    error=_message(one.error),
                    reused=str(properties.get("azureml.isreused", "")).lower() == "true",
                    target=str(one.target or ""),
                )
            )
        return found

    def details(self, run_id: str) -> tuple[Mapping[str, str], str]:
        """Where a child run's logs are read, by their names; and why it failed. One request."""
        found = self._client(run_id).get_runstatus()
        return dict(found.log_files or {}), _message(found.error)

    def _client(self, run_id: str) -> Any:
        from azureml._restclient.run_client import RunClient

        if run_id not in self._clients:
            experiment = self.run.experiment
            self._clients[run_id] = RunClient(
                self._workspace.service_context, experiment.name, run_id, experiment_id=experiment.id
            )
        return self._clients[run_id]

    def compute_state(self, name: str) -> str:
        """Why runs on a compute target may stay queued, in a few words; empty where it does not tell."""
        try:
            status = self._workspace.compute_targets[name].get_status()
            counts = f"{status.current_node_count} of {status.scale_settings.maximum_node_count} nodes"
            errors = [str(getattr(one, "message", None) or one) for one in status.errors or ()]
        except Exception:  # other kinds of compute have no nodes; what is queued there is told all the same
            return ""
        return f"compute {name}: {counts}, {status.allocation_state}{'; ' + '; '.join(errors) if errors else ''}"[:300]

    def read(self, url: str, offset: int) -> bytes:
        """What a log has from an offset on; nothing where that is its end.

        Raises:
            requests.RequestException: It cannot be read now; the address may have expired.
        """
        import requests

        if self._http is None:
            session = requests.Session()
            adapter = requests.adapters.HTTPAdapter(pool_maxsize=16)
            for scheme in ("http://", "https://"):
                session.mount(scheme, adapter)
            self._http = session
        answer = self._http.get(url, headers={"Range": f"bytes={offset}-"} if offset else {}, timeout=PATIENCE)
        if answer.status_code in (404, 416):
            # Nothing new; or nothing at all yet.
            return b""
        answer.raise_for_status()
        data = bytes(answer.content)
        return data if answer.status_code == 206 or not offset else data[offset:]

    def cancel(self) -> None:
        """Ask the service to end the run."""
        from azureml.pipeline.core import PipelineRun

        PipelineRun(self.run.experiment, self.run_id).cancel()


def _message(error: Any) -> str:
    """The first thing that an error of the service says."""
    inner = getattr(error, "error", None) or (error or {} if isinstance(error, dict) else None)
    text = getattr(inner, "message", None) or (inner.get("message") if isinstance(inner, dict) else None)
    return " ".join(str(text or "").split())[:600]
