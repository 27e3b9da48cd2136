"""Images of packaged models: pulled with progress, or built from a downloaded build context."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ..errors import UserError
from ..models import RegistryLogin
from . import docker_credentials, docker_errors
from .docker_images import (
    DIGEST,
    ENVIRONMENT,
    KIND,
    PREFIX,
    connection_lost_error,
    engine_disk_full_error,
    inspect,
    split_name,
)

if TYPE_CHECKING:
    import docker

#: The label's value on images of packaged models that were built here.
PACKAGE = "package"


def pull_image(
    client: docker.DockerClient, name: str, login: RegistryLogin | None, report: Callable[[str], None]
) -> str:
    """Pull an image, and report how much of it has been downloaded.

    Args:
        client: The engine.
        name: The image's full name.
        login: The registry login; None for docker's own login.
        report: Called with each line of progress.

    Returns:
        The image's full name with its digest, ``REPOSITORY@sha256:…``.

    Raises:
        UserError: It cannot be pulled.
    """
    from docker.errors import APIError, ImageNotFound
    from requests.exceptions import RequestException

    repository, tag = (name, None) if "@" in name else split_name(name)
    credentials = {"username": login.username, "password": login.password} if login else None
    failure = ""
    try:
        events = client.api.pull(repository, tag=tag, stream=True, decode=True, auth_config=credentials)
        layers: dict[str, tuple[int, int]] = {}
        shown = ""
        for event in events:
            failure = str(event.get("error") or failure)
            text = _progress(name, event, layers)
            if text and text != shown:
                report(text)
                shown = text
        if not failure:
            return _with_digest(client, name)
    except ImageNotFound as error:
        failure = str(error.explanation or error)
    except APIError as error:
        failure = str(error.explanation or error)
    except RequestException as error:
        raise connection_lost_error(error) from error
    raise _pull_error(name, failure, login)


def _progress(name: str, event: dict[str, object], layers: dict[str, tuple[int, int]]) -> str:
    """The progress after an event of a pull, in steps of 10 %; empty where there is nothing to report."""
    layer, detail = str(event.get("id") or ""), event.get("progressDetail")
    status = str(event.get("status") or "")
    if status == "Pulling fs layer":
        layers[layer] = (0, 0)
    elif status == "Downloading" and isinstance(detail, dict) and detail.get("total"):
        layers[layer] = (int(detail["current"]), int(detail["total"]))
    elif status == "Download complete" and layer in layers:
        layers[layer] = (layers[layer][1],) * 2
    else:
        return status if status.startswith("Digest") else ""
    total = sum(size for _, size in layers.values())
    received = sum(size for size, _ in layers.values())
    if not total:
        return f"pulling {name}"
    return f"pulling {name}: {10 * (10 * received // total)} % of {total / 1e6:.1f} MB"


def _with_digest(client: docker.DockerClient, name: str) -> str:
    repository = name if "@" in name else split_name(name)[0]
    digests = inspect(client, name).get("RepoDigests") or []
    return next((one for one in digests if one.startswith(f"{repository}@")), name)


def _pull_error(name: str, failure: str, login: RegistryLogin | None) -> UserError:
    from ..environments.pip_failures import is_disk_full

    host = name.partition("/")[0]
    if is_disk_full(failure):
        return engine_disk_full_error()
    if login is None and (explained := docker_credentials.credential_helper_error(name, failure)) is not None:
        return explained
    if docker_credentials.is_refusal(failure):
        registry = host.partition(".")[0]
        return UserError(
            f"The registry {host} does not let you pull {name}: {failure.rstrip('.')}.",
            f"Log in to it (az acr login --name {registry}), with the role AcrPull, then run this again.",
        )
    return UserError(
        f"The image {name} cannot be pulled: {failure.rstrip('.')}.",
        f"See that the Docker engine reaches {host}, then run this again.",
    )


def build_package(
    client: docker.DockerClient, folder: Path, key: str, login: RegistryLogin | None, report: Callable[[str], None]
) -> str:
    """Build an image from a folder with a Dockerfile whose base image may be in a private registry.

    Args:
        client: The engine.
        folder: The build context.
        key: Hex digest by which the image is found again.
        login: The registry login for the base image.
        report: Called with each line of progress.

    Returns:
        The image's name.

    Raises:
        UserError: It cannot be built. Nothing of it is left.
    """
    from ..environments.dockerfile import parse
    from ..reading import read_text
    from .docker_build import run_build

    dockerfile = folder / "Dockerfile"
    for base in parse(read_text(dockerfile, errors="replace")).external_images({}):
        if not image_exists(client, base):
            pull_image(client, base, login if login and base.startswith(f"{login.address}/") else None, report)
    name = f"{PREFIX}/{PACKAGE}:{key[:12]}"
    # Labels are inherited: with those of a base image made by this program, it would be taken for an environment.
    labels = {KIND: PACKAGE, DIGEST: key, ENVIRONMENT: ""}
    with _folder_archive(folder) as context:
        log, failure = run_build(client, context, name, labels, report, path=dockerfile)
    if failure:
        explained = docker_credentials.credential_helper_error(log.image, failure) if log.image else None
        raise explained or UserError(
            f"Building the package's image here failed: {failure.rstrip('.')}.",
            f"The build context is in {folder}; without --generate-dockerfile Azure ML builds the image.",
            details=log.shown,
        )
    return name


@contextlib.contextmanager
def _folder_archive(folder: Path) -> Iterator[IO[bytes]]:
    import tarfile
    import tempfile

    with tempfile.TemporaryFile(prefix="azureml-debug-context-") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
            tar.add(folder, ".")
        file.seek(0)
        yield file


def image_exists(client: docker.DockerClient, name: str) -> bool:
    """Whether the engine has an image."""
    try:
        inspect(client, name)
    except docker_errors.APIError:
        return False
    return True


def image_variables(client: docker.DockerClient, image: str) -> dict[str, str]:
    """The environment variables that an image sets; none where there is no such image."""
    try:
        variables = inspect(client, image)["Config"].get("Env") or []
    except docker_errors.APIError:
        # The next use of the image reports what is wrong with it.
        return {}
    return dict(line.partition("=")[::2] for line in variables)


def find_app_root(client: docker.DockerClient, image: str, default: str) -> str:
    """The path of the entry script's folder in an image.

    A packaged model's image has its models beside that folder, below /var/azureml-app, and names the folder in
    AZUREML_SOURCE_DIRECTORY (azureml.core.model.InferenceConfig).

    Args:
        client: The engine.
        image: The image's name.
        default: The path in any other image.
    """
    return app_root_of(image_variables(client, image), default)


def app_root_of(variables: Mapping[str, str], default: str) -> str:
    """The same, by the environment variables that the image sets."""
    found = variables.get("AZUREML_SOURCE_DIRECTORY", "").strip("/")
    return f"{default}/{found}" if found and ".." not in found.split("/") else default
