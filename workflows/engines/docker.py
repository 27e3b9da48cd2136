"""The Docker engine: environments as images, services as containers.

Only the modules ``docker*.py`` of this folder import the docker SDK.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..environments.definition import EnvironmentDefinition
from ..environments.pythons import PythonFacts
from ..errors import UserError
from ..models import Ended, ImageRef, RegistryLogin, Service, ServiceSpec
from ..paths import cache_folder
from . import (
    docker_custom_containers,
    docker_images,
    docker_network,
    docker_packages,
    docker_service_containers,
    forwarders,
    ports,
)
from .base import KEPT_LOG_BYTES, Unused
from .docker_client import connect, socket_path
from .docker_containers import LABEL_KIND, LABEL_PROJECT, gate_ports, shown_ports
from .docker_custom_containers import ANNOUNCE_ROOT, DEBUGGEE_ROOT, RUNIT
from .docker_service_containers import APP_ROOT, MODEL_ROOT
from .links import Links, find_outward_links

STOP_SECONDS = 1
#: Starts runsvdir as in Azure ML's images. Its output goes to PID 1's, so that it appears in the container's log.
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
        from ..environments.progress import brief_reporter
        from .docker_built_images import build_image

        return build_image(self._client, definition, base, cache_folder(), brief_reporter(report))

    def read_python(self, image: ImageRef) -> PythonFacts | None:
        """See :class:`~workflows.engines.base.Engine`."""
        from . import docker_python

        return docker_python.read_image_python(self._client, image.name, image.digest, cache_folder())

    def tag(self, image: ImageRef, tag: str, project: Path) -> None:
        """See :class:`~workflows.engines.base.Engine`."""
        docker_images.tag_image(self._client, image, tag)

    def find_tagged(self, tag: str, project: Path) -> ImageRef | None:
        """See :class:`~workflows.engines.base.Engine`."""
        return docker_images.tagged_image(self._client, tag)

    def pull(self, name: str, login: RegistryLogin | None, report: Callable[[str], None]) -> str:
        """Pull an image; see :func:`docker_packages.pull_image`."""
        return docker_packages.pull_image(self._client, name, login, report)

    def build_package(self, folder: Path, key: str, login: RegistryLogin | None, report: Callable[[str], None]) -> str:
        """Build an image of a folder; see :func:`docker_packages.build_package`."""
        from ..environments.progress import brief_reporter

        return docker_packages.build_package(self._client, folder, key, login, brief_reporter(report))

    def has_image(self, name: str) -> bool:
        """Whether an image of that name is here."""
        return docker_packages.image_exists(self._client, name)

    # Services

    def app_root(self, source: Path) -> str:
        """See :class:`~workflows.engines.base.Engine`."""
        return APP_ROOT

    def links(self, source: Path, model_dir: Path | None, image: str, below: str = "") -> Links:
        """See :class:`~workflows.engines.base.Engine`."""
        mounts = [(source, docker_packages.find_app_root(self._client, image, APP_ROOT))]
        model = f"{MODEL_ROOT}/{below}" if below else MODEL_ROOT
        if model_dir is not None:
            mounts.append((model_dir, model))
        return find_outward_links(mounts, (APP_ROOT, model, DEBUGGEE_ROOT, ANNOUNCE_ROOT))

    def create(self, spec: ServiceSpec) -> Service:
        """See :class:`~workflows.engines.base.Engine`."""
        if spec.serving is not None:
            plan = docker_custom_containers.plan_container(self._client, spec)
        else:
            plan = docker_service_containers.plan_server_container(self._client, spec)
        token = forwarders.new_token()
        plan = replace(plan, variables={**plan.variables, **forwarders.gate_variables(token)})
        # The debug port is held from here on, as if the engine had published it.
        with forwarders.listen(spec.debug_port, f"the service {spec.name}") as listener:
            handle, published = docker_service_containers.run_container(self._client, spec, plan)
            try:
                forwarders.start(
                    listener, _forwarder_configuration(published["debug"], token, handle), _forwarder_log(spec)
                )
            except BaseException:
                self._end(handle)
                raise
        by_container_port = {plan.ports[name]: port for name, port in published.items()}
        check_ports = {
            name: by_container_port.get(check.port, spec.scoring_port)
            for name, check in (("ready", spec.ready), ("alive", spec.alive))
        }
        gate_port = published["debug"]
        return Service.of(
            spec, self.name, plan.root, plan.variables, handle, gate_port, token, check_ports, plan.mapped
        )

    def start(self, service: Service) -> Service:
        """See :class:`~workflows.engines.base.Engine`."""
        if service.by_itself:
            # The image's own program was started with the container.
            return replace(service, started=True)
        api = self._client.api
        execution = api.exec_create(service.handle, ["/bin/sh", "-c", _START], stdout=False, stderr=False)
        api.exec_start(execution["Id"], detach=True)
        return replace(service, started=True, execution=str(execution["Id"]))

    def is_alive(self, service: Service) -> bool:
        """See :class:`~workflows.engines.base.Engine`."""
        from docker.errors import NotFound

        try:
            running = self._client.api.inspect_container(service.handle)["State"]["Running"]
            if running and service.execution:
                # PID 1 only keeps the container running; the service runs as long as runsvdir does.
                running = self._client.api.exec_inspect(service.execution)["Running"]
        except NotFound:
            return False
        return bool(running)

    def held_ports(self, service: Service) -> frozenset[int]:
        """See :class:`~workflows.engines.base.Engine`."""
        from docker.errors import NotFound

        held = {service.debug_port} if forwarders.is_running(service.debug_port, service.handle) else set()
        with contextlib.suppress(NotFound):
            if self._client.api.inspect_container(service.handle)["State"]["Running"]:
                held.add(service.scoring_port)
        return frozenset(held)

    def ensure_forwarder(self, service: Service) -> None:
        """See :class:`~workflows.engines.base.Engine`."""
        if not service.token or forwarders.is_running(service.debug_port, service.handle):
            return
        try:
            listener = forwarders.listen(service.debug_port, f"the service {service.name}")
        except UserError:
            # Another command may have started it at this moment.
            if ports.find_holder(service.debug_port)[1]:
                return
            raise
        forwarders.start(
            listener,
            _forwarder_configuration(service.gate_port, service.token, service.handle),
            _forwarder_log(service),
        )

    def restart_worker(self, service: Service, worker: int) -> Service:
        """See :class:`~workflows.engines.base.Engine`."""
        api = self._client.api
        if service.by_itself:
            api.restart(service.handle, timeout=STOP_SECONDS)
            return service
        command = ["/bin/sh", f"{DEBUGGEE_ROOT}/restart_worker.sh", str(worker), RUNIT]
        execution = api.exec_create(service.handle, command)
        api.exec_start(execution["Id"])
        return service

    def run_program(self, service: Service, program: str, arguments: Sequence[str]) -> str:
        """See :class:`~workflows.engines.base.Engine`."""
        from docker.errors import APIError

        # Not every image has the `timeout` program, so there is no limit; the program only reads a few files.
        command = ["python", f"{DEBUGGEE_ROOT}/{program}", *arguments]
        try:
            execution = self._client.api.exec_create(service.handle, command, stderr=False)
            printed = self._client.api.exec_start(execution["Id"])
        except APIError:
            return ""
        return str(printed.decode("utf-8", "replace"))

    def stop(self, service: Service) -> Ended:
        """See :class:`~workflows.engines.base.Engine`."""
        ended = self._end(service.handle)
        forwarders.end(service.debug_port, service.handle)
        with contextlib.suppress(FileNotFoundError):
            _forwarder_log(service).unlink()
        return ended

    def _end(self, handle: str) -> Ended:
        from docker.errors import APIError, NotFound

        log = b""
        try:
            container = self._client.containers.get(handle)
            handle, debug_ports = str(container.id), gate_ports(container.labels)
            container.stop(timeout=STOP_SECONDS)
            container.reload()
            code = container.attrs["State"]["ExitCode"]
            # 409: another command is removing it at this moment.
            with contextlib.suppress(APIError):
                log = b"".join(container.logs(stream=True, tail=20000))[-KEPT_LOG_BYTES:]
            try:
                container.remove(force=True)
            except APIError as error:
                if error.status_code != 409:
                    raise
        except NotFound:
            return Ended(None, b"")
        for port in debug_ports:
            forwarders.end(port, handle)
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
            # The container is gone or is being removed; the command that removes it keeps its last log.

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
            labels = container["Labels"] or {}
            name = container["Names"][0].lstrip("/")
            if any(entry.get("PublicPort") == port for entry in container["Ports"]):
                return f"the container {name}", LABEL_PROJECT in labels
            # Another user's forwarder: its process cannot be read. One's own is recognized by its process.
            if port in gate_ports(labels) and ports.find_forwarded_container(port) == "":
                return f"the container {name}", True
        return None

    def list_leftovers(self, project: Path) -> list[str]:
        """See :class:`~workflows.engines.base.Engine`."""
        found = self._client.api.containers(all=True, filters={"label": f"{LABEL_PROJECT}={project}"})
        return [str(container["Id"]) for container in found if container["Labels"].get(LABEL_KIND) == "service"]

    def remove(self, handle: str) -> None:
        """See :class:`~workflows.engines.base.Engine`."""
        self._end(handle)

    def holder_of_name(self, name: str) -> str | None:
        """See :class:`~workflows.engines.base.Engine`."""
        from docker.errors import NotFound

        try:
            labels = self._client.api.inspect_container(name)["Config"]["Labels"] or {}
        except NotFound:
            return None
        return str(labels.get(LABEL_PROJECT, ""))

    def list_services(self) -> list[dict[str, str]]:
        """See :class:`~workflows.engines.base.Engine`."""
        return [
            {
                "handle": container["Id"],
                "name": container["Names"][0].lstrip("/"),
                "engine": self.name,
                "state": container["State"],
                "project": container["Labels"].get(LABEL_PROJECT, ""),
                "ports": ", ".join(shown_ports(container)),
                "since": container["Status"],
            }
            for container in self._client.api.containers(all=True, filters={"label": f"{LABEL_KIND}=service"})
        ]

    def list_abandoned(self, known: frozenset[str]) -> list[Unused]:
        """See :class:`~workflows.engines.base.Engine`."""
        found: list[Unused] = []
        for container in self._client.api.containers(all=True, filters={"label": f"{LABEL_KIND}=service"}):
            handle, project = str(container["Id"]), str(container["Labels"].get(LABEL_PROJECT, ""))
            if handle not in known and project and _is_missing(project) and self._has_lost_its_folders(container):
                name = f"container {container['Names'][0].lstrip('/')} of {project}, which is gone"
                found.append((name, 0, functools.partial(self.remove, handle)))
        return found

    def _has_lost_its_folders(self, container: Mapping[str, Any]) -> bool:
        """Whether a container's project was deleted, rather than moved or on another machine."""
        from docker.errors import APIError

        if container["State"] in ("created", "exited", "dead"):
            # Nothing runs in it. A local engine found the project at that path, and it is not there any more.
            return socket_path() is not None
        try:
            # In the root folder: no process can be started in a folder that was deleted.
            command = ["cat", "/proc/self/mountinfo"]
            execution = self._client.api.exec_create(container["Id"], command, workdir="/", stderr=False)
            mounts = self._client.api.exec_start(execution["Id"])
        except APIError:
            return False
        # https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html: what is mounted, then where.
        fields = [line.split() for line in mounts.decode("utf-8", "replace").splitlines()]
        return any(len(one) > 4 and one[4] == ANNOUNCE_ROOT and one[3].endswith("//deleted") for one in fields)

    def list_unused(self, keep: frozenset[str], tag: str) -> list[Unused]:
        """See :class:`~workflows.engines.base.Engine`."""
        return [*docker_images.unused_images(self._client, keep, tag), *docker_network.unused_networks(self._client)]

    def make_base(self, name: str, report: Callable[[str], None]) -> int:
        """Make a base image from Debian packages; its size in bytes."""
        from .docker_base import make_base_image

        return make_base_image(self._client, name, report)


def _is_missing(folder: str) -> bool:
    """Whether a folder does not exist; False where this user may not find out."""
    try:
        os.stat(folder)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _forwarder_configuration(gate_port: int, token: str, handle: str) -> dict[str, Any]:
    """The configuration of a container's forwarder."""
    return {"gate": gate_port, "token": token, "container": handle, "socket": socket_path() or ""}


def _forwarder_log(service: Service | ServiceSpec) -> Path:
    return service.session / "forwarder.log"
