"""Images that the tests make of definitions of their own: taken away when the last of the tests is over."""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import docker

#: A label of the base image that a process of tests has for itself (`image_builds`). Images and containers inherit it.
OWNER = "azureml-debug-tests.process"


@contextlib.contextmanager
def images_of_the_tests(client: docker.DockerClient, cache: Path) -> Iterator[None]:
    """Take away at the end what was made meanwhile.

    Workers, and runs, that are still busy may be about to use what another one would take away: whoever is the
    last to end does it for all.

    Args:
        client: The engine.
        cache: A folder that all who use this engine at the same time share.
    """
    cache.mkdir(parents=True, exist_ok=True)
    known = cache / "images-before.json"
    with (cache / "engine.lock").open("a") as lock:
        if _alone(lock.fileno()):
            # What a process had for itself stays where it was killed.
            _take_away(client, client.api.images(filters={"label": OWNER}))
            known.write_text(json.dumps([image["Id"] for image in client.api.images(all=True)]))
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield
        if not _alone(lock.fileno()):
            return
        before = set(json.loads(known.read_text()))
        made = client.api.images(filters={"label": "azureml-debug.kind=environment"})
        made = [one for one in made if one["Labels"]["azureml-debug.environment"] not in ("inference", "training")]
        made += client.api.images(filters={"label": OWNER})
        _take_away(client, [image for image in made if image["Id"] not in before])


def _take_away(client: docker.DockerClient, images: list[dict[str, Any]]) -> None:
    """Remove images; what is in use, or gone by now, is left alone."""
    from docker.errors import APIError

    for image in images:
        with contextlib.suppress(APIError):
            client.api.remove_image(image["Id"], force=True)


def _alone(lock: int) -> bool:
    """Whether nobody else holds the lock; it is held alone then, and not at all otherwise."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        fcntl.flock(lock, fcntl.LOCK_UN)
        return False
    return True
