"""Plain requests to a workspace's run history service, without any SDK.

Routes as SDK v2 uses them (azure-ai-ml 1.35, ``_restclient/runhistory``); they answer for what either SDK has
submitted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ..received import Refused, message, one_line, words
from . import bounded
from .access import Access, Renewing

#: Child runs in one answer: the most that the service gives.
_PAGE = 500
#: Pages of one list at the most.
_PAGES = 1000
#: Threads that ask at the same time.
_CONNECTIONS = 16
#: The version of the resource manager's interface that tells of a compute target.
_MANAGER_VERSION = "2023-04-01"


@dataclass(frozen=True)
class ServiceInstance:
    """A service of a job on one node.

    Attributes:
        kind: ``SSH``, ``VSCode``, …
        status: The service's word: ``Running``, ``Failed``, ….
        error: Why it failed; empty where it has not.
        endpoint: Where the relay leads to it; None while it does not.
    """

    kind: str
    status: str
    error: str = ""
    endpoint: str | None = None


class RunHistory:
    """The run history of one workspace. Several threads may ask at once.

    Args:
        access: Keeps the token.
    """

    def __init__(self, access: Renewing) -> None:
        self._access = access
        self._lock = threading.Lock()
        # Closed with the process.
        self._session: Any = None

    @property
    def http(self) -> Any:
        """The session of requests in which everything is asked."""
        with self._lock:
            if self._session is None:
                import requests

                session = requests.Session()
                adapter = requests.adapters.HTTPAdapter(pool_maxsize=_CONNECTIONS)
                for scheme in ("http://", "https://"):
                    session.mount(scheme, adapter)
                self._session = session
            return self._session

    @property
    def on_this_machine(self) -> bool:
        """Whether the workspace itself is on this machine."""
        return self._access.access().on_this_machine

    def token(self, refused: str = "") -> str:
        """A token that holds, for the services that take the same one.

        Args:
            refused: One that such a service has refused: it is renewed, once for all who ask.

        Raises:
            UserError: Nobody is signed in any more.
        """
        return self._access.access(f"Bearer {refused}" if refused else "").authorization.rpartition(" ")[2]

    def set_tag(self, run_id: str, name: str, value: str) -> None:
        """Set a tag of a run. Raises as :meth:`run`."""
        experiment = words(self.run(run_id).get("experimentId"), "an experiment's id", 300)
        access = self._access.access()
        path = f"/experimentids/{quote(experiment, '')}/runs/{quote(run_id, '')}"
        with self.http.patch(
            f"{access.history.rstrip('/')}/history/v1.0{access.scope}{path}",
            json={"runId": run_id, "tags": {name: value}},
            headers={"Authorization": access.authorization},
            timeout=bounded.SILENCE_SECONDS,
        ) as answered:
            answered.raise_for_status()

    def run(self, run_id: str) -> dict[str, Any]:
        """One run.

        Raises:
            requests.RequestException: It cannot be read now.
            UserError: Nobody is signed in any more, or the answer is not what it has to be.
        """
        return self._history(f"/runs/{quote(run_id, '')}")

    def children(self, run_id: str) -> Iterator[dict[str, Any]]:
        """Every child run with its status and tags, the latest first. Raises as :meth:`run`."""
        parameters = {"$top": str(_PAGE), "$orderby": "StartTimeUtc desc"}
        for _ in range(_PAGES):
            answer = self._history(f"/runs/{quote(run_id, '')}/children", parameters)
            found = answer.get("value")
            for one in found if isinstance(found, list) else ():
                if not isinstance(one, dict):
                    raise Refused("a child run that is none")
                yield one
            token = answer.get("continuationToken")
            if not isinstance(token, str) or not token:
                return
            parameters["$continuationToken"] = token
        raise Refused(f"more than {_PAGES} pages of child runs")

    def details(self, run_id: str) -> dict[str, Any]:
        """One run with the addresses of its logs. Raises as :meth:`run`."""
        return self._history(f"/runs/{quote(run_id, '')}/details")

    def experiment(self, experiment_id: str) -> dict[str, Any]:
        """An experiment by its id. Raises as :meth:`run`."""
        return self._history(f"/experimentids/{quote(experiment_id, '')}")

    def compute(self, name: str) -> dict[str, Any]:
        """A compute target, as the resource manager tells of it. Raises as :meth:`run`."""

        def address(access: Access) -> str:
            return f"{access.manager.rstrip('/')}{access.scope}/computes/{quote(name, '')}"

        return self._get(address, {"api-version": _MANAGER_VERSION})

    def service_instances(self, run_id: str, node: int) -> dict[str, ServiceInstance]:
        """The services of a job on a node, counted from 0, by their names. Raises as :meth:`run`."""
        answer = self._history(f"/runs/{quote(run_id, '')}/serviceinstances/{node}")
        known = part_of(answer, "instances")
        found = {}
        for name in known:
            told = part_of(known, name)
            endpoint = part_of(told, "properties").get("ProxyEndpoint")
            found[name] = ServiceInstance(
                words(told.get("type") or "", "a kind of service", 60),
                words(told.get("status") or "", "a status", 60),
                message_of(told.get("error")),
                one_line(endpoint, "an address") if endpoint and told.get("status") == "Running" else None,
            )
        return found

    def _history(self, path: str, parameters: dict[str, str] | None = None) -> dict[str, Any]:
        def address(access: Access) -> str:
            return f"{access.history.rstrip('/')}/history/v1.0{access.scope}{path}"

        return self._get(address, parameters)

    def _get(self, address: Callable[[Access], str], parameters: dict[str, str] | None = None) -> dict[str, Any]:
        import requests

        access = self._access.access()
        try:
            content = bounded.answer(self.http, address(access), access.authorization, parameters or {})
        except requests.HTTPError as error:
            if error.response is None or error.response.status_code != 401:
                raise
            access = self._access.access(refused=access.authorization)
            content = bounded.answer(self.http, address(access), access.authorization, parameters or {})
        return message(content, "an answer")


def part_of(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An object in another one; an empty one where there is none."""
    found = values.get(name)
    return found if isinstance(found, dict) else {}


def message_of(error: Any) -> str:
    """The first thing that an error of the service says."""
    outer = error if isinstance(error, dict) else {}
    text = (part_of(outer, "error") or outer).get("message")
    return words(" ".join(str(text or "").split()), "an error", 600)
