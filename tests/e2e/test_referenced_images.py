"""Images that a step's environment names: built, used as they are, refused."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from referenced_environments import reference

from workflows import engines
from workflows.environments.base_image import BASE_IMAGE
from workflows.environments.references import ResolvedEnvironment, resolve_environment
from workflows.errors import UserError
from workflows.models import ImageRef
from workflows.settings import Settings

if TYPE_CHECKING:
    import docker


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
    base = f"azureml-debug-contract/own:{os.getpid()}"
    subprocess.run(["docker", "build", "-q", "-t", base, str(own)], check=True, capture_output=True)
    built.append(ImageRef("docker", "", base))
    found = resolve_environment(reference(settings.project, image=base, conda_file=conda_file), settings, "docker")
    image = build(found)
    built.insert(0, image)
    assert in_image(image, "python", "-c", "import os, six; print(os.environ['OWN'])") == "yes"
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
