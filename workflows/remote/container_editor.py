"""Opens VS Code in a container on the remote machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..console import Console
from ..errors import UserError
from ..settings import Settings
from ..vscode import dev_containers
from .address import Address


def open_remote_container(
    settings: Settings, machine: Address, console: Console, found: Mapping[str, Any]
) -> dict[str, object]:
    """Open VS Code in the container that the remote task has found, and return what ``--json`` shows.

    Raises:
        UserError: VS Code cannot reach the machine, or VS Code is not installed.
    """
    if machine.instance is not None:
        raise UserError(
            f"VS Code's Remote - SSH knows no way to {machine.instance}.",
            "Connect to the instance with VS Code's own extension for Azure Machine Learning.",
        )
    own = [settings.remote_user, settings.remote_port, settings.remote_key, settings.remote_gateway]
    by_name = not any(own) and "@" not in machine.named and ":" not in machine.named
    parent = dev_containers.ssh_authority(machine.named, machine.host, machine.user, machine.port, by_name=by_name)
    result = dev_containers.open_in_code(
        console, dev_containers.container_address(found["container"], found["folder"], found["docker"], parent)
    )
    if settings.remote_key or settings.remote_gateway:
        # The extension Remote - SSH reads them from nowhere else.
        console.line(
            f"  note: VS Code reads keys and gateways from ~/.ssh/config: write those of {machine.host} there too"
        )
    return result
