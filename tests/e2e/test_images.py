"""Images of environments for real: built, found again, failing, ended half way."""

from __future__ import annotations

import contextlib
import signal
import time
from pathlib import Path

import pytest
from image_builds import TINY, OwnImages, define, finish, gone, read_until, silent, start
from projects import ROOT

from workflows.engines import docker_built_images, docker_images
from workflows.engines.docker_client import engine_answers
from workflows.engines.docker_contexts import build_context_image
from workflows.environments.base_image import BASE_IMAGE
from workflows.environments.definition import load_definition
from workflows.errors import UserError
from workflows.paths import cache_folder


def test_the_inference_image(own: OwnImages) -> None:
    folder = ROOT / "env" / "inference"
    definition = load_definition(folder, required=["debugpy"], default_dockerfile=folder / "Dockerfile")
    image = docker_built_images.build_image(own.client, definition, BASE_IMAGE, cache_folder(), print)
    assert image.name == f"azureml-debug/inference:{image.digest[:12]}"
    again = docker_built_images.build_image(own.client, definition, BASE_IMAGE, cache_folder(), pytest.fail)
    assert (again.reused, again.name) == (True, image.name)
    labels = docker_images.inspect(own.client, image.name)["Config"]["Labels"]
    assert labels == {
        "azureml-debug.kind": "environment",
        "azureml-debug.digest": image.digest,
        "azureml-debug.environment": "inference",
        "azureml-debug.live": "[]",
    }
    seen = own.run(
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
    docker_images.tag_image(own.client, image, "azureml-debug-e2e:1")
    try:
        tagged = docker_images.tagged_image(own.client, "azureml-debug-e2e:1")
        assert tagged is not None
        assert tagged.digest == image.digest
        with pytest.raises(UserError, match="cannot be an image's name"):
            docker_images.tag_image(own.client, image, "Not A Name")
    finally:
        own.client.api.remove_image("azureml-debug-e2e:1")
    assert docker_images.tagged_image(own.client, "azureml-debug-e2e:1") is None


def test_a_changed_definition_is_another_image(own: OwnImages, tmp_path: Path) -> None:
    folder = tmp_path / "e2e A folder"
    first = docker_built_images.build_image(own.client, define(folder, f"./{TINY}\n"), own.base, own.cache, silent)
    assert first.name.startswith("azureml-debug/e2e-a-folder:")
    assert own.run(first.name, "python -c 'import tiny_local; print(tiny_local.answer)'") == "42\n"
    changed = define(folder, f"./{TINY}\n# changed\n")
    assert docker_images.find_image(own.client, changed, own.base) is None
    second = docker_built_images.build_image(own.client, changed, own.base, own.cache, silent)
    assert second.digest != first.digest
    unused = {text for text, _, _ in docker_images.unused_images(own.client, frozenset({second.digest}), "debug:1")}
    assert f"image {first.name}" in unused
    assert f"image {second.name}" not in unused


@pytest.mark.parametrize("way", ["in the image", "only pip", "another Dockerfile", "compiled"])
def test_an_editable_package_is_in_its_folder_or_the_image_does_not_say_so(
    own: OwnImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
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
        dockerfile = f"FROM {own.base}\nRUN true\n"
    definition = define(tmp_path / "e2e-live", f"./{TINY}\n-e {package}\n", dockerfile)
    lines: list[str] = []
    image = docker_built_images.build_image(own.client, definition, own.base, own.cache, lines.append)
    assert ("pip gets the packages: uv has no prefer-binary" in lines) is (way == "only pip")
    found = docker_images.find_image(own.client, definition, own.base)
    assert found is not None
    assert (found.digest, found.live) == (image.digest, image.live)
    assert image.live == ((str(package),) if way == "in the image" else ())
    if way == "only pip":
        code = "import pack, tiny_local; print(pack.answer, tiny_local.answer)"
        assert own.run(image.name, f"python -c '{code}'") == "1 42\n"
    module.write_text("answer = 2\n")
    edited = load_definition(definition.folder, default_dockerfile=ROOT / "env" / "training" / "Dockerfile")
    found = docker_images.find_image(own.client, edited, own.base)
    if way == "in the image":
        mounted = {str(package): {"bind": str(package), "mode": "ro"}}
        code = "import pack, tiny_local; print(pack.answer, tiny_local.answer)"
        assert own.run(image.name, f"python -c '{code}'", volumes=mounted) == "2 42\n"
        assert found is not None
    else:
        # An edit is another image.
        assert found is None


def test_a_dockerfile_of_ones_own(own: OwnImages, tmp_path: Path) -> None:
    dockerfile = f"FROM {own.base}\nCOPY *.whl /wheels/\nRUN echo own >/own\n"
    definition = define(tmp_path / "e2e-own", f"./{TINY}\n", dockerfile)
    image = docker_built_images.build_image(own.client, definition, "not-used:1", own.cache, silent)
    assert own.run(image.name, "cat /own; ls /wheels") == f"own\n{TINY}\n"


def test_a_package_that_does_not_exist_leaves_no_image(own: OwnImages, tmp_path: Path) -> None:
    definition = define(tmp_path / "e2e-missing", "no-such-package-of-ours==1\n")
    with pytest.raises(UserError, match="no-such-package-of-ours was not found") as caught:
        docker_built_images.build_image(own.client, definition, own.base, tmp_path / "cache", silent)
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
def test_a_build_that_fails_leaves_nothing(own: OwnImages, tmp_path: Path, last: str, problem: str) -> None:
    dockerfile = f"FROM {own.base}\n{last}\n"
    if "the reason" in last:
        # What all of its stages have made goes as well.
        stages = f"FROM {own.base} AS one\nRUN echo {time.time()} >/one\n"
        dockerfile = f"{stages}FROM {own.base}\nCOPY --from=one /one /one\n{last}\n"
    definition = define(tmp_path / "e2e-failing", f"./{TINY}\n", dockerfile)
    with pytest.raises(UserError, match=problem) as caught:
        docker_built_images.build_image(own.client, definition, own.base, own.cache, silent)
    if "the reason" in last:
        assert "the reason" in caught.value.details
    assert docker_images.find_image(own.client, definition, own.base) is None


def test_a_build_context_with_a_dockerfile_of_another_name(own: OwnImages, tmp_path: Path) -> None:
    folder = tmp_path / "e2e-context"
    folder.mkdir()
    (folder / "mine.docker").write_text(f"FROM {own.base}\nRUN echo {time.time()} >/own\nCOPY mine.docker /\n")
    place = tmp_path / "pipeline.yml"
    first = build_context_image(folder, "mine.docker", silent, file=place, line=3)
    assert own.run(first.name, "cat /mine.docker") == (folder / "mine.docker").read_text()
    assert build_context_image(folder, "mine.docker", silent, file=place, line=3).reused
    with open(folder / "mine.docker", "a") as file:
        file.write("RUN echo the reason; exit 3\n")
    with pytest.raises(UserError, match="failed at `RUN echo the reason; exit 3`") as caught:
        build_context_image(folder, "mine.docker", silent, file=place, line=3)
    assert (caught.value.file, caught.value.line) == (place, 3) and "the reason" in caught.value.details


@pytest.mark.parametrize("dockerfile", ["", "FROM azureml-debug/no-such-image:1\n"])
def test_a_base_image_that_is_not_there(own: OwnImages, tmp_path: Path, dockerfile: str) -> None:
    definition = define(tmp_path / "e2e-baseless", f"./{TINY}\n", dockerfile)
    with pytest.raises(UserError, match="azureml-debug/no-such-image:1 is not here and cannot be") as caught:
        docker_built_images.build_image(own.client, definition, "azureml-debug/no-such-image:1", own.cache, silent)
    assert "inv container.base" in caught.value.remedy
    assert "AML_BASE_IMAGE" in caught.value.remedy


def test_two_images_at_once(own: OwnImages, tmp_path: Path) -> None:
    define(tmp_path / "e2e-twice", f"./{TINY}\n", f"FROM {own.base}\nRUN sleep 1\n")
    processes = [start("image", tmp_path / "e2e-twice", own.cache, own.base) for _ in range(2)]
    outputs = [finish(process) for process in processes]
    assert sorted("reused: True" in out for out in outputs) == [False, True]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_image_whose_build_is_ended_half_way(own: OwnImages, tmp_path: Path, how: signal.Signals) -> None:
    folder = tmp_path / "e2e-ended"
    text = f"FROM {own.base}\nRUN echo {time.time()} >/one\nRUN test -e /two || sleep 3\n"
    definition = define(folder, f"./{TINY}\n", text)
    before = own.leftovers()
    process = start("image", folder, own.cache, own.base)
    read_until(process, "Step 3/")
    read_until(process, "Running in")
    process.send_signal(how)
    finish(process, None)
    if how == signal.SIGINT:
        assert gone(lambda: own.leftovers() - before, 60), own.leftovers() - before
    assert docker_images.find_image(own.client, definition, own.base) is None
    if how == signal.SIGKILL:
        assert "reused: False" in finish(start("image", folder, own.cache, own.base))


def test_what_a_killed_build_has_made_goes_with_the_next_build_of_any_image(own: OwnImages, tmp_path: Path) -> None:
    from docker.errors import APIError

    from workflows import process_identity as identity

    before = own.leftovers()
    text = f"FROM {own.base}\nRUN echo {time.time()} >/one\nRUN sleep 30\n"
    define(tmp_path / "e2e-killed", f"./{TINY}\n", text)
    process = start("image", tmp_path / "e2e-killed", own.cache, own.base)
    read_until(process, "Step 3/")
    read_until(process, "Running in")
    # From here on any other build in this engine may take away what this one has made.
    assert own.nameless() - before, "the build that is killed has made an image"
    process.kill()
    finish(process, None)
    pid, _started, where = identity.process_mark().split("-")
    labels = {"azureml-debug.kind": "probe", "azureml-debug.mark": f"{pid}-1-{where}"}
    probe = own.client.api.create_container(own.base, ["true"], labels=labels)["Id"]
    labels["azureml-debug.mark"] = identity.process_mark()
    alive = own.client.api.create_container(own.base, ["true"], labels=labels)["Id"]
    try:
        define(tmp_path / "e2e-next", f"./{TINY}\n", f"FROM {own.base}\nRUN true {time.time()}\n")
        assert "reused: False" in finish(start("image", tmp_path / "e2e-next", own.cache, own.base))
        assert own.leftovers() - before == {alive}
    finally:
        for container in (probe, alive):
            with contextlib.suppress(APIError):
                own.client.api.remove_container(container, force=True)


def test_the_engine_that_is_there_answers(own: OwnImages) -> None:
    assert engine_answers()


def test_the_base_image_that_is_taken(own: OwnImages) -> None:
    assert docker_images.resolve_base_image(own.client, None) == BASE_IMAGE
    assert docker_images.resolve_base_image(own.client, "mine:1") == "mine:1"
