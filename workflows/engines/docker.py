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
from typing import TYPE_CHECKING, Any

from .. import storage
from ..debuggee import FOLDER as DEBUGGEE
from ..environments.definition import EnvironmentDefinition
from ..environments.pythons import PythonFacts
from ..errors import NameTaken, PortHeld, UserError
from ..interrupts import uninterrupted
from ..models import Ended, ImageRef, RegistryLogin, Service, ServiceSpec
from ..paths import cache_folder
from . import (
    docker_custom_containers,
    docker_folders,
    docker_images,
    docker_network,
    docker_packages,
    forwarders,
    ports,
)
from .base import KEPT_LOG_BYTES, Unused, service_variables
from .docker_client import connect, socket_path
from .docker_custom_containers import ANNOUNCE_ROOT, DEBUGGEE_ROOT, RUNIT, ContainerPlan
from .links import Links, find_outward_links

if TYPE_CHECKING:
    import docker

APP_ROOT = "/var/azureml-app"
MODEL_ROOT = "/var/azureml-models"
SCORING_PORT, DEBUG_PORT = 5001, 5678
STOP_SECONDS = 1

LABEL_KIND = "azureml-debug.kind"
LABEL_PROJECT = "azureml-debug.project"
#: Debug ports on 127.0.0.1, each with the port at which its gate is published: ``5678:40001,5679:40002``.
LABEL_PORTS = "azureml-debug.ports"
#: How often a container is created when its published port or its network is taken or removed at the last moment.
ATTEMPTS = 3

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

    def links(self, source: Path, model_dir: Path | None, tag: str, below: str = "") -> Links:
        """See :class:`~workflows.engines.base.Engine`."""
        mounts = [(source, docker_packages.find_app_root(self._client, tag, APP_ROOT))]
        model = f"{MODEL_ROOT}/{below}" if below else MODEL_ROOT
        if model_dir is not None:
            mounts.append((model_dir, model))
        return find_outward_links(mounts, (APP_ROOT, model, DEBUGGEE_ROOT, ANNOUNCE_ROOT))

    def create(self, spec: ServiceSpec) -> Service:
        """See :class:`~workflows.engines.base.Engine`."""
        plan = (
            docker_custom_containers.plan_container(self._client, spec)
            if spec.serving is not None
            else self._plan(spec)
        )
        token = forwarders.new_token()
        plan = replace(plan, variables={**plan.variables, **forwarders.gate_variables(token)})
        # The debug port is held from here on, as if the engine had published it.
        with forwarders.listen(spec.debug_port, f"the service {spec.name}") as listener:
            handle, published = self._run_container(spec, plan)
            try:
                forwarders.start(
                    listener, _forwarder_configuration(published["debug"], token, handle), _forwarder_log(spec)
                )
            except BaseException:
                self._end(handle)
                raise
        at = {plan.ports[name]: port for name, port in published.items()}
        check_ports = {
            name: at.get(check.port, spec.scoring_port)
            for name, check in (("ready", spec.ready), ("alive", spec.alive))
        }
        gate_port = published["debug"]
        return Service.of(
            spec, self.name, plan.root, plan.variables, handle, gate_port, token, check_ports, plan.mapped
        )

    def _plan(self, spec: ServiceSpec) -> ContainerPlan:
        """The container of a service that the inference server serves."""
        from docker.types import Mount

        root = docker_packages.find_app_root(self._client, spec.tag, APP_ROOT)
        variables = service_variables(
            app_root=root,
            debuggee=DEBUGGEE_ROOT,
            events=f"{ANNOUNCE_ROOT}/events.jsonl",
            project=spec.project,
            spec=spec,
            # Inside, the port has to be reachable from where it is published: 127.0.0.1 only.
            debug_host="0.0.0.0",  # noqa: S104
            debug_port=DEBUG_PORT,
            server_port=SCORING_PORT,
            bind=None,
            model_dir=MODEL_ROOT if spec.model_dir else None,
            present=docker_packages.image_variables(self._client, spec.tag),
        )
        # A mount of type "bind" refuses a missing source; `volumes=` would create a folder instead.
        mounts = [
            # Read-only: a score.py that writes into its own folder would change the user's files.
            Mount(root, str(spec.source), type="bind", read_only=True),
            Mount(DEBUGGEE_ROOT, DEBUGGEE, type="bind", read_only=True),
            Mount(ANNOUNCE_ROOT, str(spec.session / "announce"), type="bind"),
        ]
        mapped = {}
        if spec.model_dir:
            place = f"{MODEL_ROOT}/{spec.model_below}" if spec.model_below else MODEL_ROOT
            mounts.append(Mount(place, str(spec.model_dir), type="bind", read_only=True))
            mapped = {place: str(spec.model_dir)} if spec.model_below else {}
        mounts += [Mount(place, local, type="bind", read_only=True) for place, local in spec.links.items()]
        if spec.foreign:
            mounts.append(docker_custom_containers.debugpy_mount())
            variables["AZUREML_DEBUGGEE_DEBUGPY"] = docker_custom_containers.DEBUGPY_ROOT
        user = container_user(self._client)
        if user:
            variables.setdefault("HOME", "/tmp")  # noqa: S108
        options = {
            # Keeps the container running for runsvdir, as a shell does in the published steps.
            "entrypoint": ["sleep"],
            "command": ["infinity"],
            # An init that handles the stop signal and reaps orphaned debug adapters.
            "init": True,
            "working_dir": root,
            "user": user,
        }
        ports_inside = {"scoring": SCORING_PORT, "debug": DEBUG_PORT}
        return ContainerPlan(root, variables, mounts, ports_inside, options, mapped, _script_mount(spec, root))

    def _run_container(self, spec: ServiceSpec, plan: ContainerPlan) -> tuple[str, dict[str, int]]:
        """Create and start a container; its id, and the published ports of this machine by purpose (``debug``, …)."""
        from docker.errors import APIError

        attempt = 1
        while True:
            names = [name for name in plan.ports if name != "scoring"]
            published = {"scoring": spec.scoring_port, **dict(zip(names, ports.reserve_free(len(names)), strict=True))}
            container = None
            try:
                container = self._create_container(spec, plan, published)
                docker_folders.check_visible(
                    self._client,
                    str(container.id),
                    (spec.session / "announce", ANNOUNCE_ROOT),
                    plan.visible_files,
                )
                if spec.foreign and spec.serving is None:
                    docker_custom_containers.check_server(self._client, str(container.id), spec)
                container.start()
                return str(container.id), published
            except BaseException as error:
                # A container that failed to start would keep the name taken.
                if container is not None:
                    with contextlib.suppress(APIError), uninterrupted():
                        container.remove(force=True)
                if not isinstance(error, APIError):
                    raise
                if attempt >= ATTEMPTS or not is_transient(error, [published[name] for name in names]):
                    self._raise_start_error(error, spec)
                    raise
                attempt += 1

    def _create_container(self, spec: ServiceSpec, plan: ContainerPlan, published: Mapping[str, int]) -> Any:
        from docker.errors import APIError, ImageNotFound
        from docker.types import LogConfig

        try:
            # An interrupt here would leave a container whose id is lost.
            with uninterrupted():
                return self._client.containers.create(
                    spec.tag,
                    name=spec.name,
                    labels={
                        LABEL_KIND: "service",
                        LABEL_PROJECT: str(spec.project),
                        LABEL_PORTS: f"{spec.debug_port}:{published['debug']}",
                    },
                    environment=dict(plan.variables),
                    mounts=list(plan.mounts),
                    network=docker_network.ensure_network(self._client),
                    ports={f"{plan.ports[name]}/tcp": ("127.0.0.1", port) for name, port in published.items()},
                    log_config=LogConfig(type=LogConfig.types.JSON, config={"max-size": "50m", "max-file": "2"}),
                    **plan.options,
                )
        except ImageNotFound as error:
            raise UserError(f"There is no image {spec.tag}.", "First: inv deploy.tag") from error
        except APIError as error:
            if error.status_code == 409:
                raise NameTaken(
                    f"The container name {spec.name} has been taken by another container meanwhile.",
                    "Try again, or choose another name: --container-name NAME.",
                ) from error
            raise

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
                "ports": ", ".join(_shown_ports(container)),
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

    def _raise_start_error(self, error: Any, spec: ServiceSpec) -> None:
        if (explained := docker_folders.mount_error(error)) is not None:
            raise explained from error
        text = str(error.explanation or error)
        if "address already in use" in text or "port is already allocated" in text:
            raise PortHeld(
                spec.scoring_port,
                f"Docker cannot publish a port of the service {spec.name}: {text.rpartition('failed: ')[2] or text}.",
                "Choose another port: --scoring-port 0.",
            ) from error
        if storage.find_disk_error([text]) is not None:
            raise docker_images.engine_disk_full_error() from error
        if '"sleep": executable file not found' in text:
            raise UserError("The image has no `sleep` program.", "Use a base image with coreutils.") from error


def _script_mount(spec: ServiceSpec, root: str) -> list[tuple[Path, str]]:
    """The entry script and its path in the container; empty where a link may lead out of the mounted folder."""
    if not spec.score_script.is_relative_to(spec.source):
        return []
    below = spec.score_script.relative_to(spec.source)
    if spec.score_script.resolve() != spec.source.resolve() / below:
        return []
    return [(spec.score_script, f"{root}/{below.as_posix()}")]


def is_transient(error: Any, gates: Sequence[int]) -> bool:
    """Whether a container may be created or started when that is tried again.

    Args:
        error: The engine's error.
        gates: The published ports that this program chose itself.
    """
    if docker_network.is_network_missing(error):
        return True
    text = str(error.explanation or error)
    taken = "address already in use" in text or "port is already allocated" in text
    return taken and any(f":{port}" in text for port in gates)


def _is_missing(folder: str) -> bool:
    """Whether a folder does not exist; False where this user may not find out."""
    try:
        os.stat(folder)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def gate_ports(labels: Mapping[str, str]) -> dict[int, int]:
    """The debug ports of a container, each with the port at which its gate is published."""
    pairs = (pair.partition(":") for pair in labels.get(LABEL_PORTS, "").split(",") if pair)
    return {int(port): int(gate) for port, _, gate in pairs if port.isdecimal() and gate.isdecimal()}


def _shown_ports(container: Mapping[str, Any]) -> list[str]:
    """A container's ports as users know them: for a gate, the debug port that leads to it."""
    leads = {gate: port for port, gate in gate_ports(container["Labels"] or {}).items()}
    published = [(entry["PublicPort"], entry["PrivatePort"]) for entry in container["Ports"] if "PublicPort" in entry]
    return sorted(f"{leads.get(public, public)}->{private}" for public, private in published)


def _forwarder_configuration(gate_port: int, token: str, handle: str) -> dict[str, Any]:
    """The configuration of a container's forwarder."""
    return {"gate": gate_port, "token": token, "container": handle, "socket": socket_path() or ""}


def _forwarder_log(service: Service | ServiceSpec) -> Path:
    return service.session / "forwarder.log"


def container_user(client: docker.DockerClient) -> str | None:
    """The user and group that a container runs as, so that files in mounted folders belong to the user.

    None where the engine maps owners itself: with Docker Desktop, and with rootless engines, where root in the
    container is the user outside.
    """
    if not hasattr(os, "getuid") or sys.platform != "linux":
        return None
    if os.getuid() != 0:
        options = client.api.info().get("SecurityOptions") or []
        if any("rootless" in option for option in options):
            return None
    return f"{os.getuid()}:{os.getgid()}"
