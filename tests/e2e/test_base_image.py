"""The base image, made by mmdebstrap: ended half way, and where its packages cannot be had."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import psutil
import pytest
from image_builds import OwnImages, finish, gone, read_until, silent, start

from workflows.engines import docker_base, docker_images
from workflows.environments import apt_sources
from workflows.errors import UserError


def test_a_base_image_that_is_ended_half_way(own: OwnImages, tmp_path: Path) -> None:
    name = "azureml-debug/e2e-base:1"
    process = start("base", name, tmp_path)
    read_until(process, "running apt-get update")
    time.sleep(0.5)
    started = psutil.Process(process.pid).children(recursive=True)
    assert any("--format=tar" in one.cmdline() for one in started)
    process.send_signal(signal.SIGINT)
    out = finish(process, None)
    assert gone(lambda: [one for one in started if one.is_running() and one.status() != psutil.STATUS_ZOMBIE])
    used = [line.rpartition(" ")[2] for line in out.splitlines() if "as tempdir" in line]
    assert not any(Path(folder).exists() for folder in used)
    assert docker_images.tagged_image(own.client, name) is None


def test_a_base_image_whose_packages_cannot_be_had(
    own: OwnImages, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stanza = f"Types: deb\nURIs: file://{tmp_path}/gone\nSuites: bookworm\nComponents: main\n"
    monkeypatch.setattr(apt_sources, "archive_sources", lambda *arguments: [stanza])
    with pytest.raises(UserError, match="mmdebstrap failed: ") as caught:
        docker_base.make_base_image(own.client, "azureml-debug/e2e-base:1", silent)
    assert caught.value.details
    assert docker_images.tagged_image(own.client, "azureml-debug/e2e-base:1") is None
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="mmdebstrap is not installed"):
        docker_base.make_base_image(own.client, "azureml-debug/e2e-base:1", silent)
