"""An engine that does not see this machine's folders is told of before anything starts."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest
from conftest import make_project, missing
from engine_steps import Steps
from projects import Project, until

from workflows import engines
from workflows.engines import docker_folders
from workflows.engines.docker_client import connect, engine_answers
from workflows.engines.steps import StepSpec
from workflows.errors import UserError
from workflows.models import ImageRef

IMAGE = "azureml-debug-e2e-empty:1"
#: An engine whose machine has its own files in place of a folder: those that stand behind `$2`.
ENGINE = """
set -e
ip link set lo up
mount -t tmpfs tmpfs "$1"
shift
engine=$1
shift
for folder in "$@"; do mkdir -p "$folder"; done
exec dockerd --data-root "$engine/data" --exec-root "$engine/exec" --pidfile "$engine/pid" \
    --host "unix://$engine/docker.sock" --storage-driver vfs
"""


@pytest.fixture
def hidden(tmp_path: Path) -> Path:
    """The folder that the engine has files of its own in place of."""
    folder = tmp_path / "hidden"
    folder.mkdir()
    return folder


@pytest.fixture
def blind(
    docker_engine: None, hidden: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., docker.DockerClient]]:
    """Starts a second engine, which is asked from then on, in a mount namespace of its own."""
    if os.getuid() != 0 or any(shutil.which(program) is None for program in ("dockerd", "unshare", "ip")):
        missing("a second engine needs root, dockerd, unshare and ip")
    # Paths of sockets are short.
    with contextlib.ExitStack() as close, tempfile.TemporaryDirectory(prefix="adt") as place:

        def start(*folders: Path) -> docker.DockerClient:
            log = close.enter_context(open(f"{place}/log", "wb"))
            command = ["unshare", "--mount", "--net", "--", "sh", "-c", ENGINE, "sh", str(hidden), place]
            process = subprocess.Popen([*command, *map(str, folders)], stdout=log, stderr=log, start_new_session=True)
            close.callback(process.wait, 60)
            close.callback(process.terminate)
            monkeypatch.setenv("DOCKER_HOST", f"unix://{place}/docker.sock")
            until(lambda: process.poll() is not None or engine_answers(), "the second engine")
            assert process.poll() is None, Path(place, "log").read_text()
            client = close.enter_context(contextlib.closing(connect()))
            empty = io.BytesIO()
            with tarfile.open(fileobj=empty, mode="w") as tar:
                tar.addfile(tarfile.TarInfo("empty"))
            client.api.import_image_from_data(
                empty.getvalue(), repository=IMAGE.partition(":")[0], tag="1", changes=['CMD ["/empty"]']
            )
            return client

        yield start


def folders_of_service(project: Project) -> list[Path]:
    """What a service mounts of a project."""
    return [project.score.parent, project.folder / ".azureml-debug" / "deployment" / "announce"]


def folders_of_step(place: Path) -> list[Path]:
    """What a step mounts."""
    parts = ("work", "azureml-logs", "announce", "outputs", "logs")
    return [place / "code", *(place / "step" / part for part in parts)]


def test_what_mounts_folders_that_the_engine_does_not_see_is_refused_at_once(
    blind: Callable[..., docker.DockerClient], hidden: Path
) -> None:
    # The engine has no such folder, or another one.
    absent, others = (make_project(hidden / name, "docker") for name in ("absent", "other ones"))
    client = blind(*folders_of_service(others), *folders_of_step(hidden / "other steps"))
    for project in (absent, others):
        result = project.inv("deploy.run", AML_IMAGE_TAG=IMAGE)
        result.says("does not see", str(project.folder), "AML_ENGINE=process")
        assert not list(project.folder.rglob(".seen-*"))
    for place in (hidden / "absent steps", hidden / "other steps"):
        (place / "code").mkdir(parents=True)
        spec = StepSpec(
            project=hidden,
            folder=place / "step",
            run_id="unseen",
            step="train",
            image=ImageRef("docker", "", IMAGE),
            code=place / "code",
            inputs={},
            outputs={},
        )
        with pytest.raises(UserError, match="does not see") as refused:
            Steps(engines.load_steps("docker"), spec).start("true")
        assert str(place) in refused.value.problem
    assert client.api.containers(all=True) == []


@pytest.mark.parametrize(
    ("variables", "problem", "remedy"),
    [
        ({"DOCKER_HOST": "ssh://engine"}, "is on another machine", "--remote"),
        ({"DOCKER_HOST": "tcp://192.0.2.1:2375"}, "is on another machine", "--remote"),
        ({"REMOTE_CONTAINERS": "true"}, "is not in this container", "localWorkspaceFolder"),
    ],
)
def test_what_helps_is_what_helps_there(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], problem: str, remedy: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    told = docker_folders.not_visible_error(Path("/work/project"))
    assert problem in told.problem and "/work/project" in told.problem and remedy in told.remedy


@pytest.mark.parametrize(
    "said",
    [
        'invalid mount config for type "bind": bind source path does not exist: {}',
        "Mounts denied: \nThe path {} is not shared from the host and is not known to Docker.",
        "Mounts denied: The path {} is not shared from OS X and is not known to Docker",
    ],
)
def test_what_engines_say_of_a_folder_that_is_here_is_understood(said: str, tmp_path: Path) -> None:
    class Refusal:
        explanation = said.format(tmp_path)

    told = docker_folders.mount_error(Refusal())
    assert told is not None and str(tmp_path) in told.problem
    Refusal.explanation = said.format(tmp_path / "gone")
    assert docker_folders.mount_error(Refusal()) is None
