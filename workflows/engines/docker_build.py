"""One build of an image: the context sent, the log followed, leftovers taken away.

The API's classic builder is used, which every engine has. It keeps each step as an image without a
name, so what a build stage leaves is removed by the ids in the log (`` ---> 3f2a…``).
"""

from __future__ import annotations

import contextlib
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ..environments import pythons
from ..environments.conda_packages import satisfies
from ..environments.context import build_context
from ..environments.dockerfile import Dockerfile, parse
from ..environments.pip_failures import is_disk_full, pip_failed
from ..environments.wheelhouse import make_packages
from ..errors import UserError
from ..paths import cache_folder
from ..reading import read_text
from ..redaction import LineScrubber, scrub
from ..runs import identity
from . import docker_buildkit
from .docker_images import base_missing, engine_disk_full, engine_lost, uses_base

if TYPE_CHECKING:
    import docker

    from ..environments.definition import EnvironmentDefinition

_STEP = re.compile(r"^Step \d+/\d+ : (?P<instruction>\w+)\s*(?P<rest>.*)$")
_IMAGE = re.compile(r"^ ---> ([0-9a-f]{12,64})$")
_CONTAINER = re.compile(r"^ ---> Running in ([0-9a-f]{12,64})$")
#: Which process made a container that lives for a moment only.
_MARK = "azureml-debug.mark"
_KEPT_LINES = 2000
_SHOWN_LINES = 15
_CLEAN_SECONDS = 5.0


class Log:
    """What a build's log tells: the lines, and the images and containers that it made.

    Attributes:
        lines: The last lines.
        instruction: The instruction that was begun last, in capitals; empty before the first.
        rest: What follows it.
    """

    def __init__(self, journal: Journal | None = None) -> None:
        self.lines = deque[str](maxlen=_KEPT_LINES)
        self._journal = journal
        self.images = list[str]()
        self.given = set[str]()  # images that a FROM names
        self.containers = list[str]()
        self.instruction, self.rest = "", ""

    def add(self, line: str) -> None:
        """Take a further line."""
        self.lines.append(line)
        if step := _STEP.match(line):
            self.instruction, self.rest = step["instruction"].upper(), step["rest"]
        elif container := _CONTAINER.match(line):
            self.containers.append(container.group(1))
            self._keep("container", container.group(1))
        elif image := _IMAGE.match(line):
            if self.instruction == "FROM":
                self.given.add(image.group(1))
            else:
                self.images.append(image.group(1))
                self._keep("image", image.group(1))

    def _keep(self, kind: str, number: str) -> None:
        if self._journal is not None:
            self._journal.add(kind, number)

    @property
    def shown(self) -> list[str]:
        """The last lines, without those that name images and containers."""
        return [line for line in self.lines if not line.startswith(" --->")][-_SHOWN_LINES:]

    @property
    def step(self) -> str:
        """The instruction that was begun last, for a message."""
        return f"{self.instruction} {self.rest}".strip()[:80] or "its beginning"

    @property
    def image(self) -> str:
        """The image that the instruction which was begun last takes; empty where it takes none."""
        words = [word for word in self.rest.split() if not word.startswith("--")]
        if self.instruction == "FROM" and words:
            return words[0]
        taken = re.match(r"--from=(\S+)", self.rest)
        return taken[1] if self.instruction == "COPY" and taken else ""

    def disk_full(self, failure: str) -> bool:
        """Whether a build failed since the engine's disk is full."""
        return any(map(is_disk_full, [failure, *list(self.lines)[-50:]]))


class Journal:
    """What builds have made so far, in a file of each process: what one that was killed has left, the next one finds.

    Args:
        cache: The program's cache folder.
    """

    def __init__(self, cache: Path) -> None:
        self._folder = cache / "builds"
        self._path = self._folder / identity.mark()
        self._left = [path for path in self._folder.glob("*") if identity.is_left(path.name)]

    def left(self) -> list[tuple[str, str]]:
        """Kind and id of what builds that were killed have made, in that order."""
        found = list[tuple[str, str]]()
        for path in self._left:
            with contextlib.suppress(OSError, ValueError):
                found += [(kind, number) for kind, number in map(str.split, path.read_text("ascii").splitlines())]
        return found

    def add(self, kind: str, number: str) -> None:
        """Note an image or a container."""
        # It is for the case that this process is killed; a full disk keeps no build from its end.
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            with open(self._path, "a", encoding="ascii") as file:
                file.write(f"{kind} {number}\n")

    def close(self) -> None:
        """Forget it: nothing of these builds is left."""
        for path in (*self._left, self._path):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def build(
    client: docker.DockerClient,
    definition: EnvironmentDefinition,
    base_image: str,
    cache: Path,
    report: Callable[[str], None],
    *,
    name: str,
    labels: Mapping[str, str],
) -> None:
    """Build an image and give it its name; the caller holds the lock.

    Raises:
        UserError: It failed. Neither image nor container of it is left.
        OSError: The context cannot be written, or the connection to the engine broke.
    """
    image = _image_python(client, base_image) if uses_base(definition) else None
    if image is not None and definition.python and not satisfies(image.version, definition.python):
        report(
            f"{definition.source.name} asks for python{definition.python}; "
            f"using the base image's {image.minor}, it has no conda"
        )
    if image is not None:
        for note in definition.translated()[1]:
            report(note)
    packages = make_packages(definition, image, cache, report)
    with build_context(definition, packages) as context:
        log, failure = run_build(
            client, context, name, labels, report, path=definition.dockerfile, arguments={"BASE_IMAGE": base_image}
        )
    if failure:
        raise _failed(definition, log, failure)


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
    """Build an image of any context.

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
        The log, and why it failed: empty where it worked. Of a failed build nothing is left.

    Raises:
        UserError: It wants BuildKit, and there is none.
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
        with _connection(client):
            events = client.api.build(
                fileobj=context,
                custom_context=True,
                dockerfile=dockerfile,
                tag=name,
                buildargs=dict(arguments or {}),
                labels=dict(labels),
                rm=True,
                forcerm=True,
                decode=True,
                timeout=None,  # a step may be silent for longer than the client's 60 s
            )
            for line, error in _lines(events):
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
        if _clean(client, log):
            journal.close()
    return log, failure


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
    if (refused := docker_buildkit.missing(parsed, path)) is not None:
        raise refused
    log = Log()

    def say(line: str) -> None:
        log.add(line)
        report(line)

    failure = docker_buildkit.build(context, name, labels, arguments, dockerfile, say)
    if failure and (remedy := docker_buildkit.too_old(parsed, failure)):
        needed = parsed.needs_buildkit()
        line = needed[0].line if needed is not None else None
        raise UserError(f"{path.name} cannot be built: {failure.rstrip('.')}.", remedy, file=path, line=line)
    return log, failure


def _lines(events: Iterator[Any]) -> Iterator[tuple[str, str]]:
    """The log by lines, and errors, both without secrets; one event may hold half a line or several."""
    rest, scrub_line = "", LineScrubber()
    for event in events:
        *lines, rest = (rest + event.get("stream", "")).replace("\r", "\n").split("\n")
        for line in lines:
            yield scrub_line(re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip()), ""
        if "error" in event:
            yield "", scrub(str(event["error"]))
    yield scrub_line(rest.rstrip()), ""


@contextlib.contextmanager
def _connection(client: docker.DockerClient) -> Iterator[None]:
    """Close the connections opened in the block: that is what makes the engine end a build."""
    opened = list[Any]()

    def note(response: Any, **_: object) -> None:
        opened.append(response)

    # The SDK keeps the response to itself; requests' own hook hands it out.
    hooks = client.api.hooks["response"]
    hooks.append(note)
    try:
        yield
    finally:
        hooks.remove(note)
        for response in opened:
            response.close()


def _clean(client: docker.DockerClient, log: Log) -> bool:
    """Remove the containers and nameless images that a build left, unless a named image needs them.

    Whether nothing of it is left.
    """
    from docker.errors import APIError, ImageNotFound

    for container in log.containers:
        with contextlib.suppress(APIError):
            client.api.remove_container(container, force=True)
    needed = _needed(client)
    # The last first, since an image on which another builds cannot be removed.
    left = [image for image in reversed(log.images) if image not in log.given and image[:12] not in needed]
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


def _needed(client: docker.DockerClient) -> set[str]:
    """Short ids of the images that have names, and of all that they build on."""
    images = {image["Id"]: image for image in client.api.images(all=True)}
    needed = set[str]()
    for image in images.values():
        found = image if set(image.get("RepoTags") or ()) - {"<none>:<none>"} else None
        while found is not None and found["Id"] not in needed:
            needed.add(found["Id"])
            found = images.get(found["ParentId"])
    return {image.removeprefix("sha256:")[:12] for image in needed}


def _failed(definition: EnvironmentDefinition, log: Log, failure: str) -> UserError:
    if log.disk_full(failure):
        return engine_disk_full()
    if log.instruction == "FROM":
        return base_missing(log.image or "of the Dockerfile", failure)
    if any(line.startswith("ERROR: ") for line in [*log.lines, failure]):
        return pip_failed(definition, list(log.lines), conda=definition.translated()[0])
    return UserError(
        f"Building the image of the environment `{definition.name}` failed at `{log.step}`: {failure.rstrip('.')}.",
        f"Correct {definition.dockerfile}, then run the same command again.",
        file=definition.dockerfile,
        details=log.shown,
    )


def _remove_probes(client: docker.DockerClient) -> None:
    """Take away the containers of commands that were killed while they asked an image for its Python."""
    from docker.errors import APIError

    for container in client.api.containers(all=True, filters={"label": "azureml-debug.kind=probe"}):
        if identity.is_left(str((container["Labels"] or {}).get(_MARK, ""))):
            with contextlib.suppress(APIError):
                client.api.remove_container(container["Id"], force=True)


def _image_python(client: docker.DockerClient, base_image: str) -> pythons.PythonFacts | None:
    """What the base image's python3 says of itself; None where it has none, or has conda."""
    from docker.errors import APIError
    from requests.exceptions import RequestException

    probe = " ".join(f"'{part}'" for part in pythons.probe_command("python3"))
    known = "command -v conda || command -v mamba || command -v micromamba || ls /opt/*conda*/bin/conda"
    try:
        container = client.api.create_container(
            base_image,
            entrypoint=["/bin/sh", "-c"],
            command=[f"if {known}; then exit 9; fi >/dev/null 2>&1; exec {probe}"],
            network_disabled=True,
            labels={"azureml-debug.kind": "probe", _MARK: identity.mark()},
        )["Id"]
        try:
            client.api.start(container)
            code = client.api.wait(container, timeout=30)["StatusCode"]
            output = client.api.logs(container, stdout=True, stderr=False)
        finally:
            client.api.remove_container(container, force=True)
    except APIError:
        return None
    except RequestException as error:
        raise engine_lost(error) from error
    return pythons.parse_facts(output.decode("utf-8", "replace")) if code == 0 else None
