"""The image of an environment, built where it does not exist yet."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .. import storage
from ..errors import UserError
from ..models import ImageRef
from .docker_build import build
from .docker_images import (
    DIGEST,
    ENVIRONMENT,
    KIND,
    LIVE,
    base_missing_error,
    connection_lost_error,
    find_image,
    image_digest,
    image_id,
    image_name,
    pull,
    uses_base,
)

if TYPE_CHECKING:
    import docker

    from ..environments.definition import EnvironmentDefinition


def build_image(
    client: docker.DockerClient,
    definition: EnvironmentDefinition,
    base_image: str,
    cache: Path,
    report: Callable[[str], None],
) -> ImageRef:
    """The image of a definition, built where it does not exist yet.

    Args:
        client: The engine.
        definition: The environment.
        base_image: The name from :func:`resolve_base_image`; pulled where the engine does not have it.
        cache: The program's cache folder, for wheels and the lock.
        report: Called with each line of progress.

    Raises:
        UserError: It cannot be built. Nothing of it is left.
    """
    found = find_image(client, definition, base_image)
    if found is not None:
        return found
    from ..environments.locking import exclusive

    try:
        # One build at a time: a failed build's leftovers are the images that were not there before.
        with exclusive(cache / "locks" / "images.lock", "an image", report):
            found = find_image(client, definition, base_image)
            if found is not None:
                return found
            base = _ensure_base(client, definition, base_image, report)

            def name_image(made: EnvironmentDefinition) -> tuple[str, dict[str, str]]:
                digest, live = image_digest(made, base), json.dumps([*map(str, made.live)])
                labels = {KIND: "environment", DIGEST: digest, ENVIRONMENT: made.name, LIVE: live}
                return image_name(made, digest), labels

            made = build(client, definition, base_image, cache, report, name_image=name_image)
    except OSError as error:
        if (explained := storage.explain(error, cache)) is not None:
            raise explained from error
        if error.errno is None:  # requests' errors are OSErrors without a number
            raise connection_lost_error(error) from error
        raise UserError(
            f"{error.filename or cache}: {error.strerror or error}.", "Make it readable and writable."
        ) from error
    name, labels = name_image(made)
    return ImageRef("docker", labels[DIGEST], name, live=tuple(map(str, made.live)))


def _ensure_base(
    client: docker.DockerClient,
    definition: EnvironmentDefinition,
    base_image: str,
    report: Callable[[str], None],
) -> str:
    """The base image's id, pulled where the engine does not have it; empty where the Dockerfile does not use it."""
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    if not uses_base(definition):
        return ""
    found = image_id(client, [], base_image)
    if found is not None:
        return found
    report(f"pulling the base image {base_image}")
    try:
        reason = pull(client, base_image, report)
    except (DockerException, RequestException) as error:
        reason = str(error)
    found = image_id(client, [], base_image)
    if found is None:
        raise base_missing_error(base_image, reason)
    return found
