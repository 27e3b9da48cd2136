"""Addresses of VS Code's remote extensions."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from workflows.engines import docker_address
from workflows.errors import UserError
from workflows.vscode import dev_containers


def _read(address: str) -> tuple[dict[str, object], str, str]:
    authority, slash, folder = address.removeprefix("vscode-remote://").partition("/")
    own, _at, parent = authority.removeprefix("attached-container+").partition("@")
    return json.loads(bytes.fromhex(own)), parent, slash + folder


def test_the_address_names_the_container_as_docker_inspect_does_and_the_folder_in_it() -> None:
    assert _read(dev_containers.container_address("debug", "/var/azureml app")) == (
        {"containerName": "/debug"}, "", "/var/azureml%20app",
    )  # fmt: skip


def test_another_engine_and_another_machine_stand_in_the_address() -> None:
    address = dev_containers.container_address("debug", "/a", {"context": "desktop-linux"}, "ssh-remote+gpu")
    named = {"containerName": "/debug", "settings": {"context": "desktop-linux"}}
    assert _read(address) == (named, "ssh-remote+gpu", "/a")


def test_a_host_of_the_ssh_configuration_keeps_its_name_and_all_else_is_spelled_out() -> None:
    assert dev_containers.ssh_authority("gpu-1", "10.0.0.1", "me", 22, by_name=True) == "ssh-remote+gpu-1"
    spelled = {"hostName": "10.0.0.1", "user": "me", "port": 50000}
    for name, by_name in (("gpu-1", False), ("GPU", True)):
        found = dev_containers.ssh_authority(name, "10.0.0.1", "me", 50000, by_name=by_name)
        assert json.loads(bytes.fromhex(found.removeprefix("ssh-remote+"))) == spelled


def test_the_engine_that_this_program_uses_is_told_where_it_is_not_the_usual(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert docker_address.explicit_engine() == {}
    monkeypatch.setenv("DOCKER_CONTEXT", "colima")
    assert docker_address.explicit_engine() == {"context": "colima"}
    monkeypatch.setenv("DOCKER_HOST", "ssh://me@gpu")
    assert docker_address.explicit_engine() == {"host": "ssh://me@gpu"}


def test_an_editor_that_refuses_ends_in_two_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A stand-in for VS Code's command, which cannot be installed here.
    stand_in = tmp_path / "code"
    stand_in.write_text("#!/bin/sh\necho 'no such option' >&2\nexit 3\n")
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(UserError, match=r"code ended with exit code 3: no such option"):
        dev_containers.open_address("vscode-remote://x/y")
