"""The engine's API behind a Unix socket, without the SDK: what a start takes where all is built already.

Loading the SDK takes longer than all of these answers together. What is asked for has the names and the arguments that
it has in the SDK's ``APIClient``, and fails with the SDK's errors; for everything else the SDK's own client is loaded.
The engine's own documentation: https://docs.docker.com/reference/api/engine/
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

# Seconds for an answer, as the SDK has them.
_ANSWER_SECONDS = 60.0


class DockerApi:
    """What the SDK's ``api`` does, for the few things that are named here.

    Args:
        path: The engine's socket.
        sdk: Makes the SDK's own client, or returns the one that there is.

    Raises:
        docker.errors.APIError: From each method: the engine says no.
        requests.exceptions.RequestException: From each method: it does not answer.
    """

    def __init__(self, path: str, sdk: Callable[[], docker.DockerClient]) -> None:
        self._path, self._sdk = path, sdk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sdk().api, name)

    # Images, networks, the engine

    def images(self, *given: Any, **options: Any) -> Any:
        """As of the SDK's ``APIClient``."""
        return self._sdk().api.images(*given, **options) if given or options else self._asked("GET", "/images/json")

    def inspect_image(self, image: str) -> Any:
        """As of the SDK's ``APIClient``."""
        return self._asked("GET", f"/images/{quote(image, safe='/:@')}/json")

    def networks(self, names: Sequence[str] = (), filters: Mapping[str, Sequence[str]] | None = None) -> Any:
        """As of the SDK's ``APIClient``."""
        wanted = {**({"name": list(names)} if names else {}), **(filters or {})}
        return self._asked("GET", "/networks", {"filters": json.dumps(wanted)} if wanted else {})

    def info(self) -> Any:
        """As of the SDK's ``APIClient``."""
        return self._asked("GET", "/info")

    # Containers

    def create_container(self, image: str, *given: Any, **options: Any) -> Any:
        """As of the SDK's ``APIClient``; ``host_config`` is what its ``create_host_config`` makes, or as good."""
        # Proxies of config.json are the container's, too.
        if given or docker_address.read_config().get("proxies") or not options.keys() <= _OPTIONS.keys():
            return self._sdk().api.create_container(image, *given, **options)
        query = {"name": options.pop("name")} if options.get("name") else {}
        config = {"Image": image, **{_OPTIONS[name]: value for name, value in options.items()}}
        config["Env"] = [f"{name}={value}" for name, value in (options.get("environment") or {}).items()]
        config["ExposedPorts"] = {f"{port}/{kind}": {} for port, kind in options.get("ports") or ()}
        return self._asked("POST", "/containers/create", query, config)

    def containers(self, **options: Any) -> Any:
        """As of the SDK's ``APIClient``."""
        if not options.keys() <= {"all", "filters"}:
            return self._sdk().api.containers(**options)
        filters = {
            name: [value] if isinstance(value, str) else list(value)
            for name, value in (options.get("filters") or {}).items()
        }
        query = {"all": "1" if options.get("all") else "0", **({"filters": json.dumps(filters)} if filters else {})}
        return self._asked("GET", "/containers/json", query)

    def inspect_container(self, container: str) -> Any:
        """As of the SDK's ``APIClient``."""
        return self._asked("GET", _of(container, "json"))

    def start(self, container: str) -> None:
        """As of the SDK's ``APIClient``."""
        self._answered("POST", _of(container, "start"))

    def kill(self, container: str, signal: str | None = None) -> None:
        """As of the SDK's ``APIClient``."""
        self._answered("POST", _of(container, "kill"), {"signal": signal} if signal else {})

    def wait(self, container: str, timeout: float | None = None, condition: str | None = None) -> Any:
        """As of the SDK's ``APIClient``."""
        query = {"condition": condition} if condition else {}
        return self._asked("POST", _of(container, "wait"), query, patience=timeout)

    def remove_container(self, container: str, v: bool = False, link: bool = False, force: bool = False) -> None:
        """As of the SDK's ``APIClient``."""
        flags = {"v": v, "link": link, "force": force}
        query = {name: "1" for name, value in flags.items() if value}
        self._answered("DELETE", _of(container, "").rstrip("/"), query)

    def has_path(self, container: str, place: str) -> bool:
        """Whether there is a file or folder of that name in a container, which need not run."""
        status, _ = self._answer("HEAD", _of(container, "archive"), {"path": place})
        if status == http.HTTPStatus.NOT_FOUND:
            return False
        # An answer to HEAD has no text: the same question says why.
        if status != http.HTTPStatus.OK:
            self._answered("GET", _of(container, "archive"), {"path": place})
        return True

    # Asking

    def _asked(
        self,
        method: str,
        what: str,
        query: Mapping[str, str] | None = None,
        sent: Any = None,
        patience: float | None = _ANSWER_SECONDS,
    ) -> Any:
        """The answer, which is JSON."""
        body = self._answered(method, what, query, sent, patience)
        try:
            return json.loads(body)
        except ValueError:
            # It has gone away in the middle.
            raise _lost() from None

    def _answered(
        self,
        method: str,
        what: str,
        query: Mapping[str, str] | None = None,
        sent: Any = None,
        patience: float | None = _ANSWER_SECONDS,
    ) -> bytes:
        """The answer's body, where the engine does not say no."""
        status, body = self._answer(method, what, query, sent, patience)
        if status == 0:
            raise _lost()
        if status >= http.HTTPStatus.BAD_REQUEST:
            _refuse(status, what, body)
        return body

    def _answer(
        self,
        method: str,
        what: str,
        query: Mapping[str, str] | None = None,
        sent: Any = None,
        patience: float | None = _ANSWER_SECONDS,
    ) -> tuple[int, bytes]:
        asked = f"{what}?{urlencode(query)}" if query else what
        return send_request(
            self._path, method, asked, patience, sent=None if sent is None else json.dumps(sent).encode()
        )


#: What a container is made with, by the SDK's name and the engine's.
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


def _of(container: str, what: str) -> str:
    return f"/containers/{quote(container, safe='')}/{what}"


def _lost() -> Exception:
    """The error for an engine that does not answer any more."""
    from requests.exceptions import ConnectionError as NoConnection

    return NoConnection("it did not answer")


def _refuse(status: int, what: str, body: bytes) -> None:
    """Raise the SDK's error for an answer that says no."""
    from docker.errors import create_api_error_from_http_exception
    from requests import Response
    from requests.exceptions import HTTPError

    answer = Response()
    answer.status_code, answer.url, answer._content = status, what, body
    answer.reason = http.HTTPStatus(status).phrase if status in set(http.HTTPStatus) else ""
    create_api_error_from_http_exception(HTTPError(response=answer))
