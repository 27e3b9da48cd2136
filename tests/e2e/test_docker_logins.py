"""Credential helpers that config.json names: what needs no credentials needs no helper either."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from image_builds import TINY, OwnImages, define, silent

from workflows.engines import docker_built_images, docker_credentials, docker_packages
from workflows.engines.docker_client import connect
from workflows.engines.docker_contexts import build_context_image, image_by_name
from workflows.environments.base_image import BASE_IMAGE
from workflows.errors import UserError


class Registry:
    """A registry that lets nobody in, and what it was sent to be let in with."""

    def __init__(self) -> None:
        self.logins: list[str] = []
        logins = self.logins

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                kind, _, login = self.headers.get("Authorization", "").partition(" ")
                if kind == "Basic":
                    logins.append(base64.b64decode(login).decode())
                body = b'{"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}'
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="registry"')
                self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body if self.command == "GET" else b"")

            do_HEAD = do_GET

            def log_message(self, format: str, *arguments: object) -> None:
                """Said nowhere."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_port}"
        self.image = f"{self.host}/private/image:1"


@pytest.fixture
def registry() -> Iterator[Registry]:
    made = Registry()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


@pytest.fixture
def config(docker_engine: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The person's config.json, empty at first; `helpers` beside it is on PATH."""
    folder = tmp_path / "docker settings"
    (folder / "helpers").mkdir(parents=True)
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    monkeypatch.setenv("PATH", f"{folder / 'helpers'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder / "config.json"


def helper(config: Path, name: str, script: str) -> None:
    path = config.parent / "helpers" / f"docker-credential-{name}"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


SETTINGS = {
    "credsStore": {"credsStore": "not-there"},
    "credHelpers": {"credHelpers": {"127.0.0.1:5000": "not-there", "registry.invalid": "not-there"}},
    "both": {"credsStore": "not-there", "credHelpers": {"registry.invalid": "neither"}, "auths": {"other.invalid": {}}},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_an_image_is_built_and_an_image_asked_for_without_the_helper(
    config: Path, tmp_path: Path, settings: dict[str, object], registry: Registry, own: OwnImages
) -> None:
    config.write_text(json.dumps(settings))
    with contextlib.closing(connect()) as client:
        dockerfile = f"FROM {own.base}\nRUN echo {time.time()} >/own\n"
        made = docker_built_images.build_image(
            client, define(tmp_path / "e2e-login", f"./{TINY}\n", dockerfile), own.base, own.cache, silent
        )
        client.api.remove_image(made.name, force=True)
        folder = tmp_path / "context"
        folder.mkdir()
        (folder / "Dockerfile").write_text(dockerfile)
        made = build_context_image(folder, "Dockerfile", silent, file=tmp_path / "pipeline.yml", line=1)
        client.api.remove_image(made.name, force=True)


@pytest.mark.parametrize("setting", ["credsStore", "credHelpers"])
@pytest.mark.parametrize("way", ["pipeline", "package", "base", "build"])
def test_where_credentials_are_needed_config_json_and_the_helper_are_named(
    config: Path, registry: Registry, tmp_path: Path, setting: str, way: str
) -> None:
    named = "not-there" if setting == "credsStore" else {registry.host: "not-there"}
    config.write_text(json.dumps({setting: named}))
    with contextlib.closing(connect()) as client, pytest.raises(UserError) as refused:
        if way == "pipeline":
            image_by_name(registry.image, silent, file=tmp_path / "pipeline.yml", line=3)
        elif way == "package":
            docker_packages.pull_image(client, registry.image, None, silent)
        elif way == "base":
            definition = define(tmp_path / "e2e-login", f"./{TINY}\n")
            docker_built_images.build_image(client, definition, registry.image, tmp_path / "cache", silent)
        else:
            folder = tmp_path / "context"
            folder.mkdir()
            (folder / "Dockerfile").write_text(f"FROM {registry.image}\n")
            build_context_image(folder, "Dockerfile", silent, file=tmp_path / "pipeline.yml", line=3)
    problem, remedy = refused.value.problem, refused.value.remedy
    assert registry.image in problem and "docker-credential-not-there" in problem and "is not installed" in problem
    assert str(config) in problem and f"`{setting}`" in remedy and f"`docker login {registry.host}`" in remedy


def test_a_helper_that_fails_is_named_with_what_it_says(config: Path, registry: Registry, tmp_path: Path) -> None:
    helper(config, "locked", "echo the key ring is locked; exit 1")
    config.write_text('{"credsStore": "locked"}')
    with pytest.raises(UserError, match=r"docker-credential-locked, which .* fails: the key ring is locked"):
        image_by_name(registry.image, silent, file=tmp_path / "pipeline.yml", line=3)


def test_a_helper_that_works_is_used_beside_one_that_does_not(config: Path, registry: Registry, tmp_path: Path) -> None:
    helper(config, "works", """cat >/dev/null; echo '{"Username": "me", "Secret": "it"}'""")
    config.write_text(json.dumps({"credsStore": "not-there", "credHelpers": {registry.host: "works"}}))
    with pytest.raises(UserError) as refused:
        image_by_name(registry.image, silent, file=tmp_path / "pipeline.yml", line=3)
    assert registry.logins and set(registry.logins) == {"me:it"}
    # It was refused with them, which no helper can help.
    assert "docker-credential" not in refused.value.problem


@pytest.mark.parametrize("text", ["", "{", "[]", '{"auths": {"registry.invalid": {"auth": "%%%"}}}'])
def test_a_config_json_that_cannot_be_read_is_passed_over_or_named(config: Path, text: str) -> None:
    config.write_text(text)
    try:
        with contextlib.closing(connect()) as client:
            assert client.containers.list() is not None
    except UserError as error:
        assert str(config) in error.problem


@pytest.mark.parametrize(
    ("image", "host"),
    [
        ("python:3.11", "https://index.docker.io/v1/"),
        ("person/image", "https://index.docker.io/v1/"),
        ("docker.io/person/image", "https://index.docker.io/v1/"),
        ("localhost/image", "localhost"),
        ("registry.example/image:1", "registry.example"),
        ("registry.example:5000/a/b@sha256:0", "registry.example:5000"),
    ],
)
def test_the_registry_of_a_name_is_the_one_that_docker_asks(image: str, host: str) -> None:
    assert docker_credentials.registry_of(image) == host


def test_docker_itself_builds_without_the_helper_too(config: Path, tmp_path: Path) -> None:
    config.write_text('{"credsStore": "not-there"}')
    (tmp_path / "Dockerfile").write_text(f"FROM {BASE_IMAGE}\nLABEL made={time.time()}\n")
    command = ["docker", "build", "--quiet", str(tmp_path)]
    environ = {**os.environ, "DOCKER_BUILDKIT": "0"}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=100)
    assert done.returncode == 0, done.stderr
    subprocess.run(["docker", "rmi", done.stdout.strip()], check=True, capture_output=True)
