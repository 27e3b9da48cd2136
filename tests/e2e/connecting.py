"""Connections from the laptop of `hosts`, by its settings and its SSH configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from host import Host
from hosts import Hosts

from workflows.remote import address
from workflows.remote.session import Session
from workflows.settings import resolve

Connect = Callable[..., Session]


@pytest.fixture
def connect(tmp_path: Path, hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Connects to a host, the instance unless another is given; settings of no value are left out."""
    monkeypatch.setenv("HOME", str(hosts.laptop.home))
    monkeypatch.setenv("SSH_AUTH_SOCK", "")

    def connect(host: Host = hosts.instance, **more: str) -> Session:
        wanted = {**hosts.laptop.environment(host), **more}
        settings = resolve(tmp_path, environ={name: value for name, value in wanted.items() if value})
        return Session.open(address.resolve(settings), {})

    return connect
