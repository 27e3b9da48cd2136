"""Installs an image's environment in a container with the user's settings of pip, where the host cannot do it.

Arguments and files of a build stay in the image's layers or history. Variables of a command in a running container
stay in neither. So the environment is installed there, and the Dockerfile's own instruction is replaced by one that
copies it.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..environments.container_pip_settings import ContainerSettings, list_files
from ..environments.dockerfile import Dockerfile, Instruction, shell_command
from ..interrupts import uninterrupted
from ..redaction import LineScrubber
from .docker_client import socket_path

if TYPE_CHECKING:
    import docker

_INSTALL = re.compile(r"(?P<script>[^\s;&|]*\binstall\.sh)(?:[ \t]+(?P<prefix>/[^\s;&|]+))?")
_ALONE = re.compile(rf"(?:(?:/bin/)?(?:ba)?sh\s+)?{_INSTALL.pattern}\s*")
_PREFIX = "/opt/env"
# Seconds for one request to the engine.
_TIMEOUT = 1800


@dataclass(frozen=True)
class InstallInstruction:
    """The instruction by which a Dockerfile installs the environment.

    Attributes:
        instruction: The RUN instruction.
        script: The path of install.sh in the image.
        prefix: The folder of the environment.
        alone: Whether the instruction does nothing else.
    """

    instruction: Instruction
    script: str
    prefix: str
    alone: bool


@dataclass
class PreparedEnvironment:
    """The result of installing an environment in a container.

    Attributes:
        image: The image that has the environment; empty where it could not be installed.
        lines: The output of the installation.
    """

    image: str = ""
    lines: list[str] = field(default_factory=list)


def find_install_instruction(parsed: Dockerfile) -> InstallInstruction | None:
    """The instruction that runs install.sh; None where there is none, or more than one."""
    found = list[InstallInstruction]()
    for one in parsed.instructions:
        if one.keyword != "RUN" or one.heredocs or ".azureml-debug" in one.rest:
            continue
        command = shell_command(one)
        for match in _INSTALL.finditer(command):
            if match["script"].startswith("/"):
                alone = _ALONE.fullmatch(command) is not None
                found.append(InstallInstruction(one, match["script"], match["prefix"] or _PREFIX, alone))
    return found[0] if len(found) == 1 else None


def text_before(text: str, place: InstallInstruction) -> str:
    """A Dockerfile's text before that instruction."""
    return "\n".join(text.replace("\r\n", "\n").split("\n")[: place.instruction.line - 1]) + "\n"


def with_copied_environment(text: str, place: InstallInstruction, image: str) -> str:
    """A Dockerfile's text that copies the environment from an image in place of that instruction."""
    lines = text.replace("\r\n", "\n").split("\n")
    copy = f"COPY --from={image} {place.prefix} {place.prefix}"
    rest = lines[place.instruction.last :]
    return "\n".join([*lines[: place.instruction.line - 1], copy, *rest])


def network_for(carried: ContainerSettings) -> str | None:
    """The network mode for a container with a user's settings; None for the default.

    Where an address in the settings is on this machine's loopback interface, that is the host's network.
    """
    return "host" if carried.leads_here and sys.platform == "linux" and socket_path() is not None else None


@contextlib.contextmanager
def prepare_environment(
    client: docker.DockerClient,
    image: str,
    place: InstallInstruction,
    carried: ContainerSettings,
    name: str,
    labels: dict[str, str],
    report: Callable[[str], None],
) -> Iterator[PreparedEnvironment]:
    """Install the environment in a container; its container and image are removed at the end of the block.

    Args:
        client: The engine.
        image: The image that was built up to the instruction.
        place: The instruction.
        carried: The user's settings.
        name: The name of the image that is made of the container.
        labels: Labels by which a later command finds what a killed process leaves.
        report: Called with each line of the installation's output.
    """
    from docker.errors import APIError
    from requests.exceptions import RequestException

    found = PreparedEnvironment()
    # The SDK's own client, whose timeout can be set: an environment of gigabytes takes long to commit.
    api = client.containers.client.api
    script, variables = carried.command(f"exec sh {place.script} {place.prefix}")
    with contextlib.ExitStack() as undo:

        def remove(what: Callable[..., Any], number: str) -> None:
            # What cannot be removed now, the next build finds by its label.
            with contextlib.suppress(APIError, RequestException), uninterrupted():
                what(number, force=True)

        undo.callback(setattr, api, "timeout", api.timeout)
        api.timeout = _TIMEOUT

        with uninterrupted():
            container = api.create_container(
                image,
                entrypoint=["/bin/sh", "-c", "while :; do sleep 3600; done"],
                command=[],
                labels=labels,
                host_config=api.create_host_config(init=True, network_mode=network_for(carried) or "bridge"),
            )["Id"]
            undo.callback(remove, api.remove_container, container)
        api.start(container)
        if carried.files:
            api.put_archive(container, "/", _archive(carried))
        execution = api.exec_create(container, ["/bin/sh", "-c", script], environment=variables)["Id"]
        for line in _lines(api.exec_start(execution, stream=True)):
            found.lines.append(line)
            report(line)
        if api.exec_inspect(execution)["ExitCode"] == 0:
            with uninterrupted():
                repository, _, tag = name.rpartition(":")
                api.commit(container, repository=repository, tag=tag)
                undo.callback(remove, api.remove_image, name)
            found.image = name
        yield found


def _archive(carried: ContainerSettings) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for place, path in carried.files.items():
            for name, file in list_files(path):
                tar.add(file, f"{place}/{name}".strip("/"), recursive=False)
    return data.getvalue()


def _lines(pieces: Iterator[bytes]) -> Iterator[str]:
    rest, scrub_line = b"", LineScrubber()
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield scrub_line(line.decode("utf-8", "replace").rstrip())
    if rest:
        yield scrub_line(rest.decode("utf-8", "replace").rstrip())
