"""What is asked of the engine without the SDK: the SDK's answers and the SDK's errors, and a run that needs no more."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from docker.errors import APIError, ImageNotFound, NotFound
from projects import ROOT
from requests.exceptions import RequestException

from workflows.engines.docker_api import DockerApi
from workflows.engines.docker_client import connect, socket_path
from workflows.engines.docker_sdk import make_client
from workflows.environments.base_image import BASE_IMAGE

pytestmark = pytest.mark.usefixtures("docker_engine")
#: A step that starts, is waited for, and whose run is ended, in a process of its own.
STEP = """
import sys, time
from pathlib import Path
from workflows import engines
from workflows.engines.step_variables import step_variables
from workflows.engines.steps import StepSpec
from workflows.models import ImageRef

folder, image = Path(sys.argv[1]), sys.argv[2]
code = folder / "code"
code.mkdir()
made = {"project": folder, "folder": folder / "step", "run_id": sys.argv[3], "step": "train"}
spec = StepSpec(**made, image=ImageRef("docker", "", image), code=code)
steps = engines.load_steps("docker")
view = steps.prepare_view(spec)
process = steps.start_step(spec, "exit 3", step_variables(spec, {}, view.paths))
while process.poll() is None:
    time.sleep(0.01)
assert process.poll() == 3, process.poll()
assert not steps.end_run(spec.run_id)
print(*(name for name in ("docker", "requests", "yaml", "ssl") if name in sys.modules))
"""

Api = Any


@pytest.fixture
def sdk() -> Iterator[Api]:
    path = socket_path()
    if path is None:
        pytest.skip("the engine is not behind a Unix socket")
    with contextlib.closing(make_client(f"unix://{path}")) as client:
        yield client.api


@pytest.fixture
def plain(sdk: Api) -> Api:
    def load() -> Any:
        raise AssertionError("the SDK was asked for")

    return DockerApi(str(socket_path()), load)


@pytest.fixture
def name() -> str:
    return f"azureml-debug-e2e-{uuid.uuid4().hex[:12]}"


def make(api: Api, name: str, folder: Path, *command: str) -> str:
    """A container with everything that a step's has."""
    made = api.create_container(
        BASE_IMAGE,
        entrypoint=["/bin/sh", "-c"],
        command=list(command) or ["sleep 600"],
        environment={"WORDS": "a = b, ü", "EMPTY": ""},
        labels={"azureml-debug.run": name},
        name=name,
        user=f"{os.getuid()}:{os.getgid()}",
        ports=[(5678, "tcp")],
        working_dir="/work",
        host_config={
            "Mounts": [{"Type": "bind", "Source": str(folder), "Target": "/work", "ReadOnly": True}],
            "NetworkMode": "bridge",
            "PortBindings": {"5678/tcp": [{"HostIp": "127.0.0.1", "HostPort": "0"}]},
            "ShmSize": 2**26,
            "Init": True,
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "1"}},
        },
    )
    return str(made["Id"])


@pytest.fixture
def made(sdk: Api, name: str, tmp_path: Path) -> Iterator[Callable[..., str]]:
    yield lambda api, *command: make(api, name, tmp_path, *command)
    with contextlib.suppress(NotFound):
        sdk.remove_container(name, force=True)


def test_a_container_is_made_as_the_sdk_makes_it(
    sdk: Api, plain: Api, made: Callable[..., str], name: str, tmp_path: Path
) -> None:
    found = []
    for api in (sdk, plain):
        container = made(api)
        one = api.inspect_container(container)
        config = {key: value for key, value in one["Config"].items() if key not in ("Hostname", "Domainname")}
        # A step's output is its log's; whether somebody would have liked to see it says nothing.
        found.append(({key: value for key, value in config.items() if not key.startswith("Attach")}, one["HostConfig"]))
        api.remove_container(container, force=True)
    assert found[0] == found[1]
    assert found[1][0]["Env"][:2] == ["WORDS=a = b, ü", "EMPTY="]


def test_the_proxies_of_config_json_are_a_containers(
    made: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text('{"proxies": {"default": {"httpProxy": "http://proxy.example:3128"}}}')
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with contextlib.closing(connect()) as client:
        container = client.api.inspect_container(made(client.api))
    assert "HTTP_PROXY=http://proxy.example:3128" in container["Config"]["Env"]


def test_answers_are_those_of_the_sdk(sdk: Api, plain: Api, made: Callable[..., str], name: str) -> None:
    container = made(plain)
    assert plain.inspect_image(BASE_IMAGE) == sdk.inspect_image(BASE_IMAGE)
    assert {image["Id"] for image in plain.images()} >= {sdk.inspect_image(BASE_IMAGE)["Id"]}
    assert plain.networks(names=["bridge"], filters={"driver": ["bridge"]}) == sdk.networks(
        names=["bridge"], filters={"driver": ["bridge"]}
    )
    assert plain.info()["ID"] == sdk.info()["ID"]
    label = {"label": f"azureml-debug.run={name}"}
    assert plain.containers(filters=label) == sdk.containers(filters=label) == []
    assert [one["Id"] for one in plain.containers(all=True, filters=label)] == [container]
    assert plain.has_path(container, "/work") and sdk.has_path(container, "/work")
    assert not plain.has_path(container, "/work/no such") and not sdk.has_path(container, "/work/no such")


def test_a_container_lives_and_ends(plain: Api, made: Callable[..., str], name: str) -> None:
    container = made(plain, "trap 'exit 7' TERM; while :; do sleep 0.1; done")
    plain.start(container)
    assert plain.inspect_container(name)["State"]["Running"]
    with pytest.raises(RequestException):
        plain.wait(container, timeout=0.2)
    plain.kill(container, signal="SIGTERM")
    assert plain.wait(container)["StatusCode"] == 7
    plain.remove_container(container)
    with pytest.raises(NotFound):
        plain.inspect_container(container)


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda api, _made: api.inspect_image("azureml-debug/no-such:1"), id="no such image"),
        pytest.param(lambda api, _made: api.create_container("azureml-debug/no-such:1"), id="made of none"),
        pytest.param(lambda api, _made: api.inspect_container("no such"), id="no such container"),
        pytest.param(lambda api, _made: api.has_path("no-such", "/"), id="looked for in none"),
        pytest.param(lambda api, _made: api.start("no-such"), id="none started"),
        pytest.param(lambda api, _made: api.remove_container("no-such"), id="none removed"),
        pytest.param(lambda api, made: api.kill(made(api)), id="does not run"),
        pytest.param(lambda api, made: (made(api), made(api)), id="name taken"),
        pytest.param(lambda api, _made: api.networks(filters={"no such": ["1"]}), id="no such filter"),
    ],
)
def test_what_the_engine_refuses_is_the_sdks_error(
    sdk: Api, plain: Api, made: Callable[..., str], name: str, ask: Callable[..., Any]
) -> None:
    raised = list[tuple[type[Exception] | None, int | None, str]]()
    for api in (sdk, plain):
        try:
            answer = ask(api, made)
        except APIError as error:
            text = str(error.explanation)
            for container in sdk.containers(all=True, filters={"label": f"azureml-debug.run={name}"}):
                text = text.replace(container["Id"], "ID")
                sdk.remove_container(container["Id"], force=True)
            raised.append((type(error), error.status_code, text))
        else:
            raised.append((None, 0, repr(answer)))
    assert raised[0] == raised[1]
    assert raised[1][0] in (APIError, NotFound, ImageNotFound, None)


def test_an_engine_that_goes_away_is_an_error_of_the_connection(tmp_path: Path) -> None:
    path = tmp_path / "s"
    api: Api = DockerApi(str(path), connect)
    with pytest.raises(RequestException):
        api.info()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(1)

        def break_off() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                # As an engine's that is ended while it is waited for a container.
                connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n")

        thread = threading.Thread(target=break_off)
        thread.start()
        with pytest.raises(RequestException):
            api.wait("0123")
        thread.join()


def test_a_step_is_run_without_the_sdk(docker_engine: None, name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", STEP, str(tmp_path), BASE_IMAGE, name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
