"""Images in the Docker engine: found by digest, tagged, imported, listed for pruning."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .. import storage
from ..environments.base_image import BASE_IMAGE
from ..errors import UserError
from ..models import ImageRef
from . import docker_credentials

if TYPE_CHECKING:
    import docker

    from ..environments.definition import EnvironmentDefinition

PUBLIC_BASE_IMAGE = "python:3.11-slim-bookworm"

PREFIX = "azureml-debug"

KIND = "azureml-debug.kind"
DIGEST = "azureml-debug.digest"
#: Folders of this machine that hold editable packages of the image, as a JSON list.
LIVE = "azureml-debug.live"
ENVIRONMENT = "azureml-debug.environment"
#: Set on images that were built from something else than an environment definition.
SOURCE = "azureml-debug.source"


def resolve_base_image(client: docker.DockerClient, setting: str | None) -> str:
    """The base image: the setting, else what ``container.base`` made, else a public one.

    Args:
        client: The engine.
        setting: ``AML_BASE_IMAGE``, if it is set.
    """
    if setting:
        return setting
    try:
        inspect(client, BASE_IMAGE)
    except Exception as error:
        # The SDK was loaded to raise this error; importing it earlier would cost time for nothing.
        from docker.errors import ImageNotFound

        if isinstance(error, ImageNotFound):
            return PUBLIC_BASE_IMAGE
        raise
    return BASE_IMAGE


def find_image(client: docker.DockerClient, definition: EnvironmentDefinition, base_image: str) -> ImageRef | None:
    """The image of a definition; None where it is not built yet. Takes one request.

    Args:
        client: The engine.
        definition: The environment.
        base_image: As :func:`resolve_base_image` returned it.
    """
    images = client.api.images()
    base = image_id(client, images, base_image)
    if base is None and uses_base(definition):
        return None
    if not definition.live:
        return _found_image(client, images, definition, base or "")
    # If only pip could install it, the image was built with copies of every local package.
    ways = (definition, definition.as_copies())
    return next(filter(None, (_found_image(client, images, one, base or "") for one in ways)), None)


def _found_image(
    client: docker.DockerClient, images: list[dict[str, Any]], definition: EnvironmentDefinition, base: str
) -> ImageRef | None:
    digest = image_digest(definition, base)
    name = image_name(definition, digest)
    found = [image for image in images if (image.get("Labels") or {}).get(DIGEST) == digest]
    if not any(name in (image.get("RepoTags") or ()) for image in found):
        # The image may have lost its tag. One with other people's tags is built on top of it: labels are inherited.
        found = [image for image in found if not _foreign(image)]
        if not found:
            return None
        repository, tag = split_name(name)
        client.api.tag(found[0]["Id"], repository, tag)
    return ImageRef("docker", digest, name, reused=True, live=tuple(map(str, definition.live)))


def _foreign(image: Mapping[str, Any]) -> bool:
    """Whether an image has a name that is not one of this program's."""
    names = image.get("RepoTags") or ()
    return any("/" in name and not name.startswith((f"{PREFIX}/", "<none>")) for name in names) or any(
        digest for digest in image.get("RepoDigests") or () if not digest.startswith((f"{PREFIX}/", "<none>"))
    )


def connection_lost_error(error: Exception) -> UserError:
    """The error for a connection to the engine that broke."""
    return UserError(
        f"The connection to the Docker engine broke: {error}.",
        "See that it runs (`docker info`), then run the same command again.",
    )


def tag_image(client: docker.DockerClient, image: ImageRef, tag: str) -> None:
    """Give an image another name.

    Args:
        client: The engine.
        image: A built image.
        tag: Such as ``debug:1``.

    Raises:
        UserError: The image is gone, or the name is not valid.
    """
    from docker.errors import APIError, ImageNotFound

    repository, version = split_name(tag)
    try:
        client.api.tag(image.name, repository, version)
    except ImageNotFound as error:
        raise UserError(
            f"The image {image.name} is not there any more.", "Build it again with `inv deploy.build`."
        ) from error
    except APIError as error:
        raise UserError(
            f"{tag} cannot be an image's name: {error.explanation}.",
            "Set AML_IMAGE_TAG to one such as debug:1.",
        ) from error


def tagged_image(client: docker.DockerClient, tag: str) -> ImageRef | None:
    """The image with a name, whoever made it; its digest is empty where this program did not build it."""
    from docker.errors import APIError

    try:
        image = inspect(client, tag)
    except APIError:  # missing, or a name that cannot be one
        return None
    labels: Mapping[str, str] = image["Config"].get("Labels") or {}
    digest = labels.get(DIGEST, "") if labels.get(KIND) == "environment" else ""
    try:
        live = json.loads(labels.get(LIVE) or "[]")
    except ValueError:
        live = []
    return ImageRef("docker", digest, tag, reused=True, live=tuple(map(str, live)))


def unused_images(
    client: docker.DockerClient, keep: frozenset[str], tag: str
) -> list[tuple[str, int, Callable[[], None]]]:
    """Images of environments and packages that nothing needs.

    Args:
        client: The engine.
        keep: Digests of the images to keep.
        tag: The tag that this program gives to the image it runs. An image with any other tag is left alone.

    Returns:
        For each, its name, the bytes that its removal frees, and a function that removes it.
    """
    used = {container["ImageID"] for container in client.api.containers(all=True)}
    found = list[tuple[str, int, Callable[[], None]]]()
    # `df` reports the size that an image shares with others, such as the base image's layers.
    for image in client.api.df()["Images"] or ():
        labels, tags = image.get("Labels") or {}, image.get("RepoTags") or []
        foreign = [name for name in tags if not name.startswith((f"{PREFIX}/", "<none>")) and name != tag]
        if (
            labels.get(KIND) not in ("environment", "package")
            or labels.get(DIGEST, "") in keep
            or image["Id"] in used
            or foreign
        ):
            continue
        text = f"image {(tags or [image['Id'][7:19]])[0]}"
        size = image["Size"] - max(image.get("SharedSize") or 0, 0)
        found.append((text, size, _remover(client, image["Id"])))
    return found


def pull(client: docker.DockerClient, name: str, report: Callable[[str], None]) -> str:
    """Pull an image and report what the engine does, without its progress bars.

    Args:
        client: The engine.
        name: The image's name.
        report: Called with each line.

    Returns:
        The reason for a failure; empty where it worked.

    Raises:
        docker.errors.DockerException: The SDK cannot send the request.
        requests.exceptions.RequestException: The engine does not answer.
    """
    from docker.errors import APIError

    repository, tag = (name, None) if "@" in name else split_name(name)
    reason = last = ""
    try:
        for event in client.api.pull(repository, tag=tag, stream=True, decode=True):
            reason = event.get("error") or reason
            line = " ".join(filter(None, (event.get("id"), event.get("status"))))
            if line and line != last and not event.get("progress"):
                report(line)
                last = line
    except APIError as error:
        return str(error.explanation or error)
    return reason


def import_image(client: docker.DockerClient, data: Iterator[bytes], name: str, changes: list[str]) -> tuple[str, int]:
    """Import a root file system as an image; an older image of that name is removed if nothing uses it.

    Args:
        client: The engine.
        data: The tar archive in parts.
        name: The image's name.
        changes: Lines of a Dockerfile, such as ``CMD …``.

    Returns:
        The image's id, and its size in bytes.

    Raises:
        UserError: The engine refuses it.
    """
    from docker.errors import APIError, ImageNotFound
    from requests.exceptions import RequestException

    from ..environments.pip_failures import is_disk_full

    old = None
    with contextlib.suppress(ImageNotFound):
        old = inspect(client, name)["Id"]
    repository, tag = split_name(name)
    try:
        client.api.import_image(
            src=data,
            repository=repository,
            tag=tag,
            changes=changes,
            stream_src=True,
        )
        image = inspect(client, name)
    except ImageNotFound as error:
        raise UserError(f"The Docker engine did not take {name}.", "See the engine's log.") from error
    except APIError as error:
        text = str(error.explanation or error)
        raise (
            engine_disk_full_error()
            if is_disk_full(text)
            else UserError(f"The Docker engine refused {name}: {text.rstrip('.')}.", "See the engine's log.")
        ) from error
    except RequestException as error:
        raise connection_lost_error(error) from error
    if old is not None and old != image["Id"]:
        with contextlib.suppress(APIError):
            client.api.remove_image(old)
    return image["Id"], image["Size"]


def engine_disk_full_error() -> UserError:
    """The error for a full disk on the engine's side, with the free space where this machine can see that."""
    from .docker_client import data_folder

    folder = data_folder()
    left = storage.free_space(folder) if folder is not None and folder.is_dir() else None
    explained = f": {left}" if left is not None else f", where it has {folder}" if folder is not None else ""
    return UserError(
        f"The Docker engine's disk is full{explained}.",
        "Free some space (`inv container.prune`; `docker system df` shows what holds it), then run it again.",
    )


def uses_base(definition: EnvironmentDefinition) -> bool:
    """Whether a definition's Dockerfile takes the base image from the argument BASE_IMAGE."""
    from ..environments.dockerfile import parse
    from ..reading import read_text

    try:
        return parse(read_text(definition.dockerfile, errors="replace")).has_argument("BASE_IMAGE")
    except OSError:
        return True


def inspect(client: docker.DockerClient, image: str) -> dict[str, Any]:
    """What the engine returns for an image."""
    found: dict[str, Any] = client.api.inspect_image(image)  # type: ignore[no-untyped-call]
    return found


def has_debugpy(image: Mapping[str, Any]) -> bool:
    """Whether an image was built from an environment definition, which always adds debugpy.

    Args:
        image: As returned by :func:`inspect`.
    """
    labels = image["Config"].get("Labels") or {}
    return labels.get(KIND) == "environment" and SOURCE not in labels


def image_digest(definition: EnvironmentDefinition, base_id: str) -> str:
    """The hex digest by which the image of a definition is found again."""
    return definition.digest("docker", base_id if uses_base(definition) else "")


def image_name(definition: EnvironmentDefinition, digest: str) -> str:
    """The image's own name: ``azureml-debug/NAME:DIGEST``, in the letters that the engine allows."""
    plain = re.sub(r"[^a-z0-9]+", "-", definition.name.lower()).strip("-") or "environment"
    return f"azureml-debug/{plain}:{digest[:12]}"


def split_name(name: str) -> tuple[str, str]:
    """Repository and tag of a name; a colon before a slash belongs to a host's port."""
    repository, colon, tag = name.rpartition(":")
    return (repository, tag) if colon and "/" not in tag else (name, "latest")


def image_id(client: docker.DockerClient, images: list[dict[str, Any]], name: str) -> str | None:
    """The id of an image; None where the engine has no image of that name."""
    wanted = name if "@" in name else ":".join(split_name(name))
    for image in images:
        if wanted in (image.get("RepoTags") or ()) or wanted in (image.get("RepoDigests") or ()):
            return str(image["Id"])
    from docker.errors import APIError

    try:  # an id, or a name that the engine completes
        return str(inspect(client, name)["Id"])
    except APIError:
        return None


def base_missing_error(name: str, reason: str) -> UserError:
    """The error for a base image that the engine does not have and cannot pull."""
    explained = docker_credentials.credential_helper_error(name, reason)
    if explained is not None:
        return explained
    # The reason is at the end of the engine's chain of "Get …: dial …: lookup …".
    short = reason.strip().rstrip(".").rpartition(": ")[2] if ": " in reason else reason.strip().rstrip(".")
    return UserError(
        f"The base image {name} is not here and cannot be pulled: {short or 'no reason given'}.",
        "Make one from Debian packages with `inv container.base`, or name one that is here in AML_BASE_IMAGE.",
        details=[reason.strip()] if reason else (),
    )


def _remover(client: docker.DockerClient, image_id: str) -> Callable[[], None]:
    def remove() -> None:
        from docker.errors import APIError, ImageNotFound

        try:
            # With force, since the image has two names: its own, and the tag under which it is run.
            client.api.remove_image(image_id, force=True)
        except ImageNotFound:
            return
        except APIError as error:
            raise UserError(
                f"The image {image_id[7:19]} cannot be removed: {error.explanation}.",
                "Stop what uses it first.",
            ) from error

    return remove
