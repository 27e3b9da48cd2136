"""The SDK's client, changed to do what the docker command line does where the two differ.

- An engine behind ``tcp://`` is reached through a proxy by Go's rules (``net/http``, ``ProxyFromEnvironment``):
  ``HTTP_PROXY`` or ``HTTPS_PROXY`` and ``NO_PROXY``, never to this machine itself, and ``ALL_PROXY`` does not count.
- ``ssh://`` runs the program ssh, which reads the user's configuration.
- A credential helper that cannot be run counts as one without credentials, rather than as an error.

This module imports the SDK, so import it only where the SDK is needed.
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
    """A client of the engine at an address, whose version it has requested.

    Args:
        host: The address, as :func:`docker_address.host` returns it.
        timeout: Seconds that an answer may take; None for the SDK's default.

    Raises:
        InvalidConfigFile: The credentials in config.json do not have the right form.
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
        # The SDK's own __init__ would create an unchanged API client.
        self.api = _Api(**options)


class _Api(docker.APIClient):
    def __init__(self, **options: Any) -> None:
        self._ssh = str(options.get("base_url") or "")
        super().__init__(**options)

    # The SDK sets this attribute, and loads it again where it is empty.
    @property
    def _auth_configs(self) -> docker.auth.AuthConfig:
        return self._tolerant

    @_auth_configs.setter
    def _auth_configs(self, found: Mapping[str, Any]) -> None:
        self._tolerant = _Credentials(dict(found))

    def has_path(self, container: str, place: str) -> bool:
        """Whether a file or folder exists in a container, which need not be running."""
        client: Any = self
        url = client._url("/containers/{0}/archive", container)
        try:
            client._raise_for_status(self.head(url, params={"path": place}, timeout=self.timeout))
        except NotFound:
            return False
        return True

    def mount(self, prefix: Any, adapter: Any) -> None:
        """Set the adapter for addresses with a prefix, as in ``requests.Session``."""
        # The SDK's own ssh adapter ignores the port in ssh's configuration, and has no timeouts.
        if prefix == "http+docker://ssh" and sys.platform != "win32":
            adapter = _SshAdapter(self._ssh)
        super().mount(prefix, adapter)

    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        """The settings for one request, as in ``requests.Session``, but with proxies by Go's rules."""
        return {
            "proxies": {**proxy_for(str(url), os.environ), **(proxies or {})},
            "stream": self.stream if stream is None else stream,
            "verify": self.verify if verify is None else verify,
            "cert": self.cert if cert is None else cert,
        }


class _SshAdapter(requests.adapters.HTTPAdapter):
    """Sends every request over ssh to the engine behind one address."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self._pool = _SshPool(address)

    def get_connection_with_tls_context(self, request: Any, verify: Any, proxies: Any = None, cert: Any = None) -> Any:
        """The connection pool for a request, as in ``requests.adapters.HTTPAdapter``."""
        return self._pool

    def close(self) -> None:
        """Close every connection that is not in use."""
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
        # ssh gets one end of a real socket, so that the other end has a socket's timeouts.
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                docker_ssh.connection_command(self._address),
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                # ssh must survive Ctrl-C: this program still needs the engine to remove what it has begun.
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
    """The credentials of config.json; a credential store that fails or is missing counts as empty."""

    def _resolve_authconfig_credstore(self, registry: str | None, credstore_name: str) -> Any:
        try:
            return super()._resolve_authconfig_credstore(registry, credstore_name)  # type: ignore[misc]
        except DockerException:  # the SDK raises it for any failure of a helper
            return None

    def _get_store_instance(self, name: str) -> Any:
        # The SDK would warn, and fail later.
        if shutil.which(f"docker-credential-{name}") is None:
            return _NoStore()
        return super()._get_store_instance(name)  # type: ignore[misc]

    def get_all_credentials(self) -> dict[str, Any]:
        """The credentials of every registry, for a build."""
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
    """Stands in for a credential helper that is not installed."""

    def get(self, server: str) -> Any:
        """Raise the error for missing credentials."""
        raise CredentialsNotFound(server)

    def list(self) -> dict[str, str]:
        """Return no registries."""
        return {}


def proxy_for(url: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The proxy for an address in the form of requests' ``proxies``; empty for none.

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
