"""The sessions that agents have: seen by every command, and taken over."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from workflows import process_identity as identity
from workflows.errors import UserError
from workflows.project import read_json, write_json
from workflows.runs import agent_sessions


def announce(project: Path, run_id: str = "sums-1-abcdef", port: int = 5678) -> agent_sessions.AgentSession:
    return agent_sessions.announce(project, "copilot 1", "pipeline", run_id, "train", 3, "127.0.0.1", port)


def test_a_session_is_seen_by_its_run_and_by_its_port_until_it_is_withdrawn(tmp_path: Path) -> None:
    session = announce(tmp_path)
    assert (
        agent_sessions.list_sessions(tmp_path) == agent_sessions.list_sessions(tmp_path, "sums-1-abcdef") == [session]
    )
    assert (
        agent_sessions.list_sessions(tmp_path, "") == [] and agent_sessions.session_at_port(tmp_path, 5678) == session
    )
    assert "An agent (copilot 1) is attached to train, rank 3 since " in session.description("inv x")
    assert session.as_json()["pid"] == os.getpid()
    agent_sessions.withdraw(session)
    assert agent_sessions.list_sessions(tmp_path) == [] and agent_sessions.session_at_port(tmp_path, 5678) is None


def test_what_a_killed_server_has_left_is_taken_away(tmp_path: Path) -> None:
    session = announce(tmp_path)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    known = identity.identify(child.pid)
    child.communicate(b"\n", timeout=60)
    write_json(session.path, {**(read_json(session.path) or {}), "server": known})
    damaged = session.path.with_name("damaged.json")
    damaged.write_text('{"client": 1}')
    assert agent_sessions.list_sessions(tmp_path) == [] and not session.path.exists() and damaged.exists()


def test_taking_over_asks_the_server_and_waits_until_it_has_ended(tmp_path: Path) -> None:
    session = announce(tmp_path)

    def serve() -> None:
        while not agent_sessions.is_takeover_requested(session):
            time.sleep(0.01)
        agent_sessions.withdraw(session)

    server = threading.Thread(target=serve)
    server.start()
    agent_sessions.take_over([session])
    server.join()
    assert agent_sessions.list_sessions(tmp_path) == [] and not list(session.path.parent.glob("*.take-over"))


def test_a_server_that_does_not_answer_is_named(tmp_path: Path) -> None:
    session = announce(tmp_path)
    with pytest.raises(UserError, match=r"did not end within 0\.1 s") as told:
        agent_sessions.take_over([session], 0.1)
    assert str(os.getpid()) in told.value.remedy
