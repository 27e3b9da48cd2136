"""Containers of images that serve by themselves: their own program runs, and a debugger is let into its Python.

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
#: The port of the gate in a container, and the one where the image's own program has that.
_DEBUG_PORTS = (5678, 5679, 5680)


@dataclass(frozen=True)
class ContainerPlan:
    """How a service's container is made.

    Attributes:
        root: The folder that the service runs, as it sees it.
        variables: Its environment variables.
        mounts: What of this machine is mounted.
        ports: Its own ports: ``scoring``, ``debug``, and ``ready`` and ``alive`` where others say that.
        options: Further arguments for the engine.
        mapped: Places of the container that have something of this machine's, which a debugger is told of.
        seen: Files that have to be seen in it, and where.
    """

    root: str
    variables: Mapping[str, str] = field(repr=False)
    mounts: Sequence[Any]
    ports: Mapping[str, int]
    options: Mapping[str, Any]
    mapped: Mapping[str, str]
    seen: Sequence[tuple[Path, str]]


def debugpy_mount() -> Any:
    """The mount of a debugpy for images that have none.

    Raises:
        UserError: It cannot be had.
    """
    from docker.types import Mount

    from ..environments.separate_debugpy import debugpy_folder

    return Mount(DEBUGPY_ROOT, str(debugpy_folder(cache_folder())), type="bind", read_only=True)


def check_server(client: docker.DockerClient, container: str, spec: ServiceSpec) -> None:
    """See that somebody else's image has the inference server as Azure ML's have it: as a service of runit's.

    Args:
        client: The engine.
        container: One that has been made of it and not been started.
        spec: The service.

    Raises:
        UserError: It has not.
    """
    has: Any = client.api
    if not has.has_path(container, RUNIT):
        raise UserError(
            f"The image {spec.image.name} has no inference server: there is no {RUNIT} in it.",
            "Name a `conda_file` beside the `image`, which is installed with the server; or, if the image serves by "
            "itself, say how: `inference_config`.",
        )


def plan_container(client: docker.DockerClient, spec: ServiceSpec) -> ContainerPlan:
    """The container of an image that serves by itself.

    Args:
        client: The engine.
        spec: The service; its ``serving`` is given.

    Raises:
        UserError: Links lead to what it cannot be given, or debugpy cannot be had.
    """
    from docker.types import Mount

    serving = spec.serving
    assert serving is not None
    image = inspect(client, spec.tag)
    of_image = dict(pair.partition("=")[::2] for pair in image["Config"].get("Env") or ())
    home = str(image["Config"].get("WorkingDir") or "/")
    root = serving.code_place or next(iter(serving.copied), home)
    announce = spec.session / "announce"
    # Whoever the image's program runs as; nobody else gets into the folder that this one is in.
    announce.chmod(0o777)
    for file in announce.iterdir():
        file.chmod(0o666)
    debug_port = next(port for port in _DEBUG_PORTS if port not in (serving.port, spec.ready.port, spec.alive.port))
    ports_inside = {"scoring": serving.port, "debug": debug_port}
    for name, check in (("ready", spec.ready), ("alive", spec.alive)):
        if check.port not in ports_inside.values():
            ports_inside[name] = check.port
    given = _given(serving)
    places = [(local, place) for place, local in given.items()]
    links = find_outward_links(
        [one for one in places if one[0].is_dir()], (DEBUGGEE_ROOT, ANNOUNCE_ROOT, DEBUGPY_ROOT)
    ).places
    mounts = [
        Mount(DEBUGGEE_ROOT, DEBUGGEE, type="bind", read_only=True),
        Mount(ANNOUNCE_ROOT, str(announce), type="bind"),
        *(Mount(place, str(local), type="bind", read_only=True) for local, place in places),
        *(Mount(place, local, type="bind", read_only=True) for place, local in links.items()),
    ]
    variables = _variables(serving, spec, of_image, [root, *serving.copied, *given], debug_port)
    if not has_debugpy(image):
        mounts.append(debugpy_mount())
        variables["AZUREML_DEBUGGEE_DEBUGPY"] = DEBUGPY_ROOT
    mapped = {**serving.copied, **{place: str(local) for place, local in given.items()}, **links}
    mapped.pop(root, None)
    return ContainerPlan(root, variables, mounts, ports_inside, {}, mapped, _seen(serving))


def _given(serving: Serving) -> dict[str, Path]:
    """What of this machine is mounted, by its place: the model, in the folder that Azure ML names, and the code."""
    found: dict[str, Path] = {}
    if serving.model is not None:
        if serving.model.is_dir():
            found[f"{serving.model_place}/{serving.model.name}"] = serving.model
        else:
            # A file that an editor saves is another one; its folder stays.
            found[serving.model_place] = serving.model.parent
    if serving.code is not None:
        found[serving.code_place] = serving.code
    return found


def _seen(serving: Serving) -> list[tuple[Path, str]]:
    if serving.code is None or not serving.script:
        return []
    return [(serving.code / serving.script, f"{serving.code_place}/{serving.script}")]


def _variables(
    serving: Serving, spec: ServiceSpec, of_image: Mapping[str, str], code: Sequence[str], debug_port: int
) -> dict[str, str]:
    own = dict(spec.variables)
    path = [f"{DEBUGGEE_ROOT}/inject", *filter(None, [own.get("PYTHONPATH", of_image.get("PYTHONPATH"))])]
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
        # The address at which a debugger really reaches it.
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
