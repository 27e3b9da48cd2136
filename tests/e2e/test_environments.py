"""Environments for real: uv, pip, the Docker engine, mmdebstrap; failures, kills and full disks too."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from workflows.engines import docker_client as docker_client_module
from workflows.engines import docker_images
from workflows.engines.docker_contexts import image_of_context
from workflows.environments import base, virtual
from workflows.environments.definition import EnvironmentDefinition, load_definition
from workflows.errors import UserError
from workflows.paths import cache_folder

if TYPE_CHECKING:
    import docker

ROOT = Path(__file__).resolve().parents[2]
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
        from workflows.environments.base import make_base_image
        made = make_base_image(connect(), sys.argv[2], report)
    else:
        definition = load_definition(folder, default_dockerfile=Path("env/training/Dockerfile").resolve())
        if kind == "virtual":
            from workflows.environments.virtual import ensure_environment
            made = ensure_environment(definition, cache, report)
        else:
            from workflows.engines.docker_client import connect
            from workflows.engines.docker_images import build_image
            made = build_image(connect(), definition, "azureml-debug/base:latest", cache, report)
        print("modules:", *(name for name in ("filelock", "docker") if name in sys.modules))
        print("reused:", made.reused)
except UserError as error:
    sys.exit(str(error))
"""


def start(kind: str, folder: Path | str, cache: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, kind, str(folder), str(cache)],
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
    out, _ = process.communicate(timeout=120)
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
    """A package without dependencies, so that no index is needed."""
    info = "tiny_local-1.0.dist-info"
    with zipfile.ZipFile(folder / TINY, "w") as wheel:
        wheel.writestr("tiny_local.py", "answer = 42\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-local\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", f"tiny_local.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
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


# Virtual environments


def test_built_once_then_reused_without_work(tmp_path: Path) -> None:
    folder, cache = tmp_path / "a folder" / "naïve", tmp_path / "un caché"
    definition = define(folder, f"./{TINY}\n")
    lines: list[str] = []
    built = virtual.ensure_environment(definition, cache, lines.append)
    assert not built.reused
    assert any("+ tiny-local==1.0" in line for line in lines)
    imported = subprocess.run(
        [built.python, "-c", "import tiny_local; print(tiny_local.answer)"], capture_output=True, check=True
    )
    assert imported.stdout == b"42\n"
    assert sorted(path.name for path in built.folder.parent.iterdir()) == [built.digest[:16]]
    assert not (built.folder / ".tmp").exists()

    # Nothing is built, and nothing said.
    again = virtual.ensure_environment(definition, cache, pytest.fail)
    assert (again.reused, again.python) == (True, built.python)
    out = finish(start("virtual", folder, cache))
    assert "reused: True" in out
    assert "modules:\n" in out  # neither is needed where nothing has to be built

    changed = define(folder, f"./{TINY}\n# changed\n")
    other = virtual.ensure_environment(changed, cache, silent)
    assert other.folder != built.folder
    assert virtual.find_environment(changed, cache) is not None
    assert built.python.exists()


def test_condas_packages_without_conda(tmp_path: Path) -> None:
    if shutil.which("conda") or shutil.which("mamba") or shutil.which("micromamba"):
        pytest.skip("there is a conda here")
    # Not UTF-8: pip itself refuses local packages in such a folder, and nothing else.
    folder = tmp_path / "defined \udcff"
    define(folder, "# nothing more\n")
    (folder / "conda.yml").write_text(
        "name: with-conda\ndependencies:\n  - python=3.99\n  - six=1.17\n  - libgcc-ng\n"
        "  - pip:\n    - -r requirements.txt\n"
    )
    definition = load_definition(folder, default_dockerfile=Path("env/training/Dockerfile").resolve())
    built = virtual.ensure_environment(definition, tmp_path / "cache", silent)
    minor = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert built.notes == (
        f"conda.yml asks for python=3.99; using {minor}, conda is not used here",
        "conda is not used here: six==1.17.* from conda.yml installed from the package index",
        "libgcc-ng is left out: only conda has it",
    )
    again = virtual.ensure_environment(definition, tmp_path / "cache", silent)
    assert (again.reused, again.notes) == (True, built.notes)


def test_a_package_that_does_not_exist(tmp_path: Path) -> None:
    definition = define(tmp_path / "defined", f"./{TINY}\nno-such-package-of-ours==1\n")
    lines: list[str] = []
    with pytest.raises(UserError) as caught:
        virtual.ensure_environment(definition, tmp_path / "cache", lines.append)
    error = caught.value
    assert error.problem == (
        "uv could not install the environment `defined`: no-such-package-of-ours was not found in the package registry "
        "and you require no-such-package-of-ours==1"
    )
    assert (error.file, error.line) == (definition.folder / "requirements.txt", 2)
    assert "line 2 of" in error.remedy
    assert 0 < len(error.details) <= 15
    assert list((tmp_path / "cache" / "environments").iterdir()) == []
    (definition.folder / "requirements.txt").write_text(f"./{TINY}\n")
    mended = load_definition(definition.folder, default_dockerfile=definition.dockerfile)
    assert not virtual.ensure_environment(mended, tmp_path / "cache", silent).reused


def test_two_builds_at_once(tmp_path: Path) -> None:
    define(tmp_path / "defined", f"./{TINY}\n")
    first = start("virtual", tmp_path / "defined", tmp_path / "cache")
    read_until(first, "building the environment")
    second = start("virtual", tmp_path / "defined", tmp_path / "cache")
    outputs = [finish(first), finish(second)]
    assert "reused: False" in outputs[0]
    assert "reused: True" in outputs[1]
    assert outputs[1].count("waiting for it") == 1


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_build_that_is_ended_half_way(tmp_path: Path, how: signal.Signals) -> None:
    # A source package whose build never ends keeps uv busy, with a grandchild of its own.
    folder, cache = tmp_path / "defined", tmp_path / "cache"
    slow = folder / "slow"
    slow.mkdir(parents=True)
    (slow / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    backend = "import subprocess\ndef get_requires_for_build_wheel(config=None):\n"
    (slow / "backend.py").write_text(f"{backend}    subprocess.run(['sleep', '4711'])\n    return []\n")
    define(folder, "./slow\n")
    process = start("virtual", folder, cache)
    (built,) = wait_for(lambda: list((cache / "environments").glob("*/bin/python")))
    environment = built.parents[1]
    wait_for(lambda: command_lines("sleep 4711"))
    process.send_signal(how)
    finish(process, None)
    assert gone(lambda: command_lines("sleep 4711"))
    assert gone(lambda: command_lines(str(environment)))
    assert environment.exists() is (how == signal.SIGKILL)
    # The same digest again: only the marker tells that the folder is half built.
    again = start("virtual", folder, cache)
    if how == signal.SIGKILL:
        read_until(again, "removing the half-built environment")
    wait_for(lambda: command_lines("sleep 4711"))
    again.send_signal(signal.SIGINT)
    finish(again, None)
    assert not environment.exists()


def wait_for(condition: Callable[[], Any], seconds: float = 30) -> Any:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    pytest.fail("waited in vain")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(folder)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("a full disk needs root and a mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk(tmp_path: Path, small_disk: Path) -> None:
    definition = define(tmp_path / "defined", "debugpy>=1.8.22,<2\n")
    with pytest.raises(UserError, match=r"The disk is full: .* MB are free") as caught:
        virtual.ensure_environment(definition, small_disk / "cache", silent)
    assert str(small_disk) in caught.value.problem
    assert list((small_disk / "cache" / "environments").iterdir()) == []


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(UserError, match="cannot be written"):
        virtual.ensure_environment(define(tmp_path / "defined", f"./{TINY}\n"), tmp_path / "cache", silent)


# Images


@pytest.fixture
def client(docker_engine: None) -> Iterator[docker.DockerClient]:
    with contextlib.closing(docker_client_module.connect()) as found:
        yield found


@pytest.fixture
def nothing_left(client: docker.DockerClient) -> Iterator[None]:
    """After the test no images and containers are there that were not there before."""
    before = leftovers(client)
    yield
    for image in client.api.images(filters={"label": f"{docker_images.KIND}=environment"}):
        if any("/e2e-" in name for name in image["RepoTags"] or ()):
            client.api.remove_image(image["Id"], force=True)
    assert gone(lambda: leftovers(client) - before), leftovers(client) - before


def leftovers(client: docker.DockerClient) -> set[str]:
    """Nameless images that nothing builds on, and containers."""
    images = {image["Id"] for image in client.api.images(filters={"dangling": True})}
    return images | {
        container["Id"]
        for container in client.api.containers(all=True)
        if not container["Labels"].get("azureml-debug.project")
    }


def run_in(client: docker.DockerClient, image: str, command: str, **options: Any) -> str:
    output: bytes = client.containers.run(image, ["sh", "-c", command], remove=True, **options)
    return output.decode()


def test_the_inference_image(client: docker.DockerClient, nothing_left: None) -> None:
    folder = ROOT / "env" / "inference"
    definition = load_definition(folder, required=["debugpy"], default_dockerfile=folder / "Dockerfile")
    image = docker_images.build_image(client, definition, base.BASE_IMAGE, cache_folder(), print)
    assert image.name == f"azureml-debug/inference:{image.digest[:12]}"
    again = docker_images.build_image(client, definition, base.BASE_IMAGE, cache_folder(), pytest.fail)
    assert (again.reused, again.name) == (True, image.name)
    labels = docker_images.inspect(client, image.name)["Config"]["Labels"]
    assert labels == {
        "azureml-debug.kind": "environment",
        "azureml-debug.digest": image.digest,
        "azureml-debug.environment": "inference",
        "azureml-debug.live": "[]",
    }
    seen = run_in(
        client,
        image.name,
        "set -e; touch /var/runit/gunicorn/written /var/azureml-app/written; test -x /var/runit/gunicorn/run;"
        "python -c 'import azureml_inference_server_http, debugpy, sys; print(sys.prefix)';"
        "command -v runsvdir; command -v azmlinfsrv; pwd; echo $AML_APP_ROOT;"
        "ls -d /tmp/azureml-debug /wheelhouse 2>/dev/null || true",
        user="12345:12345",
    )
    assert seen.split() == [
        "/opt/env",
        "/usr/bin/runsvdir",
        "/opt/env/bin/azmlinfsrv",
        "/var/azureml-app",
        "/var/azureml-app",
    ]
    docker_images.tag_image(client, image, "azureml-debug-e2e:1")
    try:
        tagged = docker_images.tagged_image(client, "azureml-debug-e2e:1")
        assert tagged is not None
        assert tagged.digest == image.digest
        with pytest.raises(UserError, match="cannot be an image's name"):
            docker_images.tag_image(client, image, "Not A Name")
    finally:
        client.api.remove_image("azureml-debug-e2e:1")
    assert docker_images.tagged_image(client, "azureml-debug-e2e:1") is None


def test_a_changed_definition_is_another_image(client: docker.DockerClient, nothing_left: None, tmp_path: Path) -> None:
    folder = tmp_path / "e2e A folder"
    first = docker_images.build_image(
        client, define(folder, f"./{TINY}\n"), base.BASE_IMAGE, tmp_path / "cache", silent
    )
    assert first.name.startswith("azureml-debug/e2e-a-folder:")
    assert run_in(client, first.name, "python -c 'import tiny_local; print(tiny_local.answer)'") == "42\n"
    changed = define(folder, f"./{TINY}\n# changed\n")
    assert docker_images.find_image(client, changed, base.BASE_IMAGE) is None
    second = docker_images.build_image(client, changed, base.BASE_IMAGE, tmp_path / "cache", silent)
    assert second.digest != first.digest
    unused = {text for text, _, _ in docker_images.unused_images(client, frozenset({second.digest}), "debug:1")}
    assert f"image {first.name}" in unused
    assert f"image {second.name}" not in unused


def test_an_image_without_a_wheelhouse(
    client: docker.DockerClient, nothing_left: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workflows.engines import docker_build

    monkeypatch.setattr(docker_build, "make_packages", lambda *arguments: None)
    definition = define(tmp_path / "e2e-plain", f"--no-index\n./{TINY}\n")
    image = docker_images.build_image(client, definition, base.BASE_IMAGE, tmp_path / "cache", silent)
    assert run_in(client, image.name, "python -c 'import tiny_local; print(tiny_local.answer)'") == "42\n"


def test_an_image_whose_packages_only_pip_can_get(
    client: docker.DockerClient, nothing_left: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_PREFER_BINARY", "1")
    definition = define(tmp_path / "e2e-pip", f"./{TINY}\n")
    lines: list[str] = []
    image = docker_images.build_image(client, definition, base.BASE_IMAGE, tmp_path / "cache", lines.append)
    assert "pip gets the packages: uv has no prefer-binary" in lines
    assert run_in(client, image.name, "python -c 'import tiny_local; print(tiny_local.answer)'") == "42\n"


@pytest.mark.parametrize("way", ["in the image", "only pip", "another Dockerfile", "compiled"])
def test_an_editable_package_is_in_its_folder_or_the_image_does_not_say_so(
    client: docker.DockerClient, nothing_left: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    from workflows.engines import docker_build

    package = tmp_path / "a package"
    (package / "src").mkdir(parents=True)
    (package / "setup.py").write_text(
        "from setuptools import setup\nsetup(name='pack', py_modules=['pack'], package_dir={'': 'src'})\n"
    )
    module = package / "src" / "pack.py"
    module.write_text("answer = 1\n")
    dockerfile = ""
    if way == "in the image":
        monkeypatch.setattr(docker_build, "make_packages", lambda *arguments: None)
    elif way == "only pip":
        monkeypatch.setenv("PIP_PREFER_BINARY", "1")
    elif way == "compiled":
        (package / "unused.c").write_text("")
    else:
        dockerfile = f"FROM {base.BASE_IMAGE}\nRUN true\n"
    definition = define(tmp_path / "e2e-live", f"-e {package}\n", dockerfile)
    image = docker_images.build_image(client, definition, base.BASE_IMAGE, tmp_path / "cache", silent)
    found = docker_images.find_image(client, definition, base.BASE_IMAGE)
    assert found is not None
    assert (found.digest, found.live) == (image.digest, image.live)
    assert image.live == ((str(package),) if way == "in the image" else ())
    module.write_text("answer = 2\n")
    edited = load_definition(definition.folder, default_dockerfile=ROOT / "env" / "training" / "Dockerfile")
    found = docker_images.find_image(client, edited, base.BASE_IMAGE)
    if way == "in the image":
        mounted = {str(package): {"bind": str(package), "mode": "ro"}}
        assert run_in(client, image.name, "python -c 'import pack; print(pack.answer)'", volumes=mounted) == "2\n"
        assert found is not None
    else:
        # An edit is another image.
        assert found is None


def test_a_dockerfile_of_ones_own(client: docker.DockerClient, nothing_left: None, tmp_path: Path) -> None:
    dockerfile = f"FROM {base.BASE_IMAGE}\nCOPY *.whl /wheels/\nRUN echo own >/own\n"
    definition = define(tmp_path / "e2e-own", f"./{TINY}\n", dockerfile)
    image = docker_images.build_image(client, definition, "not-used:1", tmp_path / "cache", silent)
    assert run_in(client, image.name, "cat /own; ls /wheels") == f"own\n{TINY}\n"


def test_a_package_that_does_not_exist_leaves_no_image(
    client: docker.DockerClient, nothing_left: None, tmp_path: Path
) -> None:
    definition = define(tmp_path / "e2e-missing", "no-such-package-of-ours==1\n")
    with pytest.raises(UserError, match="no-such-package-of-ours was not found") as caught:
        docker_images.build_image(client, definition, base.BASE_IMAGE, tmp_path / "cache", silent)
    assert caught.value.line == 1
    assert list((tmp_path / "cache" / "wheelhouses").iterdir()) == []


@pytest.mark.parametrize(
    ("last", "problem"),
    [
        ("RUN echo 'the reason'; exit 3", "failed at `RUN echo 'the reason'; exit 3`"),
        (
            "RUN echo 'OSError: [Errno 28] No space left on device'; exit 1",
            "The Docker engine's disk is full",
        ),
        (
            "RUN echo 'ERROR: No matching distribution found for tiny-local'; exit 1",
            "No matching distribution",
        ),
        ("COPY gone /gone", "failed at `COPY gone /gone`"),
        ("NONSENSE", "(?i)unknown instruction"),
    ],
)
def test_a_build_that_fails_leaves_nothing(
    client: docker.DockerClient, nothing_left: None, tmp_path: Path, last: str, problem: str
) -> None:
    stages = f"FROM {base.BASE_IMAGE} AS one\nRUN echo {time.time()} >/one\nFROM {base.BASE_IMAGE}\n"
    dockerfile = f"{stages}COPY --from=one /one /one\n{last}\n"
    definition = define(tmp_path / "e2e-failing", f"./{TINY}\n", dockerfile)
    with pytest.raises(UserError, match=problem) as caught:
        docker_images.build_image(client, definition, base.BASE_IMAGE, tmp_path / "cache", silent)
    if "the reason" in last:
        assert "the reason" in caught.value.details
    assert docker_images.find_image(client, definition, base.BASE_IMAGE) is None


def test_a_build_context_with_a_dockerfile_of_another_name(
    client: docker.DockerClient, nothing_left: None, tmp_path: Path
) -> None:
    folder = tmp_path / "e2e-context"
    folder.mkdir()
    (folder / "mine.docker").write_text(f"FROM {base.BASE_IMAGE}\nRUN echo {time.time()} >/own\nCOPY mine.docker /\n")
    place = tmp_path / "pipeline.yml"
    first = image_of_context(folder, "mine.docker", silent, file=place, line=3)
    assert run_in(client, first.name, "cat /mine.docker") == (folder / "mine.docker").read_text()
    assert image_of_context(folder, "mine.docker", silent, file=place, line=3).reused
    with open(folder / "mine.docker", "a") as file:
        file.write("RUN echo the reason; exit 3\n")
    with pytest.raises(UserError, match="failed at `RUN echo the reason; exit 3`") as caught:
        image_of_context(folder, "mine.docker", silent, file=place, line=3)
    assert (caught.value.file, caught.value.line) == (place, 3) and "the reason" in caught.value.details


@pytest.mark.parametrize("dockerfile", ["", "FROM azureml-debug/no-such-image:1\n"])
def test_a_base_image_that_is_not_there(
    client: docker.DockerClient, nothing_left: None, tmp_path: Path, dockerfile: str
) -> None:
    definition = define(tmp_path / "e2e-baseless", f"./{TINY}\n", dockerfile)
    with pytest.raises(UserError, match="azureml-debug/no-such-image:1 is not here and cannot be") as caught:
        docker_images.build_image(client, definition, "azureml-debug/no-such-image:1", tmp_path / "cache", silent)
    assert "inv container.base" in caught.value.remedy
    assert "AML_BASE_IMAGE" in caught.value.remedy


def test_two_images_at_once(client: docker.DockerClient, nothing_left: None, tmp_path: Path) -> None:
    define(tmp_path / "e2e-twice", f"./{TINY}\n", f"FROM {base.BASE_IMAGE}\nRUN sleep 1\n")
    processes = [start("image", tmp_path / "e2e-twice", tmp_path / "cache") for _ in range(2)]
    outputs = [finish(process) for process in processes]
    assert sorted("reused: True" in out for out in outputs) == [False, True]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_image_whose_build_is_ended_half_way(
    client: docker.DockerClient, nothing_left: None, tmp_path: Path, how: signal.Signals
) -> None:
    folder = tmp_path / "e2e-ended"
    text = f"FROM {base.BASE_IMAGE}\nRUN echo {time.time()} >/one\nRUN test -e /two || sleep 3\n"
    definition = define(folder, f"./{TINY}\n", text)
    before = leftovers(client)
    process = start("image", folder, tmp_path / "cache")
    read_until(process, "Step 3/")
    read_until(process, "Running in")
    process.send_signal(how)
    finish(process, None)
    if how == signal.SIGINT:
        assert gone(lambda: leftovers(client) - before, 60), leftovers(client) - before
    assert docker_images.find_image(client, definition, base.BASE_IMAGE) is None
    if how == signal.SIGKILL:
        assert "reused: False" in finish(start("image", folder, tmp_path / "cache"))


def test_what_a_killed_build_has_made_goes_with_the_next_build_of_any_image(
    client: docker.DockerClient, nothing_left: None, tmp_path: Path
) -> None:
    from docker.errors import APIError

    from workflows.runs import identity

    before = leftovers(client)
    text = f"FROM {base.BASE_IMAGE}\nRUN echo {time.time()} >/one\nRUN sleep 30\n"
    define(tmp_path / "e2e-killed", f"./{TINY}\n", text)
    process = start("image", tmp_path / "e2e-killed", tmp_path / "cache")
    read_until(process, "Step 3/")
    read_until(process, "Running in")
    process.kill()
    finish(process, None)
    pid, _started, where = identity.mark().split("-")
    labels = {"azureml-debug.kind": "probe", "azureml-debug.mark": f"{pid}-1-{where}"}
    probe = client.api.create_container(base.BASE_IMAGE, ["true"], labels=labels)["Id"]
    labels["azureml-debug.mark"] = identity.mark()
    alive = client.api.create_container(base.BASE_IMAGE, ["true"], labels=labels)["Id"]
    try:
        nameless = {image["Id"] for image in client.api.images(filters={"dangling": True})}
        assert nameless - before, "the killed build has made an image"
        define(tmp_path / "e2e-next", f"./{TINY}\n", f"FROM {base.BASE_IMAGE}\nRUN true {time.time()}\n")
        assert "reused: False" in finish(start("image", tmp_path / "e2e-next", tmp_path / "cache"))
        assert leftovers(client) - before == {alive}
    finally:
        for container in (probe, alive):
            with contextlib.suppress(APIError):
                client.api.remove_container(container, force=True)


# The base image


def test_a_base_image_that_is_ended_half_way(client: docker.DockerClient, tmp_path: Path) -> None:
    name = "azureml-debug/e2e-base:1"
    process = start("base", name, tmp_path)
    read_until(process, "running apt-get update")
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out = finish(process, None)
    assert gone(lambda: command_lines("--format=tar"))
    used = [line.rpartition(" ")[2] for line in out.splitlines() if "as tempdir" in line]
    assert not any(Path(folder).exists() for folder in used)
    assert docker_images.tagged_image(client, name) is None


def test_a_base_image_whose_packages_cannot_be_had(
    client: docker.DockerClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stanza = f"Types: deb\nURIs: file://{tmp_path}/gone\nSuites: bookworm\nComponents: main\n"
    monkeypatch.setattr(base, "archive_sources", lambda *arguments: [stanza])
    with pytest.raises(UserError, match="mmdebstrap failed: ") as caught:
        base.make_base_image(client, "azureml-debug/e2e-base:1", silent)
    assert caught.value.details
    assert docker_images.tagged_image(client, "azureml-debug/e2e-base:1") is None
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="mmdebstrap is not installed"):
        base.make_base_image(client, "azureml-debug/e2e-base:1", silent)


# The connection


@pytest.fixture
def socket_path(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path_factory.mktemp("s") / "d.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    return path


def test_no_engine_is_installed(socket_path: Path) -> None:
    assert not docker_client_module.engine_answers()
    with pytest.raises(UserError, match="No Docker engine is installed or started"):
        docker_client_module.connect()


def test_the_engine_is_not_running(socket_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(socket_path))
    assert not docker_client_module.engine_answers()
    with pytest.raises(UserError, match="is not running"):
        docker_client_module.connect()


def test_the_engine_is_not_for_this_user(socket_path: Path) -> None:
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(socket_path))
        listening.listen()
        socket_path.chmod(0o600)
        for folder in (socket_path.parent, *socket_path.parents[1:3]):
            folder.chmod(0o755)
        code = (
            "import os; from workflows import engines; from workflows.engines import docker_client as c, process\n"
            "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            "print(c.engine_answers(), engines.choose('auto')[1])\nc.connect()"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "False you may not use the Docker engine, so processes on this machine are used\n"
    assert "sudo usermod -aG docker $USER" in done.stderr


def test_an_engine_that_hangs_is_no_engine(socket_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(socket_path))
        listening.listen()
        begun = time.monotonic()
        assert not docker_client_module.engine_answers(timeout=0.3)
        assert time.monotonic() - begun > 0.25


def test_an_engine_of_another_version(socket_path: Path) -> None:
    def serve(listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), connection:
                if connection.recv(4096):
                    body = b'{"ApiVersion": "1.12", "Version": "1.0"}'
                    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
                    connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(socket_path))
        listening.listen()
        thread = threading.Thread(target=serve, args=(listening,), daemon=True)
        thread.start()
        with pytest.raises(UserError, match="no common version"):
            docker_client_module.connect()
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_the_engine_that_is_there_answers(client: docker.DockerClient) -> None:
    assert docker_client_module.engine_answers()


def test_the_base_image_that_is_taken(client: docker.DockerClient) -> None:
    assert docker_images.resolve_base_image(client, None) == base.BASE_IMAGE
    assert docker_images.resolve_base_image(client, "mine:1") == "mine:1"
