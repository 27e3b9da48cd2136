"""Version and platform of the Python in an image, read by running it in a short-lived container."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from .. import process_identity as identity
from ..environments import pythons
from ..private import make_folder
from ..project import write_bytes
from .docker_images import connection_lost_error

if TYPE_CHECKING:
    import docker

#: The label by which a container that a killed command has left is found.
MARK = "azureml-debug.mark"
#: Seconds for a container to answer.
_TIMEOUT = 30
_CONDA = "command -v conda || command -v mamba || command -v micromamba || ls /opt/*conda*/bin/conda"


def read_base_python(client: docker.DockerClient, image: str) -> pythons.PythonFacts | None:
    """Version and platform of a base image's python3; None where it has none, or has conda."""
    return _probe_image(client, image, f"if {_CONDA}; then exit 9; fi >/dev/null 2>&1; exec {_quoted_probe('python3')}")


def read_image_python(client: docker.DockerClient, image: str, digest: str, cache: Path) -> pythons.PythonFacts | None:
    """Version and platform of the Python that commands in an image find; cached by the image's digest.

    Args:
        client: The engine.
        image: The image's name.
        digest: The image's digest.
        cache: The program's cache folder.
    """
    kept = cache / "image-pythons" / f"{digest.rpartition(':')[2][:32]}.json"
    try:
        values = json.loads(kept.read_bytes())
        return pythons.PythonFacts(tuple(values["version"]), values["libc"], values["machine"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    found = _probe_image(client, image, f"exec {_quoted_probe('python')}") or _probe_image(
        client, image, f"exec {_quoted_probe('python3')}"
    )
    if found is not None:
        make_folder(kept.parent)
        write_bytes(kept, json.dumps(asdict(found)).encode())
    return found


def _quoted_probe(python: str) -> str:
    return " ".join(f"'{part}'" for part in pythons.probe_command(python))


def _probe_image(client: docker.DockerClient, image: str, script: str) -> pythons.PythonFacts | None:
    from docker.errors import APIError
    from requests.exceptions import RequestException

    try:
        container = client.api.create_container(
            image,
            entrypoint=["/bin/sh", "-c"],
            command=[script],
            network_disabled=True,
            labels={"azureml-debug.kind": "probe", MARK: identity.process_mark()},
        )["Id"]
        try:
            client.api.start(container)
            code = client.api.wait(container, timeout=_TIMEOUT)["StatusCode"]
            output = client.api.logs(container, stdout=True, stderr=False)
        finally:
            client.api.remove_container(container, force=True)
    except APIError:
        return None
    except RequestException as error:
        raise connection_lost_error(error) from error
    return pythons.parse_facts(output.decode("utf-8", "replace")) if code == 0 else None
