"""The SDK's client, made to do what the docker command line does where the two differ.

- An engine behind ``tcp://`` is reached through a proxy by Go's rules (``net/http``, ``ProxyFromEnvironment``):
  ``HTTP_PROXY`` or ``HTTPS_PROXY`` and ``NO_PROXY``, never to this machine itself, and ``ALL_PROXY`` does not count.
- ``ssh://`` is the program ssh, with all that it takes from the person's settings.
- A credential helper that cannot be run has no credentials, and keeps nothing from being done without.

This module imports the SDK: it is imported where the SDK is needed.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import docker
import docker.auth
import requests.adapters
import urllib3.connection
import urllib3.connectionpool
from docker.credentials.errors import CredentialsNotFound, StoreError
from docker.errors import DockerException, InvalidConfigFile, NotFound
from docker.tls import TLSConfig
from docker.utils import kwargs_from_env
from docker.utils.config import load_general_config

from .. import watched_requests  # noqa: F401
from . import docker_address, docker_ssh


def make_client(host: str, timeout: float | None = None) -> docker.DockerClient:
    """A client of the engine at an address; it has asked for its version.

    Args:
        host: As :func:`docker_address.host` returned it.
        timeout: Seconds that an answer may take; None for the SDK's own.

    Raises:
        InvalidConfigFile: What config.json says of credentials is not what it should be.
    """
    try:
        docker.auth.load_config(config_dict=load_general_config())
    except (DockerException, AttributeError, TypeError, ValueError) as error:
        raise InvalidConfigFile(f"{error}".strip().splitlines()[0] if str(error).strip() else "it is broken") from error
    options: dict[str, Any] = {"base_url": host, "use_ssh_client": host.startswith("ssh://")}
    if host == docker_address.DEFAULT_HOST or os.environ.get("DOCKER_HOST"):
        options |= kwargs_from_env()
    elif (tls := docker_address.context_tls()) is not None:
        options["tls"] = TLSConfig(
            client_cert=(str(tls.cert), str(tls.key)) if tls.cert and tls.key else None,
            ca_cert=str(tls.ca) if tls.ca else None,
            verify=tls.verify,
        )
    if timeout is not None:
        options["timeout"] = timeout
    return _Client(**options)


class _Client(docker.DockerClient):
    def __init__(self, **options: Any) -> None:
        # In place of the SDK's own, which would make the client that is mended here.
        self.api = _Api(**options)


class _Api(docker.APIClient):
    def __init__(self, **options: Any) -> None:
        self._ssh = str(options.get("base_url") or "")
        super().__init__(**options)

    # The SDK sets it, and loads it again where it is empty.
    @property
    def _auth_configs(self) -> docker.auth.AuthConfig:
        return self._tolerant

    @_auth_configs.setter
    def _auth_configs(self, found: Mapping[str, Any]) -> None:
        self._tolerant = _Credentials(dict(found))

    def has_path(self, container: str, place: str) -> bool:
        """Whether there is a file or folder of that name in a container, which need not run."""
        client: Any = self
        url = client._url("/containers/{0}/archive", container)
        try:
            client._raise_for_status(self.head(url, params={"path": place}, timeout=self.timeout))
        except NotFound:
            return False
        return True

    def mount(self, prefix: Any, adapter: Any) -> None:
        """Requests' way to say who carries which addresses."""
        # The SDK's own takes no port from ssh's settings, and lets nothing time out.
        if prefix == "http+docker://ssh" and sys.platform != "win32":
            adapter = _SshAdapter(self._ssh)
        super().mount(prefix, adapter)

    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        """Requests' settings for one request, without what requests takes from the environment."""
        return {
            "proxies": {**proxy_for(str(url), os.environ), **(proxies or {})},
            "stream": self.stream if stream is None else stream,
            "verify": self.verify if verify is None else verify,
            "cert": self.cert if cert is None else cert,
        }


class _SshAdapter(requests.adapters.HTTPAdapter):
    """Carries requests over ssh: to the engine behind an address, whatever the request's own says."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self._pool = _SshPool(address)

    def get_connection_with_tls_context(self, request: Any, verify: Any, proxies: Any = None, cert: Any = None) -> Any:
        """Requests' question for what connections come from."""
        return self._pool

    def close(self) -> None:
        """End every connection that is not in use."""
        self._pool.close()
        super().close()


class _SshPool(urllib3.connectionpool.HTTPConnectionPool):
    def __init__(self, address: str) -> None:
        super().__init__("localhost", maxsize=10)
        self._address = address

    def _new_conn(self) -> Any:
        return _SshConnection(self._address)


class _SshConnection(urllib3.connection.HTTPConnection):
    def __init__(self, address: str) -> None:
        super().__init__("localhost")
        self._address = address
        self._process: subprocess.Popen[bytes] | None = None

    def connect(self) -> None:
        # ssh speaks to one end of a real socket, so that the other one has what sockets have: limits of waits.
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                docker_ssh.connection_command(self._address),
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                # Ctrl-C is for this program, which then needs the engine to take away what it has begun.
                preexec_fn=_pass_over_interrupts,
            )
        ours.settimeout(self.timeout if isinstance(self.timeout, (int, float)) else None)
        self.sock = ours

    def close(self) -> None:
        super().close()
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None


def _pass_over_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class _Credentials(docker.auth.AuthConfig):
    """What config.json says of credentials, without those that cannot be had."""

    def _resolve_authconfig_credstore(self, registry: str | None, credstore_name: str) -> Any:
        try:
            return super()._resolve_authconfig_credstore(registry, credstore_name)  # type: ignore[misc]
        except DockerException:  # the SDK has made it of whatever the helper did
            return None

    def _get_store_instance(self, name: str) -> Any:
        # The SDK would warn of it, and fail later.
        if shutil.which(f"docker-credential-{name}") is None:
            return _NoStore()
        return super()._get_store_instance(name)  # type: ignore[misc]

    def get_all_credentials(self) -> dict[str, Any]:
        """Those of every registry, for a build."""
        names = dict.fromkeys(self.auths)
        if self.creds_store:
            with contextlib.suppress(StoreError, ValueError):
                names |= dict.fromkeys(self._get_store_instance(self.creds_store).list())
        found = dict[str, Any]()
        for name in names | dict.fromkeys(self.cred_helpers):
            entry = self.resolve_authconfig(name)
            if entry:
                found |= {name: entry, docker.auth.convert_to_hostname(name): entry}
        return found


class _NoStore:
    """In place of a credential helper that is not installed."""

    def get(self, server: str) -> Any:
        """Nothing is in it."""
        raise CredentialsNotFound(server)

    def list(self) -> dict[str, str]:
        """Nothing is in it."""
        return {}


def proxy_for(url: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The proxy for an address, as requests wants it told; empty for none.

    Args:
        url: The engine's address.
        environ: Environment variables.
    """
    from requests.utils import should_bypass_proxies

    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or _is_here(parts.hostname):
        return {}
    name = f"{parts.scheme}_proxy"
    proxy = environ.get(name.upper()) or environ.get(name)
    without = environ.get("NO_PROXY") or environ.get("no_proxy") or ""
    if not proxy or should_bypass_proxies(url, without):
        return {}
    return {parts.scheme: proxy if "://" in proxy else f"http://{proxy}"}


def _is_here(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
