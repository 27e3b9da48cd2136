"""The network of this program's containers: none of them reaches another, and no other container reaches them.

One bridge for the services and steps of all projects, made when it is first needed. What they publish is reached
from 127.0.0.1 as ever, and they reach what they reached before.
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
#: Seconds that another command may take to make it.
_PATIENCE = 10


def ensure_network(client: docker.DockerClient) -> str:
    """The id of the network, made where it is missing.

    Engines before 25.0 let two commands make a network of the same name at the same moment, so it is used by its
    id, and everybody takes the oldest.

    Raises:
        UserError: It cannot be made.
    """
    found = _find(client)
    if found:
        return found[0]
    from ..locks import HeldError, hold

    with contextlib.ExitStack() as stack:
        with contextlib.suppress(HeldError, OSError):
            stack.enter_context(hold(make_folder(cache_folder()) / "network.lock", _PATIENCE))
        found = _find(client)
        if not found:
            try:
                client.api.create_network(NAME, driver="bridge", options=_OPTIONS, labels=_LABELS, check_duplicate=True)
            except docker_errors.APIError as error:
                # 409: another user's command was quicker.
                if error.status_code != 409:
                    raise _explained(error) from error
            found = _find(client)
    if not found:
        raise UserError(
            f"The Docker network {NAME} was not created by this program.",
            f"Rename it, or remove it: docker network rm {NAME}",
        )
    return found[0]


def is_network_missing(error: Any) -> bool:
    """Whether a container could not be made or started because the network was taken away at this moment."""
    return error.status_code == 404 and "network" in str(error.explanation or error).lower()


def unused_networks(client: docker.DockerClient) -> list[Unused]:
    """The network, where no container is on it, for `container.prune`."""

    def remover(network: str) -> Any:
        def remove() -> None:
            # It has just been taken into use, or away.
            with docker_errors.suppressed("APIError"):
                client.api.remove_network(network)

        return remove

    needed: set[str] = set()
    # Also those that do not run and could not be started without it: of a network the engine tells who runs.
    for container in client.api.containers(all=True):
        needed.add(str(container["HostConfig"].get("NetworkMode")))
        needed |= {str(joined.get("NetworkID")) for joined in container["NetworkSettings"]["Networks"].values()}
    found = _find(client)
    return [(f"network {NAME}", 0, remover(network)) for network in found if needed.isdisjoint({network, NAME})]


def _find(client: docker.DockerClient) -> list[str]:
    """The ids of this program's networks, the oldest first; there is one."""
    label = [f"{_LABEL}={value}" for value in _LABELS.values()]
    found = client.api.networks(names=[NAME], filters={"label": label})
    # The engine looks for names that begin so. One that somebody else has made may join containers.
    own = [
        network
        for network in found
        if network["Name"] == NAME
        and network["Driver"] == "bridge"
        and _OPTIONS.items() <= (network.get("Options") or {}).items()
    ]
    return [str(network["Id"]) for network in sorted(own, key=lambda one: (one.get("Created", ""), one["Id"]))]


def _explained(error: Any) -> UserError:
    text = str(error.explanation or error)
    if "address pool" in text:
        return UserError(
            f"Docker has no range of addresses left for the network {NAME}.",
            "Remove unused networks (docker network prune), or give the engine more: "
            "default-address-pools in its daemon.json.",
        )
    return UserError(
        f"The Docker network {NAME} cannot be made: {text.rstrip('.')}.", "See the engine's log, then run this again."
    )
