"""Images built with the local engine, as the service would build them with its own.

What the service takes from Microsoft's registry is replaced by what is here: the base image by azureml-debug/base
where it is not here itself, azureml-defaults by the inference server that it brings along.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import docker

ROOT = Path(__file__).resolve().parents[2]
SERVER = "azureml-inference-server-http"
FORMER_INDEX = "//pypi.python.org/simple"
#: See env/inference/requirements.txt.
EXPORTER = "azure-monitor-opentelemetry-exporter<=1.0.0b40"


@contextlib.contextmanager
def connected() -> Iterator[docker.DockerClient]:
    """The local engine."""
    from workflows.engines.docker_client import connect, engine_answers

    if not engine_answers():
        raise RuntimeError("No Docker engine answers where the image is built.")
    with contextlib.closing(connect()) as client:
        yield client


def build_environment(
    client: docker.DockerClient, environment: dict[str, Any], folder: Path, report: Callable[[str], None]
) -> str:
    """An image of what an environment asks for; its name."""
    from workflows.engines import load
    from workflows.environments.definition import load_definition

    base = _base(client, environment.get("docker") or {}, report)
    python = environment.get("python") or {}
    if python.get("userManagedDependencies"):
        return base
    conda = json.dumps(_dependencies(python.get("condaDependencies") or {}), indent=2)
    place = folder / hashlib.sha256(conda.encode()).hexdigest()[:16]
    place.mkdir(parents=True, exist_ok=True)
    # JSON is YAML.
    (place / "conda.yml").write_text(conda)
    definition = load_definition(place, default_dockerfile=ROOT / "env" / "inference" / "Dockerfile")
    return load("docker").build(definition, base, report).name


def _base(client: docker.DockerClient, wanted: dict[str, Any], report: Callable[[str], None]) -> str:
    from docker.errors import APIError, ImageNotFound

    from workflows.environments.base_image import BASE_IMAGE

    dockerfile = wanted.get("baseDockerfile")
    if dockerfile:
        name = f"azureml-debug-packages/base:{hashlib.sha256(dockerfile.encode()).hexdigest()[:16]}"
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as tar:
            info = tarfile.TarInfo("Dockerfile")
            info.size = len(dockerfile.encode())
            tar.addfile(info, io.BytesIO(dockerfile.encode()))
        file.seek(0)
        _build(client, file, name, report)
        return name
    name = str(wanted.get("baseImage"))
    with contextlib.suppress(ImageNotFound, APIError):
        client.images.get(name)
        return name
    report(f"{name} is not here: {BASE_IMAGE} in its place")
    return BASE_IMAGE


def _dependencies(conda: dict[str, Any]) -> dict[str, Any]:
    found: list[Any] = []
    for one in conda.get("dependencies") or []:
        if isinstance(one, dict):
            # CondaDependencies.create adds options for the default index under its former name.
            pip = [line for line in one.get("pip") or [] if FORMER_INDEX not in str(line)]
            pip = [SERVER if str(line).startswith("azureml-defaults") else line for line in pip]
            if any(str(line).startswith(SERVER) for line in pip) and EXPORTER not in pip:
                pip.append(EXPORTER)
            found.append({"pip": list(dict.fromkeys(pip))})
        # The base image's own is taken.
        elif not str(one).startswith("python"):
            found.append(one)
    return {"name": "packaged", "channels": conda.get("channels") or ["conda-forge"], "dependencies": found}


def build_folder(client: docker.DockerClient, folder: Path, name: str, report: Callable[[str], None]) -> None:
    """An image of a folder with a Dockerfile."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.add(folder, ".")
    file.seek(0)
    _build(client, file, name, report)


def _build(client: docker.DockerClient, context: io.BytesIO, name: str, report: Callable[[str], None]) -> None:
    events = client.api.build(fileobj=context, custom_context=True, tag=name, rm=True, forcerm=True, decode=True)
    for event in events:
        for line in str(event.get("stream", "")).splitlines():
            if line.strip():
                report(line.rstrip())
        if "error" in event:
            raise RuntimeError(str(event["error"]).strip())
