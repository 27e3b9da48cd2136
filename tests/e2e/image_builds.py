"""Builds of environments and images for the tests, each known by whose it is: others may use the engine meanwhile."""

from __future__ import annotations

import contextlib
import io
import secrets
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from engine_images import OWNER
from projects import LIMIT, ROOT, Project

from workflows.engines.docker_client import connect
from workflows.engines.docker_images import KIND
from workflows.environments.base_image import BASE_IMAGE
from workflows.environments.definition import EnvironmentDefinition, load_definition

if TYPE_CHECKING:
    import docker

TINY = "tiny_local-1.0-py3-none-any.whl"
DRIVER = """
import sys
from pathlib import Path
from workflows.environments.definition import load_definition
from workflows.errors import UserError
kind, folder, cache = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
def report(line):
    print("|", line, flush=True)
try:
    if kind == "base":
        from workflows.engines.docker_client import connect
        from workflows.engines.docker_base import make_base_image
        made = make_base_image(connect(), sys.argv[2], report)
    else:
        definition = load_definition(folder, default_dockerfile=Path("env/training/Dockerfile").resolve())
        if kind == "virtual":
            from workflows.environments.virtual_environments import ensure_environment
            made = ensure_environment(definition, cache, report)
        else:
            from workflows.engines.docker_client import connect
            from workflows.engines.docker_built_images import build_image
            made = build_image(connect(), definition, sys.argv[4], cache, report)
        print("modules:", *(name for name in ("filelock", "docker") if name in sys.modules))
        print("reused:", made.reused)
except UserError as error:
    sys.exit(str(error))
"""


def start(kind: str, folder: Path | str, cache: Path, base: str = "") -> subprocess.Popen[str]:
    """Build in a process of its own: `virtual` an environment, `image` one on a base image, `base` a base image."""
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, kind, str(folder), str(cache), base],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="surrogateescape",
    )


def read_until(process: subprocess.Popen[str], part: str) -> None:
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if part in line:
            return
    pytest.fail(f"{part!r} is not in the output: {''.join(seen)}")


def finish(process: subprocess.Popen[str], code: int | None = 0) -> str:
    out, _ = process.communicate(timeout=LIMIT)
    assert code is None or process.returncode == code, out
    return out


def gone(condition: Callable[[], Any], seconds: float = 60) -> bool:
    """Whether something ceases to be within a time."""
    until = time.monotonic() + seconds
    while condition() and time.monotonic() < until:
        time.sleep(0.05)
    return not condition()


def command_lines(part: str) -> list[str]:
    found = subprocess.run(["ps", "-eo", "args", "-ww"], capture_output=True, check=True).stdout
    return [line for line in found.decode("utf-8", "replace").splitlines() if part in line]


def tiny_wheel(folder: Path) -> Path:
    """A package without dependencies, so that no index is needed; the same bytes each time."""
    info = "tiny_local-1.0.dist-info"
    files = {
        "tiny_local.py": "answer = 42\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: tiny-local\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": f"tiny_local.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n",
    }
    with zipfile.ZipFile(folder / TINY, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(zipfile.ZipInfo(name), text)
    return folder / TINY


def define(folder: Path, requirements: str, dockerfile: str = "") -> EnvironmentDefinition:
    folder.mkdir(parents=True, exist_ok=True)
    tiny_wheel(folder)
    (folder / "requirements.txt").write_text(requirements)
    if dockerfile:
        (folder / "Dockerfile").write_text(dockerfile)
    return load_definition(folder, default_dockerfile=ROOT / "env" / "training" / "Dockerfile")


def silent(line: str) -> None:
    """Progress that nobody looks at."""


def wait_for(condition: Callable[[], Any], seconds: float = 30) -> Any:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    pytest.fail("waited in vain")


@dataclass(frozen=True)
class OwnImages:
    """What the tests of this process make in the engine, told from what others make there at the same time.

    Attributes:
        client: The engine.
        base: A base image of this process's own. Whatever is built on it, or run from it, has its label.
        label: That label, as the engine's filters take it.
        cache: A cache of the program's, in which packages stay that several tests install.
    """

    client: docker.DockerClient
    base: str
    label: str
    cache: Path

    def run(self, image: str, command: str, **options: Any) -> str:
        """What a command says in a container that is gone afterwards."""
        output: bytes = self.client.containers.run(image, ["sh", "-c", command], remove=True, **options)
        return output.decode()

    def nameless(self) -> set[str]:
        """Images without a name that nothing builds on."""
        return {image["Id"] for image in self.client.api.images(filters={"dangling": True, "label": self.label})}

    def leftovers(self) -> set[str]:
        """These, and containers."""
        found = self.client.api.containers(all=True, filters={"label": self.label})
        return self.nameless() | {container["Id"] for container in found}

    def names(self) -> set[str]:
        """The names of images."""
        found = self.client.api.images(filters={"label": self.label})
        return {name for image in found for name in image["RepoTags"] or ()}

    def remove_environments(self) -> None:
        """Take away the images that the program has made."""
        for image in self.client.api.images(filters={"label": [self.label, f"{KIND}=environment"]}):
            self.client.api.remove_image(image["Id"], force=True)


@pytest.fixture(scope="session")
def images_of_this_process(docker_engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnImages]:
    """A base image of this process's own; `own` is what tests use."""
    mark = secrets.token_hex(6)
    name, label = f"azureml-debug-tests/{mark}:1", f"{OWNER}={mark}"
    with contextlib.closing(connect()) as client:
        client.images.build(fileobj=io.BytesIO(f"FROM {BASE_IMAGE}\nLABEL {label}\n".encode()), tag=name, rm=True)
        yield OwnImages(client, name, label, tmp_path_factory.mktemp("cache"))
        client.api.remove_image(name, force=True)


@pytest.fixture
def own(images_of_this_process: OwnImages) -> Iterator[OwnImages]:
    """The same; after the test nothing of it is there that was not there before."""
    made = images_of_this_process
    before = made.leftovers()
    yield made
    made.remove_environments()
    assert gone(lambda: made.leftovers() - before), made.leftovers() - before


@pytest.fixture
def image_of_its_own(request: pytest.FixtureRequest) -> Callable[[Project, str], None]:
    """Have a project's image tagged by a name, which is taken away at the end."""

    def settle(project: Project, tag: str) -> None:
        project.environ["AML_IMAGE_TAG"] = tag

        def take_away() -> None:
            project.inv("container.stop")
            with contextlib.closing(connect()) as client:
                if client.images.list(tag):
                    client.api.remove_image(tag, force=True)

        request.addfinalizer(take_away)

    return settle
