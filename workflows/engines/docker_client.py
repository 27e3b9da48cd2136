"""The connection to the Docker engine, and errors that say why there is none."""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib
import os
import re
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..errors import UserError
from ..redaction import scrub
from . import docker_address, docker_ssh
from .docker_api import DockerApi
from .docker_http import send_request

if TYPE_CHECKING:
    import docker

# Errors of a socket that the user has no permission for.
_NOT_ALLOWED = frozenset({errno.EACCES, errno.EPERM})
# Seconds without an answer after which an engine counts as hung.
_TIMEOUT = 10.0
# Seconds for ssh to log in.
_SSH_SECONDS = 10.0


def connect() -> docker.DockerClient:
    """A client of the Docker engine, which has answered.

    Raises:
        UserError: The engine is not installed, not running, not open to this user, or its version does not fit.
    """
    host = docker_address.host()
    path = _socket_path(host)
    if path is not None:
        _check_socket(path)
    if path is None or _takes_sdk(path):
        return _sdk_client(host)
    return cast("docker.DockerClient", _Client(host, path))


def preload() -> None:
    """Load the SDK ahead of time where :func:`connect` will need it: where the engine is not behind a Unix socket."""
    with contextlib.suppress(ImportError, UserError):
        if _takes_sdk(_socket_path(docker_address.host())):
            _load_sdk(docker_address.host())


class _Client:
    """A client that loads the SDK only for requests that need it.

    Args:
        host: The engine's address.
        path: Its socket.
    """

    def __init__(self, host: str, path: str) -> None:
        self._host = host
        self.api = DockerApi(path, lambda: self.sdk)

    @functools.cached_property
    def sdk(self) -> docker.DockerClient:
        """The SDK's own client."""
        return _sdk_client(self._host)

    def close(self) -> None:
        """Close the SDK's client, if it was made."""
        if "sdk" in vars(self):
            self.sdk.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sdk, name)


def _sdk_client(host: str) -> docker.DockerClient:
    """The SDK's client of an engine.

    Raises:
        UserError: The SDK cannot be loaded, the engine does not answer, or its version does not fit.
    """
    if host.startswith("ssh://"):
        docker_ssh.check_connection(host)
    try:
        _load_sdk(host)
        from docker.errors import APIError, DockerException, InvalidConfigFile, TLSParameterError
        from requests.exceptions import RequestException

        from .docker_sdk import make_client, proxy_for
    except ImportError as error:
        raise UserError(
            f"The Python package docker cannot be imported: {error}.",
            "Install this program again (`pip install -e .`), or set AML_ENGINE=process.",
        ) from error
    try:
        return make_client(host)
    except InvalidConfigFile as error:
        file = docker_address.config_folder() / "config.json"
        raise UserError(f"{file} cannot be read: {error}.", "Correct it, especially its `auths`.", file=file) from error
    except APIError as error:
        raise _version_error(str(error.explanation or error)) from error
    except (TLSParameterError, DockerException, RequestException, OSError, ValueError) as error:
        text = str(error)
        if "version" in text and "fetching server API version" not in text:
            raise _version_error(text) from error
        proxy = next(iter(proxy_for(_as_url(host), os.environ).values()), "")
        way = f" through the proxy {scrub(proxy)}" if proxy else ""
        raise UserError(
            f"No Docker engine answers at {host}{way}: {_innermost(error)}.",
            "Name the engine's host in NO_PROXY where no proxy leads to it, or set AML_ENGINE=process."
            if proxy
            else "Start it, correct DOCKER_HOST or `docker context use`, or set AML_ENGINE=process.",
        ) from error


class StateReader:
    """Reads the state of a container, across interruptions of the connection.

    Args:
        container: The container's id.
    """

    def __init__(self, container: str) -> None:
        self._container = container
        self._client: docker.DockerClient | None = None

    def read(self) -> dict[str, Any] | None:
        """The state as the engine returns it; empty where the container is gone, None without an answer."""
        try:
            self._client = self._client or connect()
            return dict(self._client.api.inspect_container(self._container)["State"])
        except Exception as error:  # whatever keeps the engine from answering
            if getattr(error, "status_code", None) == 404:
                return {}
            self._client = None
            return None


def _takes_sdk(path: str | None) -> bool:
    """Whether every request to an engine goes through the SDK: without a socket, or where a version is set."""
    return path is None or bool(os.environ.get("DOCKER_API_VERSION"))


def _load_sdk(host: str) -> None:
    """Import the SDK, without paramiko where ``ssh://`` does not need it: that is half of the import's time."""
    transport = "docker.transport.sshconn"
    if host.startswith("ssh:") or "docker" in sys.modules:
        return
    # The SDK works without this module where it cannot be imported.
    sys.modules[transport] = None  # type: ignore[assignment]
    try:
        importlib.import_module("docker")
    finally:
        del sys.modules[transport]


def engine_version() -> str:
    """The engine's version, such as ``27.1.0``; empty where it does not say.

    Raises:
        UserError: As :func:`connect`.
    """
    from docker.errors import DockerException

    try:
        return str(connect().version().get("Version", ""))
    except DockerException:
        return ""


def engine_answers(timeout: float = 2.0) -> bool:
    """Whether a Docker engine answers; checked quickly, and without the SDK where possible.

    Args:
        timeout: Seconds to wait for an answer.
    """
    try:
        path = _socket_path(docker_address.host())
    except UserError:
        return False
    if path is not None:
        return _ping(path, timeout)
    try:
        host = docker_address.host()
        if sys.platform == "win32" and host == docker_address.DEFAULT_HOST:
            if not Path(r"\\.\pipe\docker_engine").exists():
                return False
        if host.startswith("ssh://"):
            docker_ssh.check_connection(host, max(timeout, _SSH_SECONDS), interactive=False)
            return True
        from .docker_sdk import make_client

        client = make_client(host, int(timeout) or 1)
        with contextlib.closing(client):
            return bool(client.ping())
    except Exception:  # whatever keeps the engine from answering, the answer is no
        return False


def has_permission() -> bool:
    """Whether the permissions of the engine's socket let this user connect; True where there is no socket."""
    try:
        path = _socket_path(docker_address.host())
        if path is None:
            return True
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(2)
            connection.connect(path)
    except OSError as error:
        return error.errno not in _NOT_ALLOWED
    except UserError:
        pass
    return True


def data_folder() -> Path | None:
    """Where the engine keeps images and containers, on its own machine; None where it does not say."""
    try:
        with contextlib.closing(connect()) as client:
            return Path(str(client.api.info()["DockerRootDir"]))
    except Exception:  # it is only a detail in a message, so any failure is fine
        return None


def socket_path() -> str | None:
    """The Unix socket of the chosen engine; None where it is reached in another way."""
    return _socket_path(docker_address.host())


def is_remote() -> bool:
    """Whether the chosen engine is reached over a network: by ssh, or at a port."""
    try:
        return docker_address.host().startswith(("ssh://", "tcp://", "http://", "https://"))
    except UserError:
        return True


def _socket_path(host: str) -> str | None:
    """The file behind a ``unix://`` address; None for any other."""
    if not host.startswith(("unix://", "http+unix://", "/")):
        return None
    return "/" + host.partition("://")[2].lstrip("/") if "://" in host else host


def _check_socket(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        try:
            connection.connect(path)
        except OSError as error:
            raise _socket_error(path, error) from error
    if not _ping(path, _TIMEOUT):
        raise UserError(
            f"The Docker engine behind {path} takes connections and does not answer.",
            "Restart it (`sudo systemctl restart docker`, or Docker Desktop), or set AML_ENGINE=process.",
        )


def _socket_error(path: str, error: OSError) -> UserError:
    instead = "or set AML_ENGINE=process"
    if error.errno == errno.ENOENT:
        return UserError(
            f"No Docker engine is installed or started: there is no {path}.",
            f"Install and start one (Debian, Ubuntu: `sudo apt-get install docker.io`), {instead}.",
        )
    if error.errno in _NOT_ALLOWED:
        return UserError(
            f"You may not use the Docker engine: {path} is not open to you.",
            f"Run `sudo usermod -aG docker $USER` and log in again, {instead}.",
        )
    return UserError(
        f"The Docker engine is not running: {path} is there, and nothing answers.",
        f"Start it (`sudo systemctl start docker`, or Docker Desktop), {instead}.",
    )


def _ping(path: str, timeout: float) -> bool:
    """Whether the engine answers ``/_ping``, which every version of its API has."""
    return send_request(path, "GET", "/_ping", timeout)[0] == 200


def _as_url(host: str) -> str:
    """The URL of an engine behind a TCP port."""
    secure = bool(os.environ.get("DOCKER_TLS_VERIFY")) or docker_address.context_tls() is not None
    return re.sub(r"^tcp://", "https://" if secure else "http://", host)


def _version_error(text: str) -> UserError:
    return UserError(
        f"The Docker engine and this program have no common API version: {text.strip().rstrip('.')}.",
        "Unset DOCKER_API_VERSION, or update the Docker engine (20.10 or later).",
    )


def _innermost(error: BaseException) -> str:
    """The message of the innermost exception, most often the system's."""
    found: BaseException = error
    while found.__cause__ or found.__context__:
        found = found.__cause__ or found.__context__ or found
    text = getattr(found, "strerror", None) or str(found) or str(error)
    return str(text).strip().rstrip(".")
