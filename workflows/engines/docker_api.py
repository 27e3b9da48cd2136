"""The engine's API over a Unix socket, without the SDK: the requests that start a service or step already built.

Loading the SDK takes longer than all of these requests together. The methods have the names, arguments and errors of
the SDK's ``APIClient``; everything else loads the SDK's own client.
The engine's API: https://docs.docker.com/reference/api/engine/
"""

from __future__ import annotations

import http
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from . import docker_address
from .docker_http import send_request

if TYPE_CHECKING:
    import docker

# Seconds for an answer, as in the SDK.
_ANSWER_SECONDS = 60.0


class DockerApi:
    """Stands in for the SDK's ``APIClient``.

    Args:
        path: The engine's socket.
        sdk: Returns the SDK's own client, which it makes when it is first called.

    Raises:
        docker.errors.APIError: From each method: the engine refuses the request.
        requests.exceptions.RequestException: From each method: the engine does not answer.
    """

    def __init__(self, path: str, sdk: Callable[[], docker.DockerClient]) -> None:
        self._path, self._sdk = path, sdk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sdk().api, name)

    # Images, networks, the engine

    def images(self, *arguments: Any, **options: Any) -> Any:
        """As in the SDK's ``APIClient``."""
        return (
            self._sdk().api.images(*arguments, **options)
            if arguments or options
            else self._request_json("GET", "/images/json")
        )

    def inspect_image(self, image: str) -> Any:
        """As in the SDK's ``APIClient``."""
        return self._request_json("GET", f"/images/{quote(image, safe='/:@')}/json")

    def networks(self, names: Sequence[str] = (), filters: Mapping[str, Sequence[str]] | None = None) -> Any:
        """As in the SDK's ``APIClient``."""
        wanted = {**({"name": list(names)} if names else {}), **(filters or {})}
        return self._request_json("GET", "/networks", {"filters": json.dumps(wanted)} if wanted else {})

    def info(self) -> Any:
        """As in the SDK's ``APIClient``."""
        return self._request_json("GET", "/info")

    # Containers

    def create_container(self, image: str, *arguments: Any, **options: Any) -> Any:
        """As in the SDK's ``APIClient``; ``host_config`` is a mapping as its ``create_host_config`` makes it."""
        # The SDK adds the proxies of config.json to the container's variables.
        if arguments or docker_address.read_config().get("proxies") or not options.keys() <= _OPTIONS.keys():
            return self._sdk().api.create_container(image, *arguments, **options)
        query = {"name": options.pop("name")} if options.get("name") else {}
        config = {"Image": image, **{_OPTIONS[name]: value for name, value in options.items()}}
        config["Env"] = [f"{name}={value}" for name, value in (options.get("environment") or {}).items()]
        config["ExposedPorts"] = {f"{port}/{kind}": {} for port, kind in options.get("ports") or ()}
        return self._request_json("POST", "/containers/create", query, config)

    def containers(self, **options: Any) -> Any:
        """As in the SDK's ``APIClient``."""
        if not options.keys() <= {"all", "filters"}:
            return self._sdk().api.containers(**options)
        filters = {
            name: [value] if isinstance(value, str) else list(value)
            for name, value in (options.get("filters") or {}).items()
        }
        query = {"all": "1" if options.get("all") else "0", **({"filters": json.dumps(filters)} if filters else {})}
        return self._request_json("GET", "/containers/json", query)

    def inspect_container(self, container: str) -> Any:
        """As in the SDK's ``APIClient``."""
        return self._request_json("GET", _container_path(container, "json"))

    def start(self, container: str) -> None:
        """As in the SDK's ``APIClient``."""
        self._request_body("POST", _container_path(container, "start"))

    def kill(self, container: str, signal: str | None = None) -> None:
        """As in the SDK's ``APIClient``."""
        self._request_body("POST", _container_path(container, "kill"), {"signal": signal} if signal else {})

    def wait(self, container: str, timeout: float | None = None, condition: str | None = None) -> Any:
        """As in the SDK's ``APIClient``."""
        query = {"condition": condition} if condition else {}
        return self._request_json("POST", _container_path(container, "wait"), query, timeout=timeout)

    def remove_container(self, container: str, v: bool = False, link: bool = False, force: bool = False) -> None:
        """As in the SDK's ``APIClient``."""
        flags = {"v": v, "link": link, "force": force}
        query = {name: "1" for name, value in flags.items() if value}
        self._request_body("DELETE", _container_path(container, "").rstrip("/"), query)

    def has_path(self, container: str, place: str) -> bool:
        """Whether a file or folder exists in a container, which need not be running."""
        status, _ = self._request("HEAD", _container_path(container, "archive"), {"path": place})
        if status == http.HTTPStatus.NOT_FOUND:
            return False
        # An answer to HEAD has no body: GET says what is wrong.
        if status != http.HTTPStatus.OK:
            self._request_body("GET", _container_path(container, "archive"), {"path": place})
        return True

    # Requests

    def _request_json(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        sent: Any = None,
        timeout: float | None = _ANSWER_SECONDS,
    ) -> Any:
        """Send a request; its answer, parsed as JSON."""
        body = self._request_body(method, path, query, sent, timeout)
        try:
            return json.loads(body)
        except ValueError:
            # The engine went away in the middle of its answer.
            raise _lost() from None

    def _request_body(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        sent: Any = None,
        timeout: float | None = _ANSWER_SECONDS,
    ) -> bytes:
        """Send a request; the body of its answer.

        Raises:
            docker.errors.APIError: The engine refuses the request.
        """
        status, body = self._request(method, path, query, sent, timeout)
        if status == 0:
            raise _lost()
        if status >= http.HTTPStatus.BAD_REQUEST:
            _refuse(status, path, body)
        return body

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        sent: Any = None,
        timeout: float | None = _ANSWER_SECONDS,
    ) -> tuple[int, bytes]:
        target = f"{path}?{urlencode(query)}" if query else path
        return send_request(
            self._path, method, target, timeout, sent=None if sent is None else json.dumps(sent).encode()
        )


#: Options of a new container: the SDK's name, and the engine's.
_OPTIONS = {
    "name": "name",
    "command": "Cmd",
    "entrypoint": "Entrypoint",
    "environment": "Env",
    "labels": "Labels",
    "user": "User",
    "ports": "ExposedPorts",
    "working_dir": "WorkingDir",
    "host_config": "HostConfig",
}


def _container_path(container: str, path: str) -> str:
    return f"/containers/{quote(container, safe='')}/{path}"


def _lost() -> Exception:
    """The error for an engine that has stopped answering."""
    from requests.exceptions import ConnectionError as NoConnection

    return NoConnection("it did not answer")


def _refuse(status: int, path: str, body: bytes) -> None:
    """Raise the SDK's error for an answer with an error status."""
    from docker.errors import create_api_error_from_http_exception
    from requests import Response
    from requests.exceptions import HTTPError

    answer = Response()
    answer.status_code, answer.url, answer._content = status, path, body
    answer.reason = http.HTTPStatus(status).phrase if status in set(http.HTTPStatus) else ""
    create_api_error_from_http_exception(HTTPError(response=answer))
