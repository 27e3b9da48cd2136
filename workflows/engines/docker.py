"""The Docker engine: environments as images, services as containers.

Together with docker_client and docker_images the only code that imports the docker SDK.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import storage
from ..debuggee import FOLDER as DEBUGGEE
from ..environments.definition import EnvironmentDefinition
from ..errors import UserError
from ..interrupts import uninterrupted
from ..models import Ended, ImageRef, RegistryLogin, Service, ServiceSpec
from ..paths import cache_folder
from . import docker_images, docker_packages
from .base import KEPT_LOG_BYTES, Unused, service_variables
from .docker_client import connect

if TYPE_CHECKING:
    import docker

APP_ROOT = "/var/azureml-app"
MODEL_ROOT = "/var/azureml-models"
DEBUGGEE_ROOT = "/var/azureml-debuggee"
ANNOUNCE_ROOT = "/var/azureml-debug"
RUNIT = "/var/runit"
SCORING_PORT, DEBUG_PORT = 5001, 5678
STOP_SECONDS = 1

LABEL_KIND = "azureml-debug.kind"
LABEL_PROJECT = "azureml-debug.project"

#: runsvdir as published. Its output goes where PID 1's goes, so that it is in the container's log.
_START = f"exec runsvdir {RUNIT} >/proc/1/fd/1 2>/proc/1/fd/2"


class DockerEngine:
    """Runs services as containers.

    Raises:
        UserError: No engine answers.
    """

    name = "docker"

    def __init__(self) -> None:
        self._client = connect()

    # Environments

    def find(self, definition: EnvironmentDefinition, base_image: str | None) -> ImageRef | None:
        """See :class:`~workflows.engines.base.Engine`."""
        base = docker_images.resolve_base_image(self._client, base_image)
        return docker_images.find_image(self._client, definition, base)

    def build(
        self, definition: EnvironmentDefinition, base_image: str | None, report: Callable[[str], None]
    ) -> ImageRef:
        """See :class:`~workflows.engines.base.Engine`."""
        base = docker_images.resolve_base_image(self._client, base_image)
        from ..environments.progress import briefly

        return docker_images.build_image(self._client, definition, base, cache_folder(), briefly(report))

    def tag(self, image: ImageRef, tag: str, project: Path) -> None:
        """See :class:`~workflows.engines.base.Engine`."""
        docker_images.tag_image(self._client, image, tag)

    def tagged(self, tag: str, project: Path) -> ImageRef | None:
        """See :class:`~workflows.engines.base.Engine`."""
        return docker_images.tagged_image(self._client, tag)

    def pull(self, name: str, login: RegistryLogin | None, report: Callable[[str], None]) -> str:
        """Pull an image; see :func:`docker_packages.pull`."""
        return docker_packages.pull(self._client, name, login, report)

    def build_package(self, folder: Path, key: str, login: RegistryLogin | None, report: Callable[[str], None]) -> str:
        """Build an image of a folder; see :func:`docker_packages.build_package`."""
        from ..environments.progress import briefly

        return docker_packages.build_package(self._client, folder, key, login, briefly(report))

    def has(self, name: str) -> bool:
        """Whether an image of that name is here."""
        return docker_packages.image_exists(self._client, name)

    # Services

    def app_root(self, score_script: Path) -> str:
        """See :class:`~workflows.engines.base.Engine`."""
        return APP_ROOT

    def create(self, spec: ServiceSpec) -> Service:
        """See :class:`~workflows.engines.base.Engine`."""
        from docker.errors import APIError, ImageNotFound
        from docker.types import LogConfig, Mount

        root = docker_packages.app_root(self._client, spec.tag, APP_ROOT)
        variables = service_variables(
            app_root=root,
            entry_script=spec.score_script.name,
            debuggee=DEBUGGEE_ROOT,
            events=f"{ANNOUNCE_ROOT}/events.jsonl",
            project=spec.project,
            spec=spec,
            # Published on 127.0.0.1 only; inside, the port has to be reachable from there.
            debug_host="0.0.0.0",  # noqa: S104
            debug_port=DEBUG_PORT,
            server_port=SCORING_PORT,
            bind=None,
            model_dir=MODEL_ROOT if spec.model_dir else None,
        )
        # A bind mount of type "bind" refuses a missing source, where `volumes=` would make a folder.
        mounts = [
            Mount(root, str(spec.score_script.parent), type="bind"),
            Mount(DEBUGGEE_ROOT, DEBUGGEE, type="bind", read_only=True),
            Mount(ANNOUNCE_ROOT, str(spec.session / "announce"), type="bind"),
        ]
        if spec.model_dir:
            mounts.append(Mount(MODEL_ROOT, str(spec.model_dir), type="bind", read_only=True))
        options: dict[str, Any] = {}
        user = container_user(self._client)
        if user:
            options["user"] = user
            variables["HOME"] = "/tmp"  # noqa: S108
        try:
            # Interrupted, it would leave a container whose id nobody knows.
            with uninterrupted():
                container = self._client.containers.create(
                    spec.tag,
                    # Holds the container open for runsvdir, as a shell does in the published steps.
                    entrypoint=["sleep"],
                    command=["infinity"],
                    # An init that hears the stop signal and collects what the adapters leave.
                    init=True,
                    name=spec.name,
                    labels={LABEL_KIND: "service", LABEL_PROJECT: str(spec.project)},
                    environment=variables,
                    mounts=mounts,
                    ports={
                        f"{SCORING_PORT}/tcp": ("127.0.0.1", spec.scoring_port),
                        f"{DEBUG_PORT}/tcp": ("127.0.0.1", spec.debug_port),
                    },
                    working_dir=root,
                    log_config=LogConfig(type=LogConfig.types.JSON, config={"max-size": "50m", "max-file": "2"}),
                    **options,
                )
        except ImageNotFound as error:
            raise UserError(f"There is no image {spec.tag}.", "First: inv deploy.tag") from error
        except APIError as error:
            if error.status_code == 409:
                raise UserError(
                    f"The container name {spec.name} is taken by a container that is not of this program.",
                    f"Remove it (docker rm -f {spec.name}) or choose another name: --container-name NAME.",
                ) from error
            raise
        try:
            container.start()
        except BaseException as error:
            # A container that could not start would go on holding the name.
            with contextlib.suppress(APIError):
                container.remove(force=True)
            if isinstance(error, APIError):
                self._explain_start(error)
            raise
        return Service.of(spec, self.name, root, variables, str(container.id))

    def start(self, service: Service) -> Service:
        """See :class:`~workflows.engines.base.Engine`."""
        api = self._client.api
        execution = api.exec_create(service.handle, ["/bin/sh", "-c", _START], stdout=False, stderr=False)
        api.exec_start(execution["Id"], detach=True)
        return replace(service, started=True, execution=str(execution["Id"]))

    def alive(self, service: Service) -> bool:
        """See :class:`~workflows.engines.base.Engine`."""
        from docker.errors import NotFound

        try:
            running = self._client.api.inspect_container(service.handle)["State"]["Running"]
            if running and service.execution:
                # PID 1 only holds the container open; what counts is runsvdir.
                running = self._client.api.exec_inspect(service.execution)["Running"]
        except NotFound:
            return False
        return bool(running)

    def restart_worker(self, service: Service, worker: int) -> Service:
        """See :class:`~workflows.engines.base.Engine`."""
        api = self._client.api
        command = ["/bin/sh", f"{DEBUGGEE_ROOT}/restart_worker.sh", str(worker), RUNIT]
        execution = api.exec_create(service.handle, command)
        api.exec_start(execution["Id"])
        return service

    def stop(self, service: Service) -> Ended:
        """See :class:`~workflows.engines.base.Engine`."""
        return self._end(service.handle)

    def _end(self, handle: str) -> Ended:
        from docker.errors import APIError, NotFound

        log = b""
        try:
            container = self._client.containers.get(handle)
            container.stop(timeout=STOP_SECONDS)
            container.reload()
            code = container.attrs["State"]["ExitCode"]
            # 409: another command is taking it away at this moment.
            with contextlib.suppress(APIError):
                log = b"".join(container.logs(stream=True, tail=20000))[-KEPT_LOG_BYTES:]
            try:
                container.remove(force=True)
            except APIError as error:
                if error.status_code != 409:
                    raise
        except NotFound:
            return Ended(None, b"")
        return Ended(int(code), log)

    def logs(self, service: Service, follow: bool, tail: int | None = None) -> Iterator[bytes]:
        """See :class:`~workflows.engines.base.Engine`."""
        from docker.errors import APIError

        try:
            container = self._client.containers.get(service.handle)
            yield from container.logs(stream=True, follow=follow, tail="all" if tail is None else tail)
        except APIError as error:
            if error.status_code not in (404, 409):
                raise
            # It is gone, or just going; its last log is kept by whoever took it away.

    def shell(self, service: Service, command: Sequence[str]) -> int:
        """See :class:`~workflows.engines.base.Engine`."""
        docker = shutil.which("docker")
        if docker is None:
            raise UserError("The program docker is not on PATH.", "Install Docker's command line (docker-cli).")
        argv = list(command) or ["/bin/sh", "-c", "exec $(command -v bash || echo sh)"]
        terminal = ["-it"] if sys.stdin.isatty() and sys.stdout.isatty() else ["-i"]
        return subprocess.run([docker, "exec", *terminal, service.handle, *argv], check=False).returncode

    def port_holder(self, port: int) -> tuple[str, bool] | None:
        """See :class:`~workflows.engines.base.Engine`."""
        for container in self._client.api.containers():
            if any(entry.get("PublicPort") == port for entry in container["Ports"]):
                name = container["Names"][0].lstrip("/")
                return f"the container {name}", LABEL_PROJECT in (container["Labels"] or {})
        return None

    def leftovers(self, project: Path) -> list[str]:
        """See :class:`~workflows.engines.base.Engine`."""
        found = self._client.api.containers(all=True, filters={"label": f"{LABEL_PROJECT}={project}"})
        return [str(container["Id"]) for container in found if container["Labels"].get(LABEL_KIND) == "service"]

    def remove(self, handle: str) -> None:
        """See :class:`~workflows.engines.base.Engine`."""
        self._end(handle)

    def holder_of_name(self, name: str) -> str | None:
        """The project of the session that holds a container name: None where it is free.

        An empty string where the container is not of this program.
        """
        from docker.errors import NotFound

        try:
            labels = self._client.api.inspect_container(name)["Config"]["Labels"] or {}
        except NotFound:
            return None
        return str(labels.get(LABEL_PROJECT, ""))

    def services(self) -> list[dict[str, str]]:
        """See :class:`~workflows.engines.base.Engine`."""
        return [
            {
                "handle": container["Id"],
                "name": container["Names"][0].lstrip("/"),
                "engine": self.name,
                "state": container["State"],
                "project": container["Labels"].get(LABEL_PROJECT, ""),
                "ports": ", ".join(
                    sorted(f"{p['PublicPort']}->{p['PrivatePort']}" for p in container["Ports"] if "PublicPort" in p)
                ),
                "since": container["Status"],
            }
            for container in self._client.api.containers(all=True, filters={"label": f"{LABEL_KIND}=service"})
        ]

    def unused(self, keep: frozenset[str], tag: str) -> list[Unused]:
        """See :class:`~workflows.engines.base.Engine`."""
        return docker_images.unused_images(self._client, keep, tag)

    def make_base(self, name: str, report: Callable[[str], None]) -> int:
        """Make a base image from Debian packages; its size in bytes."""
        from ..environments.base import make_base_image

        return make_base_image(self._client, name, report)

    def _explain_start(self, error: Any) -> None:
        text = str(error.explanation or error)
        if "address already in use" in text or "port is already allocated" in text:
            raise UserError(
                f"Docker cannot publish a port: {text.rpartition('failed: ')[2] or text}.",
                "Choose other ports: --scoring-port 0 --debug-port 0.",
            ) from error
        if storage.in_output([text]) is not None:
            raise docker_images.engine_disk_full() from error
        if '"sleep": executable file not found' in text:
            raise UserError("The image has no `sleep` program.", "Use a base image with coreutils.") from error


def container_user(client: docker.DockerClient) -> str | None:
    """Whom a container runs as, so that files in mounted folders belong to the person.

    None where the engine maps owners itself: Docker Desktop, and rootless engines, in
    which the container's root is the person.
    """
    if not hasattr(os, "getuid") or sys.platform != "linux":
        return None
    if os.getuid() != 0:
        options = client.api.info().get("SecurityOptions") or []
        if any("rootless" in option for option in options):
            return None
    return f"{os.getuid()}:{os.getgid()}"
