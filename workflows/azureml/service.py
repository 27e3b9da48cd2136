"""What the workspace says of a run, in as few requests as it allows; and the words to it.

All child runs are listed in one request, with status and tags. Logs are read from where the service keeps them, only
what is new.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..received import Refused, name, number, web_address, words
from .bounded import part
from .history import RunHistory, message_of, part_of
from .plan import ChildRun

#: Child runs of one run, and logs of one child run, at the most.
_CHILDREN, _LOGS = 10_000, 10_000
#: Words of the service for a run that is over, as ours.
ENDED = {"Completed": "Completed", "Finished": "Completed", "Failed": "Failed", "Canceled": "Canceled"}


class PipelineService:
    """One pipeline run in a workspace.

    Args:
        history: The workspace's run history.
        run_id: The run's id.
        end: Asks the service to end the run.
    """

    def __init__(self, history: RunHistory, run_id: str, end: Callable[[], object]) -> None:
        self.run_id = run_id
        self._history, self._end = history, end

    def experiment(self) -> str:
        """The experiment's name; two requests."""
        known = words(self._history.run(self.run_id).get("experimentId"), "an experiment's id", 300)
        return words(self._history.experiment(known).get("name"), "an experiment's name", 300)

    def status(self) -> tuple[str, str]:
        """The run's own status, and why it failed; one request."""
        found = self._history.run(self.run_id)
        return words(found.get("status"), "a status", 60), message_of(found.get("error"))

    def children(self) -> list[ChildRun]:
        """Every child run; one request for each 500."""
        found = []
        for one in self._history.children(self.run_id):
            properties, tags = part_of(one, "properties"), part_of(one, "tags")
            run_id = name(one.get("runId"), "a run's id")
            step = properties.get("azureml.moduleName") or one.get("name") or one.get("displayName")
            found.append(
                ChildRun(
                    step=_step_name(step, run_id),
                    run_id=run_id,
                    status=words(one.get("status"), "a status", 60),
                    tags={key: value for key, value in tags.items() if isinstance(value, str)},
                    error=message_of(one.get("error")),
                    reused=str(properties.get("azureml.isreused", "")).lower() == "true",
                    target=words(one.get("target") or "", "a compute target", 200),
                )
            )
            number(len(found), "a number of child runs", 0, _CHILDREN)
        return found

    def details(self, run_id: str) -> tuple[Mapping[str, str], str]:
        """Where a child run's logs are read, by their names; and why it failed. One request."""
        found = self._history.details(run_id)
        addresses = part_of(found, "logFiles")
        number(len(addresses), "a number of logs", 0, _LOGS)
        known = {one: web_address(address, "a log's address") for one, address in addresses.items()}
        return known, message_of(found.get("error"))

    def compute_state(self, name: str) -> str:
        """Why runs on a compute target may stay queued, in a few words; empty where it does not tell."""
        try:
            target = part_of(self._history.compute(name), "properties")
            nodes = part_of(target, "properties")
            scale, errors = part_of(nodes, "scaleSettings"), nodes.get("errors") or target.get("provisioningErrors")
            counts = f"{int(nodes['currentNodeCount'])} of {int(scale['maxNodeCount'])} nodes"
            reasons = [message_of(one) for one in errors if one] if isinstance(errors, list) else []
        except Exception:  # other kinds of compute have no nodes; what is queued there is told all the same
            return ""
        state = words(str(nodes.get("allocationState") or ""), "a state", 60)
        return f"compute {name}: {counts}, {state}{'; ' + '; '.join(reasons) if reasons else ''}"[:300]

    def read(self, url: str, offset: int) -> bytes:
        """What a log has from an offset on, a part of it where it is much; nothing where that is its end.

        Raises:
            requests.RequestException: It cannot be read now; the address may have expired.
        """
        return part(self._history.http, url, offset)

    def cancel(self) -> None:
        """Ask the service to end the run."""
        self._end()


def _step_name(value: Any, run_id: str) -> str:
    """The name of a child run's step: its folder here is named by it. Where it cannot be, its id does."""
    try:
        return name(value, "a step's name")
    except Refused:
        return run_id
