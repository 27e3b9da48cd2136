"""Reading what the debuggee announces, and probing ports without connecting to them."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from workflows.debugger.readiness import Events, current_worker, read_events
from workflows.engines import ports
from workflows.errors import UserError


def test_a_line_that_is_being_written_is_read_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    events = Events(path)
    assert events.read() == []
    path.write_bytes(b'{"event": "worker", "pid": 7}\n{"event": "loa')
    assert [event["event"] for event in events.read()] == ["worker"]
    with path.open("ab") as file:
        file.write(b'ded"}\n')
    assert [event["event"] for event in events.read()] == ["loaded"]
    assert events.read() == []


def test_lines_that_are_no_events_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'\xff\xfe\n[1]\n{"event": 3}\nnull\n{"event": "worker", "pid": 9}\n')
    assert [event["event"] for event in read_events(path)] == ["worker"]
    assert current_worker(path) == 9
    assert current_worker(tmp_path / "none") == 0


def test_a_port_in_use_is_named_with_its_holder_and_another_is_offered() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        assert not ports.is_free(port)
        with pytest.raises(UserError) as found:
            ports.choose_port("scoring_port", port, frozenset(), lambda port: None)
        assert f"Port {port} is held by" in found.value.problem
        assert "AML_SCORING_PORT=0" in found.value.remedy
        chosen, note = ports.choose_port("scoring_port", port, frozenset(), lambda port: ("the container x", True))
        assert chosen > port and str(port) in note


def test_a_listener_on_every_address_holds_the_port_too() -> None:
    with socket.socket() as server:
        server.bind(("0.0.0.0", 0))
        server.listen()
        assert not ports.is_free(server.getsockname()[1])


def test_zero_means_a_free_port_that_the_service_does_not_use_already() -> None:
    first, note = ports.choose_port("scoring_port", 0, frozenset(), lambda port: None)
    assert note == "" and ports.is_free(first)
    second, _ = ports.choose_port("debug_port", first, frozenset((first,)), lambda port: None)
    assert second != first
