"""What a step's environment becomes on each engine, what people are told of it, and what is refused."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from workflows import engines
from workflows.environments.base import BASE_IMAGE
from workflows.environments.definition import load_definition
from workflows.environments.references import ResolvedEnvironment, debugpy_folder, resolve_environment
from workflows.errors import UserError
from workflows.models import ImageRef
from workflows.paths import cache_folder
from workflows.pipelines.definition import EnvironmentReference
from workflows.settings import Settings, resolve

if TYPE_CHECKING:
    import docker

ROOT = Path(__file__).resolve().parents[2]
CONDA = "name: mine\nchannels: [conda-forge]\ndependencies:\n  - python>=3.10\n  - pip:\n      - -r requirements.txt\n"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    project = tmp_path / "a project"
    project.mkdir()
    return resolve(project, flags={}, environ={"AML_TRAINING_ENV": str(ROOT / "env" / "training")}, cwd=project)


def reference(folder: Path, **fields: Any) -> EnvironmentReference:
    return EnvironmentReference(folder / "pipeline.yml", 7, **fields)


@pytest.fixture
def conda_file(tmp_path: Path) -> Path:
    folder = tmp_path / "a project" / "with the code"
    folder.mkdir(parents=True)
    (folder / "conda.yml").write_text(CONDA)
    (folder / "requirements.txt").write_text("six\n")
    (folder / "train.py").write_text("print()\n")
    return folder / "conda.yml"


def names(resolved: ResolvedEnvironment) -> list[str]:
    assert resolved.definition is not None
    return [item.name for item in resolved.definition.pip]


@pytest.mark.parametrize("engine", ["docker", "process"])
def test_without_a_word_the_training_environment_is_used_without_a_note(settings: Settings, engine: str) -> None:
    found = resolve_environment(None, settings, engine)
    assert found.definition is not None and found.definition.name == "training"
    assert found.notes == () and "debugpy" in names(found)


@pytest.mark.parametrize("engine", ["docker", "process"])
def test_a_registered_name_becomes_the_training_environment_and_a_note(settings: Settings, engine: str) -> None:
    named = reference(settings.project, name="azureml:AzureML-sklearn-1.0@latest")
    found = resolve_environment(named, settings, engine)
    (note,) = found.notes
    assert note.startswith("environment azureml:AzureML-sklearn-1.0@latest is not on this machine: ")
    assert note.endswith("env/training (for packages, make one in your project) is used")
    assert found.key == resolve_environment(None, settings, engine).key


def test_a_conda_file_is_all_of_the_definition_and_what_lies_beside_it_is_not(
    settings: Settings, conda_file: Path
) -> None:
    asked = reference(settings.project, image="some/image:1", conda_file=conda_file)
    found = resolve_environment(asked, settings, "docker")
    assert found.definition is not None and found.definition.name == "mine"
    assert (found.base_image, found.notes) == ("some/image:1", ())
    assert names(found) == ["six", "debugpy", "debugpy"]
    assert [str(name) for name, _ in found.definition.files] == ["Dockerfile"]
    before = found.definition.content
    (conda_file.parent / "train.py").write_text("print(2)\n")
    (conda_file.parent / "Dockerfile").write_text("FROM scratch\n")
    again = resolve_environment(asked, settings, "docker")
    assert again.definition is not None and again.definition.content == before
    for changed, text in {"requirements.txt": "six>=1\n", "conda.yml": CONDA + "  - numpy\n"}.items():
        (conda_file.parent / changed).write_text(text)
        edited = resolve_environment(asked, settings, "docker")
        assert edited.definition is not None and edited.definition.content != before
        assert edited.key == found.key
        before = edited.definition.content


def test_one_folder_may_hold_several_conda_files(settings: Settings, conda_file: Path) -> None:
    other = conda_file.with_name("score.yml")
    other.write_text("dependencies: [pip, {pip: [flask]}]\n")
    definition = load_definition(other.parent, conda_file=other, default_dockerfile=ROOT / "env/training/Dockerfile")
    assert (definition.name, [item.name for item in definition.pip]) == ("score", ["flask"])


def test_without_docker_a_conda_file_is_installed_and_the_image_is_told_not_to_be_used(
    settings: Settings, conda_file: Path
) -> None:
    asked = reference(settings.project, image="some/image:1", conda_file=conda_file)
    found = resolve_environment(asked, settings, "process")
    assert found.base_image is None and "six" in names(found)
    (note,) = found.notes
    assert "some/image:1 is not used without Docker" in note and "conda.yml" in note


def test_a_conda_file_written_into_the_pipeline_file_counts_as_one_in_its_folder(
    settings: Settings, tmp_path: Path
) -> None:
    (settings.project / "more.txt").write_text("six\n")
    content = {"name": "inline", "dependencies": ["python>=3.10", "pip", {"pip": ["-r more.txt", "flask>=3"]}]}
    asked = reference(settings.project, image="some/image:1", conda=content)
    found = resolve_environment(asked, settings, "docker")
    assert names(found)[:2] == ["six", "flask"]
    assert found.definition is not None and found.definition.name == "inline"
    assert resolve_environment(asked, settings, "docker").key == found.key
    wrong = reference(settings.project, conda={"dependencies": ["pip", {"pip": ["-r missing.txt"]}]})
    with pytest.raises(UserError, match=r"missing\.txt") as caught:
        resolve_environment(wrong, settings, "docker")
    assert (caught.value.file, caught.value.line) == (settings.project / "pipeline.yml", 7)


def test_what_is_wrong_in_a_conda_file_is_told_with_its_own_line(settings: Settings, conda_file: Path) -> None:
    conda_file.write_text("name: mine\ndependencies:\n  - pip: six\n")
    with pytest.raises(UserError) as caught:
        resolve_environment(reference(settings.project, conda_file=conda_file), settings, "docker")
    assert (caught.value.file, caught.value.line) == (conda_file, 3)


@pytest.mark.parametrize(
    "fields", [{"image": "some/image:1"}, {"build": Path("/a/context"), "dockerfile": "Dockerfile"}]
)
def test_without_docker_an_image_becomes_the_training_environment_and_a_note(
    settings: Settings, fields: dict[str, Any]
) -> None:
    found = resolve_environment(reference(settings.project, **fields), settings, "process")
    (note,) = found.notes
    assert "is not used without Docker: " in note and note.endswith("make one in your project) is used")
    assert found.definition is not None and found.definition.name == "training"


def test_a_debugpy_that_the_conda_file_pins_is_left_as_it_is(settings: Settings, conda_file: Path) -> None:
    (conda_file.parent / "requirements.txt").write_text("debugpy==1.8.5\n")
    found = resolve_environment(reference(settings.project, conda_file=conda_file), settings, "docker")
    assert found.definition is not None and found.definition.added == ()


# With an engine


@pytest.fixture
def built(docker_engine: None) -> Iterator[list[ImageRef]]:
    """Images that a test makes; they are taken away."""
    made: list[ImageRef] = []
    yield made
    for image in {image.name for image in made}:
        subprocess.run(["docker", "rmi", "-f", image], check=True, capture_output=True)


def build(found: ResolvedEnvironment, lines: list[str] | None = None) -> ImageRef:
    return found.build(engines.load("docker"), (lines if lines is not None else []).append)


def in_image(image: ImageRef, *command: str) -> str:
    run = ["docker", "run", "--rm", "--entrypoint", "", image.name, *command]
    return subprocess.run(run, check=True, capture_output=True, text=True).stdout.strip()


def test_a_conda_file_is_installed_on_the_steps_own_image(
    settings: Settings, conda_file: Path, built: list[ImageRef]
) -> None:
    own = settings.project / "own"
    own.mkdir()
    # As many images are: with another user, and an entry point of their own.
    (own / "Dockerfile").write_text(f'FROM {BASE_IMAGE}\nENV OWN=yes\nUSER 1234\nENTRYPOINT ["/bin/false"]\n')
    base = "azureml-debug-contract/own:1"
    subprocess.run(["docker", "build", "-q", "-t", base, str(own)], check=True, capture_output=True)
    built.append(ImageRef("docker", "", base))
    found = resolve_environment(reference(settings.project, image=base, conda_file=conda_file), settings, "docker")
    image = build(found)
    built.insert(0, image)
    assert in_image(image, "python", "-c", "import os, six, debugpy; print(os.environ['OWN'])") == "yes"
    assert build(found).reused


def test_an_image_alone_is_used_as_it_is(settings: Settings, docker_engine: None) -> None:
    image = build(resolve_environment(reference(settings.project, image=BASE_IMAGE), settings, "docker"))
    assert (image.name, image.reused) == (BASE_IMAGE, True) and len(image.digest) == 64


def test_an_image_that_cannot_be_had_is_refused_with_the_place_and_the_reason(
    settings: Settings, docker_engine: None
) -> None:
    found = resolve_environment(reference(settings.project, image="localhost:1/none:1"), settings, "docker")
    with pytest.raises(UserError, match="localhost:1/none:1 is not here and cannot be pulled: connect") as caught:
        build(found)
    assert (caught.value.file, caught.value.line) == (settings.project / "pipeline.yml", 7)


def test_where_no_registry_answers_a_conda_file_is_installed_on_the_local_base_image_and_a_note_says_so(
    settings: Settings, conda_file: Path, built: list[ImageRef]
) -> None:
    asked = reference(settings.project, image="localhost:1/none:1", conda_file=conda_file)
    image = build(resolve_environment(asked, settings, "docker"))
    built.append(image)
    assert "localhost:1/none:1 is not here" in image.notes[0] and "local base image" in image.notes[0]
    assert in_image(image, "python", "-c", "import six; print('here')") == "here"


@pytest.fixture
def context(settings: Settings) -> Path:
    folder = settings.project / "The Context"
    (folder / "docker").mkdir(parents=True)
    (folder / "docker" / "train.Dockerfile").write_text(f"FROM {BASE_IMAGE}\nCOPY . /copied\n")
    (folder / "wanted.txt").write_text("wanted")
    (folder / "secret.txt").write_text("secret")
    (folder / ".dockerignore").write_text("# not these\nsecret*\n")
    return folder


def test_a_build_context_is_built_by_its_content_less_what_it_ignores(
    settings: Settings, context: Path, built: list[ImageRef]
) -> None:
    asked = reference(settings.project, build=context, dockerfile="docker/train.Dockerfile")
    image = build(resolve_environment(asked, settings, "docker"))
    built.append(image)
    assert image.name.startswith("azureml-debug/the-context:") and not image.reused
    assert "wanted.txt" in in_image(image, "ls", "/copied") and "secret" not in in_image(image, "ls", "/copied")
    (context / "secret.txt").write_text("another secret")
    again = build(resolve_environment(asked, settings, "docker"))
    assert again.reused and again.digest == image.digest
    (context / "wanted.txt").write_text("something else")
    edited = build(resolve_environment(asked, settings, "docker"))
    built.append(edited)
    assert not edited.reused and in_image(edited, "cat", "/copied/wanted.txt") == "something else"


def history(client: docker.DockerClient, image: str) -> str:
    """How an image was made; empty for one that another test has just taken away."""
    from docker.errors import APIError

    try:
        return str(client.api.history(image))  # type: ignore[no-untyped-call]
    except APIError:
        return ""


def test_a_build_context_that_fails_is_refused_with_the_place_and_its_last_lines_and_leaves_nothing(
    settings: Settings, context: Path, docker_engine: None
) -> None:
    from workflows.engines.docker_client import connect

    mark = f"mark-{time.time_ns()}"
    (context / "Dockerfile").write_text(f"FROM {BASE_IMAGE}\nRUN echo {mark}\nRUN echo broken; exit 3\n")
    asked = reference(settings.project, build=context, dockerfile="Dockerfile")
    with pytest.raises(UserError, match="failed at `RUN echo broken; exit 3`") as caught:
        build(resolve_environment(asked, settings, "docker"))
    with contextlib.closing(connect()) as client:
        images = [str(image.id) for image in client.images.list(all=True)]
        assert images and not [image for image in images if mark in history(client, image)]
    assert (caught.value.file, caught.value.line) == (settings.project / "pipeline.yml", 7)
    assert "broken" in caught.value.details and str(context / "Dockerfile") in caught.value.remedy


def test_debugpy_for_other_images_is_fetched_once_and_has_nothing_compiled_for_one_python() -> None:
    folder = debugpy_folder(cache_folder())
    assert (folder / "debugpy" / "__init__.py").is_file()
    assert not [path for path in folder.rglob("*.so") if "attach_to_process" not in path.parts[-2]]
    stamp = folder.stat().st_mtime_ns
    assert debugpy_folder(cache_folder()) == folder and folder.stat().st_mtime_ns == stamp
