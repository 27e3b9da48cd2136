"""The contract of an engine: the same tests run against every implementation."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from projects import PLAIN, ROOT, listeners, post, until

from workflows import engines
from workflows.debugger.readiness import current_worker, read_events
from workflows.engines.base import Engine
from workflows.engines.ports import find_free_port
from workflows.environments.definition import EnvironmentDefinition, load_definition
from workflows.models import ImageRef, ServiceSpec

TAG = "azureml-debug-contract:1"


@pytest.fixture
def definition() -> EnvironmentDefinition:
    inference = ROOT / "env" / "inference"
    return load_definition(inference, required=["debugpy"], default_dockerfile=inference / "Dockerfile")


@pytest.fixture
def made(engine: str) -> Engine:
    return engines.load(engine)


@pytest.fixture
def spec(tmp_path: Path, made: Engine, definition: EnvironmentDefinition) -> Iterator[ServiceSpec]:
    folder = tmp_path / "a folder"
    (folder / "session" / "announce").mkdir(parents=True)
    (folder / "score.py").write_text(PLAIN)
    image = made.build(definition, None, lambda line: None)
    made.tag(image, TAG, folder)
    yield ServiceSpec(
        project=folder,
        session=folder / "session",
        name=f"contract-{time.time_ns()}",
        tag=TAG,
        image=image,
        score_script=folder / "score.py",
        source=folder,
        model_dir=None,
        runit=ROOT / "env" / "inference" / "runit",
        scoring_port=find_free_port(frozenset()),
        debug_port=find_free_port(frozenset()),
        wait=False,
        debug_timeout=5,
    )
    for handle in made.list_leftovers(folder):
        made.remove(handle)


def kinds(spec: ServiceSpec) -> list[str]:
    return [event["event"] for event in read_events(spec.session / "announce" / "events.jsonl")]


def test_an_environment_is_built_once_found_and_tagged(
    made: Engine, definition: EnvironmentDefinition, spec: ServiceSpec
) -> None:
    again = made.build(definition, None, lambda line: pytest.fail(f"built again: {line}"))
    assert again.reused and again.digest == spec.image.digest
    found = made.find(definition, None)
    assert isinstance(found, ImageRef) and found.digest == spec.image.digest
    tagged = made.find_tagged(TAG, spec.project)
    assert tagged is not None and tagged.digest == spec.image.digest
    assert made.find_tagged("azureml-debug-contract:none", spec.project) is None


def test_a_service_is_made_started_asked_replaced_and_ended_and_nothing_is_left(
    made: Engine, spec: ServiceSpec
) -> None:
    service = made.create(spec)
    assert made.is_alive(service) and kinds(spec) == []
    service = made.start(service)
    until(lambda: "loaded" in kinds(spec), "loading")
    assert made.is_alive(service)
    assert post(service.scoring_url) == {"answer": 60}
    assert until(lambda: b"POST /score 200" in b"".join(made.logs(service, follow=False)), "the request's log line")
    # A worker is replaced by another that has the new code.
    first = current_worker(service.events)
    spec.score_script.write_text(PLAIN.replace("model = 10", "model = 50"))
    service = made.restart_worker(service, first)
    until(lambda: kinds(spec).count("loaded") == 2, "loading again")
    assert current_worker(service.events) != first
    assert post(service.scoring_url) == {"answer": 300}
    pieces = made.logs(service, follow=True)
    assert next(pieces)
    ended = made.stop(service)
    # Logs end with the service.
    for _ in pieces:
        pass
    assert b"POST /score 200" in ended.log
    assert ended.exit_code is not None and ended.exit_code != 137
    assert not made.is_alive(service)
    assert made.list_leftovers(spec.project) == []
    assert not listeners(spec.scoring_port) and not listeners(spec.debug_port)
    # Once more does no harm.
    made.stop(service)


@pytest.mark.parametrize("engine", ["docker"], indirect=True)
def test_a_container_has_its_own_image_though_another_project_has_taken_the_tag_meanwhile(
    made: Engine, spec: ServiceSpec
) -> None:
    import docker

    tag = "azureml-debug-contract:taken"
    with contextlib.closing(docker.from_env()) as client:
        own, other = (client.images.get(name).id for name in (spec.image.name, "azureml-debug/base"))
        made.tag(replace(spec.image, name="azureml-debug/base"), tag, spec.project)
        try:
            service = made.create(replace(spec, tag=tag))
            assert client.containers.get(service.handle).attrs["Image"] == own != other
            made.stop(service)
        finally:
            client.images.remove(tag)
    assert made.list_leftovers(spec.project) == []


def test_what_no_file_tells_of_is_found_and_removed(made: Engine, spec: ServiceSpec) -> None:
    service = made.start(made.create(spec))
    until(lambda: "worker" in kinds(spec), "a worker")
    (handle, *_others) = made.list_leftovers(spec.project)
    made.remove(handle)
    until(lambda: made.list_leftovers(spec.project) == [], "the end")
    assert not made.is_alive(service)


# For images the same is tried in test_deploy_bad_input.
@pytest.mark.parametrize("engine", ["process"], indirect=True)
def test_a_run_script_that_cannot_start_announces_its_end(made: Engine, spec: ServiceSpec, tmp_path: Path) -> None:
    broken = tmp_path / "runit"
    shutil.copytree(spec.runit, broken)
    (broken / "gunicorn" / "run").write_text("#!/bin/sh\nexit 126\n")
    service = made.start(made.create(replace(spec, runit=broken)))
    until(lambda: "exited" in kinds(spec), "the end of the service")
    made.stop(service)
