"""Build an image: send the context, follow the log, remove what the build leaves.

The API's classic builder is used, which every engine has. It keeps each step as an image without a name; these
are removed by the ids in the log (`` ---> 3f2a…``).
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from .. import process_identity as identity
from ..environments import container_pip_settings
from ..environments.conda_packages import satisfies
from ..environments.context import ENVIRONMENT, OURS, build_context
from ..environments.dockerfile import Dockerfile, parse
from ..environments.pip_failures import install_error
from ..environments.wheelhouse import make_packages
from ..errors import UserError
from ..formatting import format_size
from ..interrupts import uninterrupted
from ..paths import cache_folder
from ..reading import read_bytes, read_text
from ..redaction import LineScrubber, scrub
from . import docker_address, docker_buildkit, docker_prepared_environment, docker_python
from .docker_build_log import Journal, Log
from .docker_images import base_missing_error, engine_disk_full_error, uses_base

if TYPE_CHECKING:
    import docker

    from ..environments.definition import EnvironmentDefinition

#: The settings that commands in a build get, for messages.
_IN_BUILD = "HTTP_PROXY, HTTPS_PROXY, NO_PROXY"
_CLEAN_SECONDS = 5.0


def build(
    client: docker.DockerClient,
    definition: EnvironmentDefinition,
    base_image: str,
    cache: Path,
    report: Callable[[str], None],
    *,
    name_image: Callable[[EnvironmentDefinition], tuple[str, Mapping[str, str]]],
) -> EnvironmentDefinition:
    """Build the image of an environment and tag it; the caller holds the lock.

    Args:
        client: The engine.
        definition: The environment.
        base_image: The image it builds on.
        cache: The program's cache folder.
        report: Called with each line of progress.
        name_image: Returns the name and the labels of a definition's image.

    Returns:
        The definition as it was built: with copies of all local packages where only pip could install it.

    Raises:
        UserError: It failed. No image and no container of it is left.
        OSError: The context cannot be written, or the connection to the engine broke.
    """
    image = docker_python.read_base_python(client, base_image) if uses_base(definition) else None
    if image is not None and definition.python and not satisfies(image.version, definition.python):
        report(
            f"{definition.source.name} asks for python{definition.python}; "
            f"using the base image's {image.minor}, it has no conda"
        )
    if image is not None:
        for note in definition.translate_conda()[1]:
            report(note)
    if definition.live and not _uses_added_files(definition):
        definition = definition.as_copies()
    packages = make_packages(definition, image, cache, report)
    if definition.live and packages is not None and not (packages / ENVIRONMENT).is_dir():
        definition = definition.as_copies()
        packages = make_packages(definition, image, cache, report)
    name, labels = name_image(definition)
    arguments = {"BASE_IMAGE": base_image}
    with contextlib.ExitStack() as stack:
        text = None
        if packages is None:
            text = stack.enter_context(_prepared_dockerfile(client, definition, arguments, report))
        report("packing what the engine is sent")
        context = stack.enter_context(build_context(definition, packages, text))
        report(f"sending {format_size(os.fstat(context.fileno()).st_size)} to the engine")
        path = definition.dockerfile
        log, failure = run_build(client, context, name, labels, report, path=path, arguments=arguments)
    if failure:
        raise _build_error(definition, log, failure)
    return definition


def _uses_added_files(definition: EnvironmentDefinition) -> bool:
    """Whether a Dockerfile, which may be the user's own, uses the files that are added to its context."""
    return str(OURS).encode() in read_bytes(definition.dockerfile)


@contextlib.contextmanager
def _prepared_dockerfile(
    client: docker.DockerClient,
    definition: EnvironmentDefinition,
    arguments: Mapping[str, str],
    report: Callable[[str], None],
) -> Iterator[str | None]:
    """The text of a Dockerfile that copies an environment installed beforehand with the user's settings of pip.

    None where there are no such settings, or where the Dockerfile does not install the environment with install.sh.

    Raises:
        UserError: The environment cannot be installed.
    """
    lines = [*definition.options, *(item.text for item in definition.pip), *definition.channels]
    carried = container_pip_settings.settings_for_container(_build_variables(), lines)
    text = read_text(definition.dockerfile, errors="replace")
    place = docker_prepared_environment.find_install_instruction(parse(text))
    if place is None or not carried.named:
        yield None
        return
    report(f"your settings of pip are used in the image: {', '.join(carried.named)}")
    labels = {"azureml-debug.kind": "probe", docker_python.MARK: identity.process_mark()}
    name, ready = (f"azureml-debug/{part}:{identity.process_mark()}" for part in ("preparing", "prepared"))
    path = definition.dockerfile
    with build_context(definition, None, docker_prepared_environment.text_before(text, place)) as context:
        log, failure = run_build(client, context, name, labels, report, path=path, arguments=arguments)
    if failure:
        raise _build_error(definition, log, failure)
    try:
        with docker_prepared_environment.prepare_environment(
            client, name, place, carried, ready, labels, report
        ) as made:
            if made.image:
                yield docker_prepared_environment.with_copied_environment(text, place, made.image)
                return
            if place.alone:
                used = [
                    *carried.named,
                    *(name for name in container_pip_settings.PROXIES if name in carried.variables),
                ]
                conda = definition.translate_conda()[0]
                raise install_error(definition, made.lines, conda=conda, settings=", ".join(used))
        # The instruction does more, which the installation may need: let the build try it.
        yield None
    finally:
        _remove_image(client, name)


def _remove_image(client: docker.DockerClient, name: str) -> None:
    from docker.errors import APIError
    from requests.exceptions import RequestException

    with contextlib.suppress(APIError, RequestException), uninterrupted():
        client.api.remove_image(name, force=True)


def run_build(
    client: docker.DockerClient,
    context: IO[bytes],
    name: str,
    labels: Mapping[str, str],
    report: Callable[[str], None],
    *,
    path: Path,
    arguments: Mapping[str, str] | None = None,
    dockerfile: str | None = None,
) -> tuple[Log, str]:
    """Build an image from any context.

    Args:
        client: The engine.
        context: A tar archive, open for reading.
        name: The image's name.
        labels: The image's labels.
        report: Called with each line of the log.
        path: The Dockerfile on this machine.
        arguments: The Dockerfile's ARGs.
        dockerfile: The Dockerfile in the context; None for the one of that name.

    Returns:
        The log, and the reason for a failure: empty where it worked. A failed build leaves nothing.

    Raises:
        UserError: It needs BuildKit, and there is none.
    """
    from docker.errors import APIError

    parsed = parse("")
    with contextlib.suppress(OSError):  # the engine says what is wrong with it
        parsed = parse(read_text(path, errors="replace"))
    if parsed.needs_buildkit() is not None:
        return _with_buildkit(parsed, context, name, labels, report, path, arguments or {}, dockerfile)

    journal = Journal(cache_folder())
    log = Log(journal)
    failure = ""
    try:
        with _closing_connections(client):
            events = client.api.build(
                fileobj=context,
                custom_context=True,
                dockerfile=dockerfile,
                tag=name,
                buildargs={**_proxies(), **(arguments or {})},
                network_mode=_network(),
                labels=dict(labels),
                rm=True,
                forcerm=True,
                decode=True,
                timeout=None,  # a step may be silent for longer than the client's 60 s
            )
            for line, error in _log_lines(events):
                failure = error or failure
                if line:
                    log.add(line)
                    report(line)
    except APIError as error:
        failure = scrub(str(error.explanation or error))
    finally:
        _remove_probes(client)
        left = journal.left()
        log.images[:0] = [number for kind, number in left if kind == "image"]
        log.containers[:0] = [number for kind, number in left if kind == "container"]
        if _remove_leftovers(client, log):
            journal.close()
    return log, failure


def _proxies() -> dict[str, str]:
    """The proxy variables of a build: ARGs that the engine keeps out of the image and its history.

    Where the build cannot reach proxies on this machine's loopback address, there are none.
    """
    found = container_pip_settings.proxy_variables(_build_variables())
    return {} if _lead_to_this_machine(found) and _network() is None else found


def _build_variables() -> Mapping[str, str]:
    """The user's variables; the proxies in Docker's config.json, which are meant for containers, take precedence."""
    set_there = docker_address.proxies_of_containers()
    if not set_there:
        return os.environ
    own = {name: value for name, value in os.environ.items() if name.upper() not in container_pip_settings.PROXIES}
    return {**own, **set_there}


def _network() -> str | None:
    return docker_prepared_environment.network_for(
        container_pip_settings.ContainerSettings(
            addresses=_addresses(container_pip_settings.proxy_variables(_build_variables()))
        )
    )


def _lead_to_this_machine(found: Mapping[str, str]) -> bool:
    return container_pip_settings.ContainerSettings(addresses=_addresses(found)).leads_here


def _addresses(found: Mapping[str, str]) -> list[str]:
    return [value for name, value in found.items() if name.upper() != "NO_PROXY"]


def _with_buildkit(
    parsed: Dockerfile,
    context: IO[bytes],
    name: str,
    labels: Mapping[str, str],
    report: Callable[[str], None],
    path: Path,
    arguments: Mapping[str, str],
    dockerfile: str | None,
) -> tuple[Log, str]:
    if (missing := docker_buildkit.buildkit_missing_error(parsed, path)) is not None:
        raise missing
    log = Log()

    def add_line(line: str) -> None:
        log.add(line)
        report(line)

    failure = docker_buildkit.build(
        context, name, labels, {**_proxies(), **arguments}, dockerfile, add_line, network=_network()
    )
    if failure and (remedy := docker_buildkit.remedy_for_old_buildkit(parsed, failure)):
        needed = parsed.needs_buildkit()
        line = needed[0].line if needed is not None else None
        raise UserError(f"{path.name} cannot be built: {failure.rstrip('.')}.", remedy, file=path, line=line)
    return log, failure


def _log_lines(events: Iterator[Any]) -> Iterator[tuple[str, str]]:
    """The lines of a build's log, and its errors, both without secrets. An event may hold half a line or several."""
    rest, scrub_line = "", LineScrubber()
    for event in events:
        *lines, rest = (rest + event.get("stream", "")).replace("\r", "\n").split("\n")
        for line in lines:
            yield scrub_line(re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip()), ""
        if "error" in event:
            yield "", scrub(str(event["error"]))
    yield scrub_line(rest.rstrip()), ""


@contextlib.contextmanager
def _closing_connections(client: docker.DockerClient) -> Iterator[None]:
    """Close the connections opened in the block at its end, which makes the engine end a build."""
    opened = list[Any]()

    def note(response: Any, **_: object) -> None:
        opened.append(response)

    # The SDK does not return the response; a hook of requests does.
    hooks = client.api.hooks["response"]
    hooks.append(note)
    try:
        yield
    finally:
        hooks.remove(note)
        for response in opened:
            response.close()


def _remove_leftovers(client: docker.DockerClient, log: Log) -> bool:
    """Remove the containers and nameless images that a build left, unless a named image needs them.

    Returns:
        Whether all of them are gone.
    """
    from docker.errors import APIError, ImageNotFound

    for container in log.containers:
        with contextlib.suppress(APIError):
            client.api.remove_container(container, force=True)
    needed = _needed_images(client)
    # The newest first, since an image that another builds on cannot be removed.
    left = [image for image in reversed(log.images) if image not in log.base_images and image[:12] not in needed]
    until = time.monotonic() + _CLEAN_SECONDS
    while left:
        for image in list(left):
            try:
                client.api.remove_image(image)
            except ImageNotFound:
                pass
            except APIError:  # the engine has not ended the build yet
                continue
            left.remove(image)
        if left and time.monotonic() > until:
            return False
        if left:
            time.sleep(0.1)
    return True


def _needed_images(client: docker.DockerClient) -> set[str]:
    """Short ids of the images that have names, and of all images that these build on."""
    images = {image["Id"]: image for image in client.api.images(all=True)}
    needed = set[str]()
    for image in images.values():
        found = image if set(image.get("RepoTags") or ()) - {"<none>:<none>"} else None
        while found is not None and found["Id"] not in needed:
            needed.add(found["Id"])
            found = images.get(found["ParentId"])
    return {image.removeprefix("sha256:")[:12] for image in needed}


def _build_error(definition: EnvironmentDefinition, log: Log, failure: str) -> UserError:
    if log.disk_full(failure):
        return engine_disk_full_error()
    if log.instruction == "FROM":
        return base_missing_error(log.image or "of the Dockerfile", failure)
    if any(line.startswith("ERROR: ") for line in [*log.lines, failure]):
        return install_error(definition, list(log.lines), conda=definition.translate_conda()[0], settings=_IN_BUILD)
    return UserError(
        f"Building the image of the environment `{definition.name}` failed at `{log.step}`: {failure.rstrip('.')}.",
        f"Correct {definition.dockerfile}, then run the same command again.",
        file=definition.dockerfile,
        details=log.shown,
    )


def _remove_probes(client: docker.DockerClient) -> None:
    """Remove containers and images of commands that were killed while they probed or prepared an image."""
    from docker.errors import APIError

    for container in client.api.containers(all=True, filters={"label": "azureml-debug.kind=probe"}):
        if identity.is_leftover(str((container["Labels"] or {}).get(docker_python.MARK, ""))):
            with contextlib.suppress(APIError):
                client.api.remove_container(container["Id"], force=True)
    for image in client.api.images(filters={"label": "azureml-debug.kind=probe"}):
        if identity.is_leftover(str((image["Labels"] or {}).get(docker_python.MARK, ""))):
            _remove_image(client, image["Id"])
