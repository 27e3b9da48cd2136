"""Dockerfiles of people's own that want more than the classic builder has."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from conftest import missing
from image_builds import TINY, OwnImages, command_lines, define, finish, gone, read_until, silent, start

from workflows.engines import docker_buildkit, docker_built_images, docker_images
from workflows.engines.docker_contexts import build_context_image
from workflows.errors import UserError
from workflows.models import ImageRef


@pytest.fixture(autouse=True)
def cache_of_its_own(own: OwnImages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(own.cache))


@pytest.fixture
def buildkit(own: OwnImages) -> None:
    if docker_buildkit.find_docker_command() is None:
        missing("no docker command here has BuildKit")


@pytest.fixture
def no_buildkit(own: OwnImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a docker command, which the engine's API does not need."""
    monkeypatch.setenv("PATH", str(tmp_path))


def context(folder: Path, dockerfile: str) -> ImageRef:
    folder.mkdir(exist_ok=True)
    (folder / "Dockerfile").write_text(dockerfile)
    (folder / "tool").write_text("#!/bin/sh\necho it runs\n")
    return build_context_image(folder, "Dockerfile", silent, file=folder.parent / "pipeline.yml", line=3)


FORMS = {
    "platform": "FROM --platform=linux/amd64 {base}\n",
    "argument": "ARG NAME={base}\nFROM ${NAME:-none} AS one\nRUN true {unique}\nFROM one\n",
    "escape": "# escape=`\nFROM `\n  # the base\n  {base}\n",
    "stages": "FROM {base} AS One\nRUN echo 1 >/one\nFROM {base}\nCOPY --from=one /one /one\n",
    "windows": "FROM {base}\r\nRUN echo \\\r\n  1\r\n",
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_forms_of_from_are_built_as_they_are(own: OwnImages, tmp_path: Path, form: str) -> None:
    text = (
        form.replace("{base}", own.base).replace("{unique}", str(time.time()))
        + f"COPY tool /tool\nENV OWN={time.time()}\n"
    )
    assert own.run(context(tmp_path / "e2e-forms", text).name, "sh /tool") == "it runs\n"


def test_an_image_by_its_digest_is_a_base(own: OwnImages, tmp_path: Path) -> None:
    number = docker_images.inspect(own.client, own.base)["Id"]
    made = context(tmp_path / "e2e-digest", f"FROM {number}\nENV OWN={time.time()}\n")
    assert own.run(made.name, "echo $OWN").strip()


PARTS = {
    "RUN --mount": "RUN --mount=type=cache,target=/cache echo it >/cache/it && cp /cache/it /it\n",
    "COPY --chmod": "COPY --chmod=755 tool /it\n",
    "ARG TARGETARCH": 'ARG TARGETARCH\nRUN test -n "$TARGETARCH" && echo "$TARGETARCH" >/it\n',
}


@pytest.mark.parametrize("part", PARTS)
def test_what_only_buildkit_knows_is_built_with_it(buildkit: None, own: OwnImages, tmp_path: Path, part: str) -> None:
    text = f"FROM {own.base}\nRUN echo {time.time()} >/own\n{PARTS[part]}"
    made = context(tmp_path / "e2e-buildkit", text)
    assert own.run(made.name, "cat /it")
    assert context(tmp_path / "e2e-buildkit", text).reused
    labels = docker_images.inspect(own.client, made.name)["Config"]["Labels"]
    assert labels[docker_images.DIGEST] == made.digest


@pytest.mark.parametrize("part", PARTS)
def test_without_buildkit_the_instruction_is_named(
    no_buildkit: None, own: OwnImages, tmp_path: Path, part: str
) -> None:
    with pytest.raises(UserError, match="needs BuildKit") as refused:
        context(tmp_path / "e2e-buildkit", f"FROM {own.base}\n\n{PARTS[part]}")
    assert f"`{part}` in Dockerfile" in refused.value.problem and "buildx" in refused.value.remedy
    assert refused.value.file == tmp_path / "e2e-buildkit" / "Dockerfile" and refused.value.line == 3


def test_a_dockerfile_of_an_environment_is_built_with_buildkit_on_the_base_image(
    buildkit: None, own: OwnImages, tmp_path: Path
) -> None:
    dockerfile = (
        "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nCOPY .azureml-debug /tmp/it\n"
        "RUN --mount=type=tmpfs,target=/t sh /tmp/it/install.sh /opt/env\n"
    )
    lines: list[str] = []
    definition = define(tmp_path / "e2e-own", f"./{TINY}\n", dockerfile)
    made = docker_built_images.build_image(own.client, definition, own.base, own.cache, lines.append)
    assert own.run(made.name, "/opt/env/bin/python -c 'import tiny_local; print(tiny_local.answer)'") == "42\n"
    assert any(line.startswith("Step ") and "RUN --mount" in line for line in lines), lines


def test_a_step_that_fails_with_buildkit_is_named_with_what_it_said(
    buildkit: None, own: OwnImages, tmp_path: Path
) -> None:
    text = f"FROM {own.base}\nRUN --mount=type=tmpfs,target=/t echo the reason {time.time()}; exit 3\n"
    with pytest.raises(UserError, match=r"failed at `RUN --mount.*: .*exit code: 3") as refused:
        context(tmp_path / "e2e-failing", text)
    assert any("the reason" in line for line in refused.value.details)


def test_a_base_image_that_buildkit_cannot_have_is_named(buildkit: None, own: OwnImages, tmp_path: Path) -> None:
    dockerfile = "FROM 127.0.0.1:1/no-such:1\nRUN --mount=type=tmpfs,target=/t true\n"
    definition = define(tmp_path / "e2e-baseless", f"./{TINY}\n", dockerfile)
    with pytest.raises(UserError, match=r"127.0.0.1:1/no-such:1 is not here and cannot be pulled: connection refused"):
        docker_built_images.build_image(own.client, definition, own.base, own.cache, silent)


def test_an_instruction_that_the_engines_buildkit_does_not_know_is_named(
    buildkit: None, own: OwnImages, tmp_path: Path
) -> None:
    text = f"FROM {own.base}\nRUN <<EOF\necho it >/it\nEOF\n"
    try:
        made = context(tmp_path / "e2e-heredoc", text)
    except UserError as error:
        # Engines before 23 have it in a frontend that is pulled.
        assert "`RUN <<EOF`" in error.remedy and "# syntax=docker/dockerfile:1" in error.remedy
        assert error.line == 2
    else:
        assert own.run(made.name, "cat /it") == "it\n"


def test_a_credential_helper_that_is_not_installed_does_not_stop_buildkit(
    buildkit: None, own: OwnImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "settings"
    (folder / "contexts").mkdir(parents=True)
    text = json.dumps({"credsStore": "not-there", "credHelpers": {"x.invalid": "nor-this"}, "detachKeys": "ctrl-x"})
    (folder / "config.json").write_text(text)
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    made = context(tmp_path / "e2e-helper", f"FROM {own.base}\nRUN --mount=type=tmpfs,target=/t echo {time.time()}\n")
    assert own.run(made.name, "echo it") == "it\n"
    assert (folder / "config.json").read_text() == text


def test_a_build_with_buildkit_that_is_interrupted_leaves_nothing(
    buildkit: None, own: OwnImages, tmp_path: Path
) -> None:
    mark = f"sleep 31.{time.time_ns() % 10**6}"
    folder = tmp_path / "e2e-ended"
    dockerfile = f"FROM {own.base}\nRUN --mount=type=tmpfs,target=/t {mark}\n"
    definition = define(folder, f"./{TINY}\n", dockerfile)
    process = start("image", folder, own.cache, own.base)
    read_until(process, "RUN --mount")
    process.send_signal(signal.SIGINT)
    finish(process, None)
    assert gone(lambda: [line for line in command_lines(mark) if line.startswith(("sleep ", "/bin/sh "))], 20)
    assert gone(lambda: command_lines("build --progress=plain --tag azureml-debug/e2e-ended"))
    assert docker_images.find_image(own.client, definition, own.base) is None


def test_of_several_docker_commands_the_first_that_has_buildkit_is_taken(
    buildkit: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = docker_buildkit.find_docker_command()
    first = tmp_path / "docker"
    first.write_text("#!/bin/sh\n[ \"$1\" = --version ] && echo 'Docker version 28.2.2, build 0' && exit\nexit 1\n")
    first.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert shutil.which("docker") == str(first)
    assert docker_buildkit.find_docker_command() == real
