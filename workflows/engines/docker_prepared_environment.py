"""An image's environment, made in a container with the person's settings of pip, where the host cannot make it.

What a build is given stands in the image's layers or its history. A command in a container that runs is given
variables that stand in neither, so the environment is made there, and the Dockerfile's own instruction is replaced by
one that copies it.
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
# Seconds for one thing asked of the engine.
_PATIENCE = 1800


@dataclass(frozen=True)
class InstallInstruction:
    """Where a Dockerfile installs the environment.

    Attributes:
        instruction: The RUN.
        script: install.sh there.
        prefix: The folder that it makes.
        alone: Whether the instruction does nothing else.
    """

    instruction: Instruction
    script: str
    prefix: str
    alone: bool


@dataclass
class PreparedEnvironment:
    """An environment that was made, or why not.

    Attributes:
        image: The image that has it; empty where it could not be made.
        lines: What installing said.
    """

    image: str = ""
    lines: list[str] = field(default_factory=list)


def find_install_instruction(parsed: Dockerfile) -> InstallInstruction | None:
    """Where a Dockerfile runs install.sh; None where it does not, or more than once."""
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
    """A Dockerfile up to that instruction."""
    return "\n".join(text.replace("\r\n", "\n").split("\n")[: place.instruction.line - 1]) + "\n"


def with_copied_environment(text: str, place: InstallInstruction, image: str) -> str:
    """A Dockerfile that has the environment of an image in place of that instruction."""
    lines = text.replace("\r\n", "\n").split("\n")
    copy = f"COPY --from={image} {place.prefix} {place.prefix}"
    rest = lines[place.instruction.last :]
    return "\n".join([*lines[: place.instruction.line - 1], copy, *rest])


def network_for(carried: ContainerSettings) -> str | None:
    """The network in which the addresses of settings lead where they lead here; None for the usual one."""
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
    """Make the environment in a container; at the end of the block nothing of it is left.

    Args:
        client: The engine.
        image: Everything up to the instruction.
        place: The instruction.
        carried: The person's settings.
        name: The image that has the environment afterwards.
        labels: By which what a killed process leaves is found.
        report: Called with each line of what installing says.
    """
    from docker.errors import APIError
    from requests.exceptions import RequestException

    found = PreparedEnvironment()
    # The SDK's own client, whose patience counts: an environment of gigabytes takes its time.
    api = client.containers.client.api
    script, variables = carried.command(f"exec sh {place.script} {place.prefix}")
    with contextlib.ExitStack() as undo:

        def remove(what: Callable[..., Any], number: str) -> None:
            # What is left goes with the next build, by its label.
            with contextlib.suppress(APIError, RequestException), uninterrupted():
                what(number, force=True)

        undo.callback(setattr, api, "timeout", api.timeout)
        api.timeout = _PATIENCE

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
