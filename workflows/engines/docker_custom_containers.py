"""Custom containers: images that serve with their own program, into whose Python the debuggee is injected.

Where Azure ML puts model and code in such a container:
https://learn.microsoft.com/azure/machine-learning/how-to-deploy-custom-container
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..debuggee import FOLDER as DEBUGGEE
from ..errors import UserError
from ..models import ServiceSpec, Serving
from ..paths import cache_folder
from .docker_images import has_debugpy, inspect
from .links import find_outward_links
from .snapshots import snapshot_variables, summary_variables

if TYPE_CHECKING:
    import docker

DEBUGGEE_ROOT = "/var/azureml-debuggee"
ANNOUNCE_ROOT = "/var/azureml-debug"
DEBUGPY_ROOT = "/var/azureml-debugpy"
RUNIT = "/var/runit"
#: Ports for the gate in a container; the first that the image's own program does not use is taken.
_DEBUG_PORTS = (5678, 5679, 5680)


@dataclass(frozen=True)
class ContainerPlan:
    """How a service's container is made.

    Attributes:
        root: The service's source folder in the container.
        variables: Its environment variables.
        mounts: The mounts of this machine's files and folders.
        ports: Its own ports: ``scoring``, ``debug``, and ``ready`` and ``alive`` where probes use other ports.
        options: Further arguments for the engine.
        mapped: Further path mappings for the debugger: paths in the container, and those on this machine.
        visible_files: Files of this machine that have to be visible in the container, and their paths there.
    """

    root: str
    variables: Mapping[str, str] = field(repr=False)
    mounts: Sequence[Any]
    ports: Mapping[str, int]
    options: Mapping[str, Any]
    mapped: Mapping[str, str]
    visible_files: Sequence[tuple[Path, str]]


def debugpy_mount() -> Any:
    """The mount of debugpy for images that have none.

    Raises:
        UserError: debugpy cannot be downloaded.
    """
    from docker.types import Mount

    from ..environments.separate_debugpy import debugpy_folder

    return Mount(DEBUGPY_ROOT, str(debugpy_folder(cache_folder())), type="bind", read_only=True)


def check_server(client: docker.DockerClient, container: str, spec: ServiceSpec) -> None:
    """Check that an image has the inference server as Azure ML's images have it: as a runit service.

    Args:
        client: The engine.
        container: The id of a container of the image that is not started yet.
        spec: The service.

    Raises:
        UserError: It has no such service.
    """
    has: Any = client.api
    if not has.has_path(container, RUNIT):
        raise UserError(
            f"The image {spec.image.name} has no inference server: there is no {RUNIT} in it.",
            "Name a `conda_file` beside the `image`, which is installed with the server; or, if the image serves by "
            "itself, say how: `inference_config`.",
        )


def plan_container(client: docker.DockerClient, spec: ServiceSpec) -> ContainerPlan:
    """Plan the container of an image that serves by itself.

    Args:
        client: The engine.
        spec: The service; its ``serving`` is set.

    Raises:
        UserError: The targets of links cannot be mounted, or debugpy cannot be downloaded.
    """
    from docker.types import Mount

    serving = spec.serving
    assert serving is not None
    image = inspect(client, spec.image.name)
    image_variables = dict(pair.partition("=")[::2] for pair in image["Config"].get("Env") or ())
    home = str(image["Config"].get("WorkingDir") or "/")
    root = serving.code_place or next(iter(serving.copied), home)
    announce = spec.session / "announce"
    # Writable for whatever user the image's program runs as; the parent folder keeps other users of this machine out.
    announce.chmod(0o777)
    for file in announce.iterdir():
        file.chmod(0o666)
    debug_port = next(port for port in _DEBUG_PORTS if port not in (serving.port, spec.ready.port, spec.alive.port))
    ports_inside = {"scoring": serving.port, "debug": debug_port}
    for name, check in (("ready", spec.ready), ("alive", spec.alive)):
        if check.port not in ports_inside.values():
            ports_inside[name] = check.port
    mounted = _mounted_paths(serving)
    places = [(local, place) for place, local in mounted.items()]
    links = find_outward_links(
        [one for one in places if one[0].is_dir()], (DEBUGGEE_ROOT, ANNOUNCE_ROOT, DEBUGPY_ROOT)
    ).places
    mounts = [
        Mount(DEBUGGEE_ROOT, DEBUGGEE, type="bind", read_only=True),
        Mount(ANNOUNCE_ROOT, str(announce), type="bind"),
        *(Mount(place, str(local), type="bind", read_only=True) for local, place in places),
        *(Mount(place, local, type="bind", read_only=True) for place, local in links.items()),
    ]
    variables = _variables(serving, spec, image_variables, [root, *serving.copied, *mounted], debug_port)
    if not has_debugpy(image):
        mounts.append(debugpy_mount())
        variables["AZUREML_DEBUGGEE_DEBUGPY"] = DEBUGPY_ROOT
    mapped = {**serving.copied, **{place: str(local) for place, local in mounted.items()}, **links}
    mapped.pop(root, None)
    return ContainerPlan(root, variables, mounts, ports_inside, {}, mapped, _files_to_check(serving))


def _mounted_paths(serving: Serving) -> dict[str, Path]:
    """Model and code on this machine, by their paths in the container: those that Azure ML uses."""
    found: dict[str, Path] = {}
    if serving.model is not None:
        if serving.model.is_dir():
            found[f"{serving.model_place}/{serving.model.name}"] = serving.model
        else:
            # An editor that saves a file replaces it, and the mount would keep the old one: mount its folder.
            found[serving.model_place] = serving.model.parent
    if serving.code is not None:
        found[serving.code_place] = serving.code
    return found


def _files_to_check(serving: Serving) -> list[tuple[Path, str]]:
    if serving.code is None or not serving.script:
        return []
    return [(serving.code / serving.script, f"{serving.code_place}/{serving.script}")]


def _variables(
    serving: Serving, spec: ServiceSpec, image_variables: Mapping[str, str], code: Sequence[str], debug_port: int
) -> dict[str, str]:
    own = dict(spec.variables)
    path = [f"{DEBUGGEE_ROOT}/inject", *filter(None, [own.get("PYTHONPATH", image_variables.get("PYTHONPATH"))])]
    azure: dict[str, str] = {}
    if serving.model is not None:
        azure["AZUREML_MODEL_DIR"] = serving.model_place
    if serving.code is not None:
        azure["AML_APP_ROOT"] = os.path.dirname(f"{serving.code_place}/{serving.script}")
        azure["AZUREML_ENTRY_SCRIPT"] = os.path.basename(serving.script)
    return {
        "PYTHONUNBUFFERED": "1",
        **azure,
        **own,
        "PYTHONPATH": ":".join(path),
        "PYDEVD_RESOLVE_SYMLINKS": "1",
        "AZUREML_DEBUGGEE_CODE": ":".join(dict.fromkeys(one for one in code if one != "/")),
        "AZUREML_DEBUGGEE_HOST": "0.0.0.0",  # noqa: S104
        # The address at which a debugger reaches it.
        "AZUREML_DEBUGGEE_ADDRESS": "127.0.0.1",
        "AZUREML_DEBUGGEE_PORT": str(debug_port),
        "AZUREML_DEBUGGEE_RANKS": "all",
        "AZUREML_DEBUGGEE_WAIT": "1" if spec.wait else "0",
        "AZUREML_DEBUGGEE_TIMEOUT": str(spec.debug_timeout),
        "AZUREML_DEBUGGEE_EVENTS": f"{ANNOUNCE_ROOT}/events.jsonl",
        "AZUREML_DEBUGGEE_ANY": "1",
        "AZUREML_DEBUGGEE_CHILDREN": "1",
        "AZUREML_DEBUGGEE_PROJECT": str(spec.project),
        **snapshot_variables(spec.snapshots, ANNOUNCE_ROOT),
        **summary_variables(spec.summaries),
    }
