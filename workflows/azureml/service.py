"""What the workspace says of a run, in as few requests as it allows; and the words to it.

The SDK's own ``get_children`` asks three times for each child; the client under it lists all of them in one
request, with status and tags. Logs are read from where the service keeps them, only what is new.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from ..received import Refused, name, number, web_address, words
from .bounded import part
from .plan import ChildRun

_HERE = ("127.0.0.1", "::1", "localhost")
#: Child runs of one run, and logs of one child run, at the most.
_CHILDREN, _LOGS = 10_000, 10_000
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
        return words(str(self.run.experiment.name), "an experiment's name", 300)

    @property
    def on_this_machine(self) -> bool:
        """Whether the workspace itself is on this machine, as a test's is: its nodes are here then, too."""
        return urlsplit(str(self._workspace.service_context._get_run_history_url())).hostname in _HERE

    def status(self) -> tuple[str, str]:
        """The run's own status, and why it failed; one request."""
        found = self._client(self.run_id).get_run()
        return words(str(found.status), "a status", 60), _message(found.error)

    def children(self) -> list[ChildRun]:
        """Every child run; one request for each 500."""
        found = []
        for one in self._client(self.run_id).get_child_runs(self.run_id):
            properties = one.properties if isinstance(one.properties, dict) else {}
            tags = one.tags if isinstance(one.tags, dict) else {}
            run_id = name(one.run_id, "a run's id")
            found.append(
                ChildRun(
                    step=_step_name(properties.get("azureml.moduleName") or one.name, run_id),
                    run_id=run_id,
                    status=words(str(one.status), "a status", 60),
                    tags={key: value for key, value in tags.items() if isinstance(key, str) and isinstance(value, str)},
                    error=_message(one.error),
                    reused=str(properties.get("azureml.isreused", "")).lower() == "true",
                    target=words(str(one.target or ""), "a compute target", 200),
                )
            )
            number(len(found), "a number of child runs", 0, _CHILDREN)
        return found

    def details(self, run_id: str) -> tuple[Mapping[str, str], str]:
        """Where a child run's logs are read, by their names; and why it failed. One request."""
        found = self._client(run_id).get_runstatus()
        addresses = found.log_files if isinstance(found.log_files, dict) else {}
        number(len(addresses), "a number of logs", 0, _LOGS)
        known = {str(one): web_address(address, "a log's address") for one, address in addresses.items()}
        return known, _message(found.error)

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
        """What a log has from an offset on, a part of it where it is much; nothing where that is its end.

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
        return part(self._http, url, offset)

    def cancel(self) -> None:
        """Ask the service to end the run."""
        from azureml.pipeline.core import PipelineRun

        PipelineRun(self.run.experiment, self.run_id).cancel()


def _step_name(value: Any, run_id: str) -> str:
    """The name of a child run's step: its folder here is named by it. Where it cannot be, its id does."""
    try:
        return name(value, "a step's name")
    except Refused:
        return run_id


def _message(error: Any) -> str:
    """The first thing that an error of the service says."""
    inner = getattr(error, "error", None) or (error or {} if isinstance(error, dict) else None)
    text = getattr(inner, "message", None) or (inner.get("message") if isinstance(inner, dict) else None)
    return words(" ".join(str(text or "").split()), "an error", 600)
