"""Which Docker engine to use, by the rules of the docker command line.

The order is ``DOCKER_HOST``, ``DOCKER_CONTEXT``, ``currentContext`` in config.json, and the default socket
("docker context" in Docker's documentation). Contexts are read here, because the SDK finds none where there is no
config.json.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..reading import read_bytes

DEFAULT_HOST = "npipe:////./pipe/docker_engine" if sys.platform == "win32" else "unix:///var/run/docker.sock"
_CHOOSE = "Choose another with `docker context use`, or set DOCKER_CONTEXT."


@dataclass(frozen=True)
class Tls:
    """TLS settings for the engine of a context.

    Attributes:
        ca: The authority's certificate; None for the system's authorities.
        cert: The client's certificate; None where it has none.
        key: The client's key.
        verify: Whether the engine's certificate is verified.
    """

    ca: Path | None
    cert: Path | None
    key: Path | None
    verify: bool


def config_folder() -> Path:
    """The docker command line's folder: ``DOCKER_CONFIG``, else ``~/.docker``."""
    return Path(os.environ.get("DOCKER_CONFIG") or os.path.join(os.path.expanduser("~"), ".docker"))


def read_config() -> dict[str, Any]:
    """The docker command line's config.json; empty where none can be read."""
    try:
        found = json.loads(read_bytes(config_folder() / "config.json"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def host() -> str:
    """The engine's address, such as ``unix:///var/run/docker.sock``.

    Raises:
        UserError: The chosen context does not exist or cannot be read.
    """
    chosen = os.environ.get("DOCKER_HOST")
    if chosen:
        return chosen
    name = context_name()
    return DEFAULT_HOST if not name else str(_read_endpoint(name)["Host"])


def explicit_engine() -> dict[str, str]:
    """The ``host`` or ``context`` that other programs have to be given for this engine; empty for the default one."""
    chosen = os.environ.get("DOCKER_HOST")
    if chosen:
        return {} if chosen == DEFAULT_HOST else {"host": chosen}
    name = context_name()
    return {"context": name} if name else {}


def proxies_of_containers() -> dict[str, str]:
    """The proxies that config.json sets for containers and builds, as variables; empty where it sets none."""
    found = read_config().get("proxies")
    entry = (
        (found.get(os.environ.get("DOCKER_HOST") or DEFAULT_HOST) or found.get("default"))
        if isinstance(found, dict)
        else None
    )
    if not isinstance(entry, dict):
        return {}
    names = {f"{kind}Proxy": f"{kind.upper()}_PROXY" for kind in ("http", "https", "ftp", "no", "all")}
    return {names[key]: str(value) for key, value in entry.items() if key in names and value}


def context_name() -> str:
    """The name of the context in use; empty for the default one, and where ``DOCKER_HOST`` takes precedence."""
    if os.environ.get("DOCKER_HOST"):
        return ""
    name = os.environ.get("DOCKER_CONTEXT") or str(read_config().get("currentContext") or "")
    return "" if name == "default" else name


def context_tls() -> Tls | None:
    """The TLS settings of the context in use; None where its engine is used without TLS.

    Raises:
        UserError: The chosen context does not exist or cannot be read.
    """
    name = context_name()
    if not name:
        return None
    folder = config_folder() / "contexts" / "tls" / _folder_name(name) / "docker"
    files = {part: folder / f"{part}.pem" for part in ("ca", "cert", "key")}
    existing = {part: path if path.is_file() else None for part, path in files.items()}
    skip = bool(_read_endpoint(name).get("SkipTLSVerify"))
    if not skip and not any(existing.values()):
        return None
    return Tls(existing["ca"], existing["cert"], existing["key"], not skip)


def _read_endpoint(name: str) -> Mapping[str, Any]:
    """The ``docker`` endpoint of a context."""
    path = config_folder() / "contexts" / "meta" / _folder_name(name) / "meta.json"
    try:
        found = json.loads(read_bytes(path))["Endpoints"]["docker"]
        if isinstance(found["Host"], str) and found["Host"]:
            return dict(found)
        reason = "it names no host"
    except FileNotFoundError as error:
        raise UserError(f"The docker context {name} does not exist.", _CHOOSE) from error
    except (KeyError, TypeError, ValueError, RecursionError):
        reason = f"{path} has no endpoint `docker` with a `Host`"
    except OSError as error:
        reason = f"{path}: {error.strerror or error}"
    raise UserError(f"The docker context {name} cannot be read: {reason}.", _CHOOSE)


def _folder_name(context: str) -> str:
    return hashlib.sha256(context.encode("utf-8", "surrogateescape")).hexdigest()
