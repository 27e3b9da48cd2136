"""Connects to the containers of a run's jobs through the SSH services that the jobs have."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import Any

from ...errors import UserError
from ..history import RunHistory
from .container import Container
from .websocket_stream import NoService, RelayRefused

#: The name of the service that a debugged step gets in addition to those of its file.
SERVICE = "azureml_debug"
#: The log in which the service's program on the node says why it does not start.
SERVICE_LOG = "system_logs/interactive_capability"


class RunRelay:
    """The connections to the containers of one run.

    Args:
        history: The run history, which lists the services.
        key: The run's private key.
    """

    def __init__(self, history: RunHistory, key: Any) -> None:
        self._history, self._key = history, key
        self._lock = threading.Lock()
        self._containers: dict[tuple[str, int], Container] = {}

    def container(self, run_id: str, node: int, host_keys: Callable[[], Collection[str]]) -> Container:
        """The container of a job on a node, counted from 0. Several ranks in it share one connection.

        Args:
            run_id: The job's own run, or child run.
            node: The node.
            host_keys: Returns the fingerprints that it has announced by now.
        """
        with self._lock:
            found = self._containers.get((run_id, node))
            if found is None:
                found = Container(lambda: self._endpoint(run_id, node), node, self._history.token, self._key, host_keys)
                self._containers[run_id, node] = found
        return found

    def close(self, run_id: str) -> None:
        """Close the connections to a job's containers."""
        with self._lock:
            ended = [self._containers.pop(key) for key in list(self._containers) if key[0] == run_id]
        for one in ended:
            one.close()

    def _endpoint(self, run_id: str, node: int) -> str:
        try:
            known = self._history.service_instances(run_id, node)
        except UserError as error:
            raise RelayRefused(error.problem.rstrip(".")) from error
        found = known.get(SERVICE)
        if found is None:
            raise RelayRefused("the job has no ssh service so far (its owner has one, on compute clusters)")
        if found.status in ("Failed", "Terminated"):
            raise NoService(f"the job's ssh service has {found.status.lower()}: {found.error or 'it does not say why'}")
        if found.endpoint is None:
            raise RelayRefused(f"the job's ssh service is {found.status or 'not up'}")
        return found.endpoint
