"""A base image for networks without an image registry, imported into the engine while it is made."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..environments.base_image import CHANGES, root_file_system
from .docker_images import import_image

if TYPE_CHECKING:
    import docker


def make_base_image(client: docker.DockerClient, name: str, report: Callable[[str], None]) -> int:
    """Make a base image with Python and runit from the packages of the host's own apt sources.

    Args:
        client: The engine that gets it.
        name: The image's name.
        report: Called with each line of progress.

    Returns:
        Its size in bytes.

    Raises:
        UserError: It cannot be made. Nothing is left then.
    """
    start = time.monotonic()
    with contextlib.closing(root_file_system(name, report)) as data:
        _, size = import_image(client, data, name, CHANGES)
    report(f"made {name}, {size / 1e6:.0f} MB, in {time.monotonic() - start:.0f} s")
    return size
