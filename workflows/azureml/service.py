"""One run in a workspace: its status, child runs and logs, in as few requests as possible.

One request lists all child runs with status and tags. Logs are read from where the service stores them, and only their
new content is read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from ..received import Refused, display_text, name, number, web_address
from .cloud_pipeline import ChildRun
from .history import RunHistory, child_object, message_of
from .limited_requests import fetch_part

#: The most child runs of one run, and the most logs of one child run.
_CHILDREN, _LOGS = 10_000, 10_000
#: The service's types of a pipeline's run.
_PIPELINES = ("azureml.PipelineRun", "azureml.StepRun")
#: The service's statuses of a run that is over, and this program's status for each.
ENDED = {"Completed": "Completed", "Finished": "Completed", "Failed": "Failed", "Canceled": "Canceled"}


class PipelineService:
    """One run in a workspace: a pipeline's, or a single job's.

    Args:
        history: The workspace's run history.
        run_id: The run's id.
        cancel: Asks the service to cancel the run.
        steps: Names of its steps, where they are known; those of a nested pipeline begin with its name. For a single
            job, its only step.
        single: Whether it is a single job.
    """

    def __init__(
        self,
        history: RunHistory,
        run_id: str,
        cancel: Callable[[], object],
        steps: Collection[str] = (),
        *,
        single: bool = False,
    ) -> None:
        self.run_id = run_id
        self._history, self._cancel, self._steps, self._single = history, cancel, frozenset(steps), single

    def experiment_name(self) -> str:
        """The experiment's name; two requests."""
        known = display_text(self._history.run(self.run_id).get("experimentId"), "an experiment's id", 300)
        return display_text(self._history.experiment(known).get("name"), "an experiment's name", 300)

    def single_job_name(self) -> str:
        """The name of the run's only step where it is a single job; empty where it is a pipeline. One request."""
        found = self._history.run(self.run_id)
        if display_text(found.get("runType") or "", "a type of run", 100) in _PIPELINES:
            return ""
        return _step_name(found.get("displayName") or self.run_id, self.run_id)

    def status(self) -> tuple[str, str]:
        """The run's own status and why it failed; one request."""
        found = self._history.run(self.run_id)
        return display_text(found.get("status"), "a status", 60), message_of(found.get("error"))

    def children(self) -> list[ChildRun]:
        """Every child run, including those of nested pipelines; one request per 500 child runs of a pipeline.

        A single job has no child runs: it is returned as its own only child.
        """
        if self._single:
            return [self._child(self._history.run(self.run_id), min(self._steps))]
        found: list[ChildRun] = []
        self._add_children(self.run_id, "", found)
        return found

    def _add_children(self, run_id: str, prefix: str, found: list[ChildRun]) -> None:
        for one in self._history.children(run_id):
            child = self._child(one, self._step(one, prefix))
            if any(step.startswith(f"{child.step}.") for step in self._steps):
                self._add_children(child.run_id, f"{child.step}.", found)
            else:
                found.append(child)
            number(len(found), "a number of child runs", 0, _CHILDREN)

    def _step(self, one: Mapping[str, Any], prefix: str) -> str:
        """The name of a child run's step: SDK v1 stores it as the module's name, v2 as the run's display name."""
        run_id = name(one.get("runId"), "a run's id")
        labels = (child_object(one, "properties").get("azureml.moduleName"), one.get("displayName"), one.get("name"))
        names = [f"{prefix}{_step_name(value, run_id)}" for value in labels if value]
        known = [one for one in names if one in self._steps or any(s.startswith(f"{one}.") for s in self._steps)]
        return [*known, *names, f"{prefix}{run_id}"][0]

    def _child(self, one: Mapping[str, Any], step: str) -> ChildRun:
        properties, tags = child_object(one, "properties"), child_object(one, "tags")
        return ChildRun(
            step=step,
            run_id=name(one.get("runId"), "a run's id"),
            status=display_text(one.get("status"), "a status", 60),
            tags={key: value for key, value in tags.items() if isinstance(value, str)},
            error=message_of(one.get("error")),
            reused=str(properties.get("azureml.isreused", "")).lower() == "true",
            target=display_text(one.get("target") or "", "a compute target", 200),
        )

    def details(self, run_id: str) -> tuple[Mapping[str, str], str]:
        """The addresses of a child run's logs by name, and why it failed; one request."""
        found = self._history.details(run_id)
        addresses = child_object(found, "logFiles")
        number(len(addresses), "a number of logs", 0, _LOGS)
        known = {one: web_address(address, "a log's address") for one, address in addresses.items()}
        return known, message_of(found.get("error"))

    def compute_state(self, name: str) -> str:
        """Why runs on a compute target may stay queued, in a few words; empty where that is unknown."""
        try:
            target = child_object(self._history.compute(name), "properties")
            nodes = child_object(target, "properties")
            scale, errors = (
                child_object(nodes, "scaleSettings"),
                nodes.get("errors") or target.get("provisioningErrors"),
            )
            counts = f"{int(nodes['currentNodeCount'])} of {int(scale['maxNodeCount'])} nodes"
            reasons = [message_of(one) for one in errors if one] if isinstance(errors, list) else []
        except Exception:  # other kinds of compute have no nodes
            return ""
        state = display_text(str(nodes.get("allocationState") or ""), "a state", 60)
        return f"compute {name}: {counts}, {state}{'; ' + '; '.join(reasons) if reasons else ''}"[:300]

    def read(self, url: str, offset: int) -> bytes:
        """Read a log from an offset on, at most one part of it; empty where there is nothing new.

        Raises:
            requests.RequestException: It cannot be read now; the address may have expired.
        """
        return fetch_part(self._history.http, url, offset)

    def cancel(self) -> None:
        """Ask the service to cancel the run."""
        self._cancel()


def _step_name(value: Any, run_id: str) -> str:
    """The name of a child run's step, which names its folder here; the run's id where the name cannot be one."""
    try:
        return name(value, "a step's name")
    except Refused:
        return run_id
