"""Creates and starts the containers of services."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import storage
from ..debuggee import FOLDER as DEBUGGEE
from ..errors import NameTaken, PortHeld, UserError
from ..interrupts import uninterrupted
from ..models import ServiceSpec
from . import docker_custom_containers, docker_folders, docker_images, docker_network, docker_packages, ports
from .base import service_variables
from .docker_containers import ATTEMPTS, LABEL_KIND, LABEL_PORTS, LABEL_PROJECT, container_user, is_transient
from .docker_custom_containers import ANNOUNCE_ROOT, DEBUGGEE_ROOT, ContainerPlan

if TYPE_CHECKING:
    import docker

APP_ROOT = "/var/azureml-app"
MODEL_ROOT = "/var/azureml-models"
SCORING_PORT, DEBUG_PORT = 5001, 5678


def plan_server_container(client: docker.DockerClient, spec: ServiceSpec) -> ContainerPlan:
    """The container of a service that the inference server serves."""
    from docker.types import Mount

    present = docker_packages.image_variables(client, spec.image.name)
    root = docker_packages.app_root_of(present, APP_ROOT)
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
        present=present,
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
    user = container_user(client)
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


def run_container(client: docker.DockerClient, spec: ServiceSpec, plan: ContainerPlan) -> tuple[str, dict[str, int]]:
    """Create and start a container; its id, and the published ports of this machine by purpose (``debug``, …)."""
    from docker.errors import APIError

    attempt = 1
    while True:
        names = [name for name in plan.ports if name != "scoring"]
        published = {"scoring": spec.scoring_port, **dict(zip(names, ports.reserve_free(len(names)), strict=True))}
        container = None
        try:
            container = _create_container(client, spec, plan, published)
            docker_folders.check_visible(
                client,
                str(container.id),
                (spec.session / "announce", ANNOUNCE_ROOT),
                plan.visible_files,
            )
            if spec.foreign and spec.serving is None:
                docker_custom_containers.check_server(client, str(container.id), spec)
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
                _raise_start_error(error, spec)
                raise
            attempt += 1


def _create_container(
    client: docker.DockerClient, spec: ServiceSpec, plan: ContainerPlan, published: Mapping[str, int]
) -> Any:
    from docker.errors import APIError, ImageNotFound

    try:
        wanted = docker_images.inspect(client, spec.image.name)["Id"]
        # An interrupt here would leave a container whose id is lost.
        with uninterrupted():
            # With the tag, since `docker ps` shows the name that a container was created from.
            container = _create_from(client, spec.tag, spec, plan, published)
            if container.attrs["Image"] == wanted:
                return container
            # All projects of a machine share the tag, and another one has given it to its own image meanwhile.
            container.remove(force=True)
            return _create_from(client, spec.image.name, spec, plan, published)
    except ImageNotFound as error:
        raise UserError(f"There is no image {spec.tag}.", "First: inv deploy.tag") from error
    except APIError as error:
        if error.status_code == 409:
            raise NameTaken(
                f"The container name {spec.name} has been taken by another container meanwhile.",
                "Try again, or choose another name: --container-name NAME.",
            ) from error
        raise


def _create_from(
    client: docker.DockerClient, image: str, spec: ServiceSpec, plan: ContainerPlan, published: Mapping[str, int]
) -> Any:
    from docker.types import LogConfig

    return client.containers.create(
        image,
        name=spec.name,
        labels={
            LABEL_KIND: "service",
            LABEL_PROJECT: str(spec.project),
            LABEL_PORTS: f"{spec.debug_port}:{published['debug']}",
        },
        environment=dict(plan.variables),
        mounts=list(plan.mounts),
        network=docker_network.ensure_network(client),
        ports={f"{plan.ports[name]}/tcp": ("127.0.0.1", port) for name, port in published.items()},
        log_config=LogConfig(type=LogConfig.types.JSON, config={"max-size": "50m", "max-file": "2"}),
        **plan.options,
    )


def _raise_start_error(error: Any, spec: ServiceSpec) -> None:
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
