"""The network of this program's containers: none of them reaches another, and no other container reaches them.

It is one bridge for the services and steps of all projects, created when it is first needed. Published ports are
reached from 127.0.0.1 as usual, and the containers reach other hosts as usual.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..paths import cache_folder
from ..private import make_folder
from . import docker_errors

if TYPE_CHECKING:
    import docker

    from .base import Unused

NAME = "azureml-debug"
_LABEL = "azureml-debug.kind"
_LABELS = {_LABEL: "network"}
#: https://docs.docker.com/engine/network/drivers/bridge/#options
_OPTIONS = {"com.docker.network.bridge.enable_icc": "false"}
#: Seconds to wait while another command creates it.
_TIMEOUT = 10


def ensure_network(client: docker.DockerClient) -> str:
    """The id of the network, created where it is missing.

    Engines before 25.0 let two commands create a network of the same name at the same moment. So every command uses
    the oldest one, by its id.

    Raises:
        UserError: The network cannot be created.
    """
    found = _find(client)
    if found:
        return found[0]
    from ..locks import HeldError, hold

    with contextlib.ExitStack() as stack:
        with contextlib.suppress(HeldError, OSError):
            stack.enter_context(hold(make_folder(cache_folder()) / "network.lock", _TIMEOUT))
        found = _find(client)
        if not found:
            try:
                client.api.create_network(NAME, driver="bridge", options=_OPTIONS, labels=_LABELS, check_duplicate=True)
            except docker_errors.APIError as error:
                # 409: another user's command was quicker.
                if error.status_code != 409:
                    raise _creation_error(error) from error
            found = _find(client)
    if not found:
        raise UserError(
            f"The Docker network {NAME} was not created by this program.",
            f"Rename it, or remove it: docker network rm {NAME}",
        )
    return found[0]


def is_network_missing(error: Any) -> bool:
    """Whether a container could not be created or started because the network was removed at that moment."""
    return error.status_code == 404 and "network" in str(error.explanation or error).lower()


def unused_networks(client: docker.DockerClient) -> list[Unused]:
    """The network for `container.prune`, where no container uses it."""

    def remover(network: str) -> Any:
        def remove() -> None:
            # Another command has just started to use it, or removed it.
            with docker_errors.suppressed("APIError"):
                client.api.remove_network(network)

        return remove

    needed: set[str] = set()
    # Stopped containers count, too: they could not be started without it. The network itself lists only running ones.
    for container in client.api.containers(all=True):
        needed.add(str(container["HostConfig"].get("NetworkMode")))
        needed |= {str(joined.get("NetworkID")) for joined in container["NetworkSettings"]["Networks"].values()}
    found = _find(client)
    return [(f"network {NAME}", 0, remover(network)) for network in found if needed.isdisjoint({network, NAME})]


def _find(client: docker.DockerClient) -> list[str]:
    """The ids of this program's networks, oldest first; usually there is one."""
    label = [f"{_LABEL}={value}" for value in _LABELS.values()]
    found = client.api.networks(names=[NAME], filters={"label": label})
    # The engine matches names by their beginning. A network that was made by hand may let containers reach each other.
    own = [
        network
        for network in found
        if network["Name"] == NAME
        and network["Driver"] == "bridge"
        and _OPTIONS.items() <= (network.get("Options") or {}).items()
    ]
    return [str(network["Id"]) for network in sorted(own, key=lambda one: (one.get("Created", ""), one["Id"]))]


def _creation_error(error: Any) -> UserError:
    text = str(error.explanation or error)
    if "address pool" in text:
        return UserError(
            f"Docker has no address range left for the network {NAME}.",
            "Remove unused networks (docker network prune), or give the engine more: "
            "default-address-pools in its daemon.json.",
        )
    return UserError(
        f"The Docker network {NAME} cannot be made: {text.rstrip('.')}.", "See the engine's log, then run this again."
    )
