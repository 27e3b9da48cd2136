"""What the containers of services and of steps have in common: labels, published ports, and their user."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import docker_network

if TYPE_CHECKING:
    import docker

LABEL_KIND = "azureml-debug.kind"
LABEL_PROJECT = "azureml-debug.project"
#: Debug ports on 127.0.0.1, each with the port at which its gate is published: ``5678:40001,5679:40002``.
LABEL_PORTS = "azureml-debug.ports"
#: How often a container is created when its published port or its network is taken or removed at the last moment.
ATTEMPTS = 3


def is_transient(error: Any, gates: Sequence[int]) -> bool:
    """Whether a container may be created or started when that is tried again.

    Args:
        error: The engine's error.
        gates: The published ports that this program chose itself.
    """
    if docker_network.is_network_missing(error):
        return True
    text = str(error.explanation or error)
    taken = "address already in use" in text or "port is already allocated" in text
    return taken and any(f":{port}" in text for port in gates)


def gate_ports(labels: Mapping[str, str]) -> dict[int, int]:
    """The debug ports of a container, each with the port at which its gate is published."""
    pairs = (pair.partition(":") for pair in labels.get(LABEL_PORTS, "").split(",") if pair)
    return {int(port): int(gate) for port, _, gate in pairs if port.isdecimal() and gate.isdecimal()}


def shown_ports(container: Mapping[str, Any]) -> list[str]:
    """A container's ports as users know them: for a gate, the debug port that leads to it."""
    leads = {gate: port for port, gate in gate_ports(container["Labels"] or {}).items()}
    published = [(entry["PublicPort"], entry["PrivatePort"]) for entry in container["Ports"] if "PublicPort" in entry]
    return sorted(f"{leads.get(public, public)}->{private}" for public, private in published)


def container_user(client: docker.DockerClient) -> str | None:
    """The user and group that a container runs as, so that files in mounted folders belong to the user.

    None where the engine maps owners itself: with Docker Desktop, and with rootless engines, where root in the
    container is the user outside.
    """
    if not hasattr(os, "getuid") or sys.platform != "linux":
        return None
    if os.getuid() != 0:
        options = client.api.info().get("SecurityOptions") or []
        if any("rootless" in option for option in options):
            return None
    return f"{os.getuid()}:{os.getgid()}"
