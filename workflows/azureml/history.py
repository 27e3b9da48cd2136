"""Plain requests to a workspace's services for run history, metrics and artifacts, without an SDK.

The run history's routes are those of SDK v2 (azure-ai-ml 1.35, ``_restclient/runhistory``). Those of metrics and
artifacts are azureml-core's (1.61, ``_restclient/operations``). They serve runs that either SDK has submitted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

from ..received import Refused, display_text, message, one_line, relative_path, web_address
from . import limited_requests
from .access import Access, RenewingAccess

#: Child runs on one page: the most that the service returns.
_PAGE = 500
#: The most pages of one list.
_PAGES = 1000
#: Threads that may send requests at the same time.
_CONNECTIONS = 16
#: The version of the resource manager's API for compute targets, and for jobs that are canceled.
_MANAGER_VERSION = "2023-04-01"
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class ServiceInstance:
    """A service of a job on one node.

    Attributes:
        kind: ``SSH``, ``VSCode``, …
        status: ``Running``, ``Failed``, …
        error: Why it failed; empty where it has not.
        endpoint: The relay's address for it; None while it does not run.
    """

    kind: str
    status: str
    error: str = ""
    endpoint: str | None = None


class RunHistory:
    """The run history of one workspace. Several threads may use it at once.

    Args:
        access: Keeps the token valid.
    """

    def __init__(self, access: RenewingAccess) -> None:
        self._access = access
        self._lock = threading.Lock()
        # It is never closed explicitly: it lives as long as the process.
        self._session: Any = None

    @property
    def http(self) -> Any:
        """The session that all requests are sent with."""
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
        """A valid token, for other services that accept the same one.

        Args:
            refused: A token that such a service has refused. It is renewed once for all callers.

        Raises:
            UserError: The sign-in has expired.
        """
        return self._access.access(f"Bearer {refused}" if refused else "").authorization.rpartition(" ")[2]

    def set_tag(self, run_id: str, name: str, value: str) -> None:
        """Set a tag of a run. It raises the same errors as :meth:`run`."""
        experiment = display_text(self.run(run_id).get("experimentId"), "an experiment's id", 300)
        access = self._access.access()
        path = f"/experimentids/{quote(experiment, '')}/runs/{quote(run_id, '')}"
        with self.http.patch(
            f"{access.history.rstrip('/')}/history/v1.0{access.scope}{path}",
            json={"runId": run_id, "tags": {name: value}},
            headers={"Authorization": access.authorization},
            timeout=limited_requests.SILENCE_SECONDS,
        ) as answered:
            answered.raise_for_status()

    def run(self, run_id: str) -> dict[str, Any]:
        """One run.

        Raises:
            requests.RequestException: It cannot be read now.
            UserError: The sign-in has expired, or the response is not valid.
        """
        return self._history(f"/runs/{quote(run_id, '')}")

    def children(self, run_id: str) -> Iterator[dict[str, Any]]:
        """Every child run with its status and tags, the latest first. It raises the same errors as :meth:`run`."""
        parameters = {"$top": str(_PAGE), "$orderby": "StartTimeUtc desc"}
        for _ in range(_PAGES):
            answer = self._history(f"/runs/{quote(run_id, '')}/children", parameters)
            found = answer.get("value")
            for one in found if isinstance(found, list) else ():
                if not isinstance(one, dict):
                    raise Refused("a child run that is not an object")
                yield one
            token = answer.get("continuationToken")
            if not isinstance(token, str) or not token:
                return
            parameters["$continuationToken"] = token
        raise Refused(f"more than {_PAGES} pages of child runs")

    def details(self, run_id: str) -> dict[str, Any]:
        """One run with the addresses of its logs. It raises the same errors as :meth:`run`."""
        return self._history(f"/runs/{quote(run_id, '')}/details")

    def experiment(self, experiment_id: str) -> dict[str, Any]:
        """An experiment by its id. It raises the same errors as :meth:`run`."""
        return self._history(f"/experimentids/{quote(experiment_id, '')}")

    def compute(self, name: str) -> dict[str, Any]:
        """A compute target as the resource manager describes it. It raises the same errors as :meth:`run`."""

        def address(access: Access) -> str:
            return f"{access.manager.rstrip('/')}{access.scope}/computes/{quote(name, '')}"

        return self._get(address, {"api-version": _MANAGER_VERSION})

    def service_instances(self, run_id: str, node: int) -> dict[str, ServiceInstance]:
        """The services of a job on a node, counted from 0, by name. It raises the same errors as :meth:`run`."""
        answer = self._history(f"/runs/{quote(run_id, '')}/serviceinstances/{node}")
        known = child_object(answer, "instances")
        found = {}
        for name in known:
            response = child_object(known, name)
            endpoint = child_object(response, "properties").get("ProxyEndpoint")
            found[name] = ServiceInstance(
                display_text(response.get("type") or "", "a kind of service", 60),
                display_text(response.get("status") or "", "a status", 60),
                message_of(response.get("error")),
                one_line(endpoint, "an address") if endpoint and response.get("status") == "Running" else None,
            )
        return found

    # Metrics and artifacts

    def metric_names(self, run_id: str) -> Iterator[str]:
        """The names of the metrics that a run has logged. It raises the same errors as :meth:`run`."""
        body: dict[str, object] = {}
        for _ in range(_PAGES):
            found = self._service(f"metric/v2.0{{}}/runs/{quote(run_id, '')}/list", body=body)
            for one in _values(found):
                yield display_text(child_object(one, "metricKey").get("name"), "a metric's name", 300)
            token = found.get("continuationToken")
            if not isinstance(token, str) or not token:
                return
            body = {"continuationToken": token}
        raise Refused(f"more than {_PAGES} pages of metrics")

    def metric_values(self, run_id: str, name: str) -> list[dict[str, Any]]:
        """The logged rows of a metric in order: values by column. It raises the same errors as :meth:`run`."""
        found = self._service(f"metric/v2.0{{}}/runs/{quote(run_id, '')}/full", body={"metricName": name})
        return [child_object(one, "data") for one in _values(found)]

    def job(self, run_id: str, version: str) -> dict[str, Any]:
        """A job of SDK v2 as the resource manager describes it. It raises the same errors as :meth:`run`.

        Args:
            run_id: The run's id.
            version: The version of the resource manager's API.
        """

        def address(access: Access) -> str:
            return f"{access.manager.rstrip('/')}{access.scope}/jobs/{quote(run_id, '')}"

        return child_object(self._get(address, {"api-version": version}), "properties")

    def cancel_job(self, run_id: str) -> None:
        """Ask the workspace to cancel a job of SDK v2. It raises the same errors as :meth:`run`."""

        def ask(access: Access) -> None:
            address = f"{access.manager.rstrip('/')}{access.scope}/jobs/{quote(run_id, '')}/cancel"
            with self.http.post(
                address,
                params={"api-version": _MANAGER_VERSION},
                headers={"Authorization": access.authorization},
                timeout=limited_requests.SILENCE_SECONDS,
            ) as answered:
                answered.raise_for_status()

        self._with_access(ask)

    def outputs(self, run_id: str, version: str) -> dict[str, str]:
        """The addresses of the outputs of a job of SDK v2, or of one of its steps, by name.

        It raises the same errors as :meth:`run`.

        Args:
            run_id: The run's id.
            version: See :meth:`job`.
        """
        # The SDK's own download sends the same requests. The job itself names only the addresses that its file names.
        found = self._resolved(run_id)
        if not found:
            response = child_object(self.job(run_id, version), "outputs")
            found = {
                display_text(name, "an output's name", 300): one_line(
                    child_object(response, name).get("uri") or "", "an address", 8192
                )
                for name in response
                if name != "default"
            }
        return {name: address for name, address in found.items() if _is_address(address)}

    def _resolved(self, run_id: str) -> dict[str, str]:
        asked = {"runId": run_id, "selectRunMetadata": True}
        response = child_object(self._service("history/v1.0{}/rundata", body=asked), "runMetadata")
        outputs = child_object(response, "outputs")
        names = {str(child_object(outputs, name).get("assetId")): name for name in outputs}
        models = [one for one, name in names.items() if str(child_object(outputs, name).get("type")).endswith("Model")]
        found: dict[str, str] = {}
        for path, key, ids in (
            ("data/v1.0{}/dataversion/batchGetResolvedUris", "uri", [one for one in names if one not in models]),
            ("modelregistry/v1.0{}/models/batchGetResolvedUris", "path", models),
        ):
            values = child_object(self._service(path, body={"values": ids}), "values") if ids else {}
            for one in values:
                address = one_line(child_object(values, one).get(key) or "", "an address", 8192)
                found[display_text(names.get(one, ""), "an output's name", 300)] = address
        return found

    def artifacts(self, container: str, folder: str) -> Iterator[tuple[str, str]]:
        """The path and the address of each file in one of a run's folders. It raises the same errors as :meth:`run`.

        Args:
            container: The run's container, see ``dataContainerId``.
            folder: The folder, such as ``outputs``.
        """
        path = f"artifact/v2.0{{}}/artifacts/prefix/contentinfo/ExperimentRun/{quote(container, '')}/{quote(folder)}"
        parameters: dict[str, str] = {}
        for _ in range(_PAGES):
            found = self._service(path, parameters)
            for one in _values(found):
                yield relative_path(one.get("path"), "a file's path"), web_address(one.get("contentUri"), "an address")
            token = found.get("continuationToken")
            if not isinstance(token, str) or not token:
                return
            parameters = {"continuationToken": token}
        raise Refused(f"more than {_PAGES} pages of files")

    def _history(self, path: str, parameters: dict[str, str] | None = None) -> dict[str, Any]:
        return self._service(f"history/v1.0{{}}{path}", parameters)

    def _service(
        self, path: str, parameters: dict[str, str] | None = None, body: Mapping[str, object] | None = None
    ) -> dict[str, Any]:
        """The response of one of the services; ``{}`` in the path is replaced by the workspace's path."""

        def address(access: Access) -> str:
            before, _, after = path.partition("{}")
            return f"{access.history.rstrip('/')}/{before}{access.scope}{after}"

        return self._get(address, parameters, body)

    def _get(
        self,
        address: Callable[[Access], str],
        parameters: dict[str, str] | None = None,
        body: Mapping[str, object] | None = None,
    ) -> dict[str, Any]:
        def ask(access: Access) -> bytes:
            return limited_requests.fetch_response(
                self.http, address(access), access.authorization, parameters or {}, body
            )

        return message(self._with_access(ask), "an answer")

    def _with_access(self, ask: Callable[[Access], _Answer]) -> _Answer:
        """Do what takes an access; once more with a renewed one where the service refuses the token."""
        import requests

        access = self._access.access()
        try:
            return ask(access)
        except requests.HTTPError as error:
            if error.response is None or error.response.status_code != 401:
                raise
            return ask(self._access.access(refused=access.authorization))


def _values(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The entries of a page."""
    found = answer.get("value")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _is_address(text: str) -> bool:
    """Whether a text is an output's address, and not only the pattern for one."""
    return "/datastores/" in text and "${{" not in text


def child_object(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The JSON object under a name in another one; empty where there is none."""
    found = values.get(name)
    return found if isinstance(found, dict) else {}


def message_of(error: Any) -> str:
    """The message of an error that a service returned."""
    outer = error if isinstance(error, dict) else {}
    text = (child_object(outer, "error") or outer).get("message")
    return display_text(" ".join(str(text or "").split()), "an error", 600)
