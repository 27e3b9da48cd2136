"""What commands say to the process that keeps the tunnels; it is started when it is not there."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import process_identity as identity
from ..background import spawn
from ..errors import UserError
from ..private import open_file
from ..project import read_json, state_folder
from .address import Address
from .remote_paths import RemotePaths

#: Seconds that a keeper may take to say how it is reached.
START_SECONDS = 30.0
#: Seconds for the connection that the tunnels go through.
CONNECT_SECONDS = 60.0


def keeper_file(project: Path) -> Path:
    """Where a project's keeper says how it is reached."""
    return state_folder(project, "remote") / "keeper.json"


def start_keeper(project: Path, address: Address, passphrases: Mapping[str, str]) -> bool:
    """Start a keeper, unless one for the same machine is there; whether one was started.

    One for another machine is ended: its tunnels belong to what is not meant any more.

    Raises:
        UserError: It does not start.
    """
    from ..locks import hold

    # Two commands at once would start two, and one would push the other out.
    with hold(keeper_file(project).with_name("keeper.lock"), 2 * START_SECONDS):
        known = _read_keeper(project)
        if known is not None:
            if known.get("address") == json.loads(json.dumps(address.as_json())):
                return False
            stop_keeper(project)
        with open_file(log_path(project), "wb") as log:
            # glibc gives each of its threads memory of its own, which a process that waits has no use for.
            frugal = {"MALLOC_ARENA_MAX": "1", **os.environ}
            child = spawn(
                "workflows.remote.keeper", [str(project)], environment=frugal,
                stdin=subprocess.PIPE, stdout=log, stderr=log,
            )  # fmt: skip
        assert child.stdin is not None
        with child.stdin:
            # Not on its command line: it may hold a passphrase, and the token of a workspace.
            handed = {"address": address.as_json(), "passphrases": dict(passphrases), "token": _token(address)}
            child.stdin.write(json.dumps(handed).encode())
        _wait_for_keeper(project, child)
        # It is meant to outlive this command, so nobody waits for it.
        child.returncode = 0
    return True


def _token(address: Address) -> dict[str, Any] | None:
    """What this command has signed in with, for a machine that is reached through a workspace."""
    if address.instance is None:
        return None
    from ..azureml.relay import tokens

    return tokens.export_token(address.instance)


def open_tunnels(
    project: Path,
    address: Address,
    passphrases: Mapping[str, str],
    paths: RemotePaths,
    owner: Mapping[str, Any],
    name: str,
    report: tuple[str, int],
    wanted: list[dict[str, Any]],
    ports_named: Sequence[int] = (),
) -> dict[str, int]:
    """Have tunnels; returns when they can be used.

    Args:
        project: The project's folder.
        address: The machine.
        passphrases: Of its keys.
        paths: Where paths of that machine are here.
        owner: What they belong to; they end with it.
        name: Its name.
        report: The file there in which the owner goes on to report, and how much of it is known.
        wanted: The tunnels.
        ports_named: The ports that the settings here name.

    Returns:
        The ports here, by the tunnels' names.

    Raises:
        UserError: There is no keeper, or it does not get through.
    """
    started = start_keeper(project, address, passphrases)
    answer = query_keeper(
        project,
        {
            "do": "ensure",
            "owner": dict(owner),
            "name": name,
            "report": report[0],
            "offset": report[1],
            "root": paths.root,
            "named": [str(place) for place in paths.named],
            "tunnels": wanted,
            "ports_named": list(ports_named),
            "seconds": CONNECT_SECONDS,
            "fresh": started,
        },
    )
    if answer is None or "problem" in answer:
        problem = str((answer or {}).get("problem") or "its process has ended").partition("\n")[0]
        raise UserError(
            f"The tunnel cannot be opened: {problem.removeprefix('error: ').rstrip('.')}.",
            f"See {log_path(project)}; what runs there goes on.",
        )
    ports: dict[str, int] = answer["ports"]
    return ports


def query_keeper(project: Path, request: Mapping[str, Any]) -> dict[str, Any] | None:
    """Ask a project's keeper for something; None where there is none."""
    known = _read_keeper(project)
    if known is None:
        return None
    from multiprocessing.connection import Client

    try:
        with Client(("127.0.0.1", int(known["port"])), authkey=bytes.fromhex(known["key"])) as connection:
            connection.send_bytes(json.dumps(request).encode())
            value: dict[str, Any] = json.loads(connection.recv_bytes())
            return value
    except (OSError, EOFError, ValueError):
        return None


def local_ports(project: Path, address: Address) -> dict[int, int]:
    """Ports on a machine's own 127.0.0.1, and the ones here that lead to them."""
    answer = query_keeper(project, {"do": "list"}) or {}
    if answer.get("to") != str(address):
        return {}
    return {one["port"]: one["local_port"] for one in answer["tunnels"] if one["host"] == "127.0.0.1"}


def stop_keeper(project: Path) -> int:
    """Close every tunnel of a project; how many there were."""
    known = _read_keeper(project)
    answer = query_keeper(project, {"do": "stop"})
    deadline = time.monotonic() + 10
    while known is not None and identity.is_alive(known["process"]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return int((answer or {}).get("closed", 0))


def _read_keeper(project: Path) -> dict[str, Any] | None:
    """How a project's keeper is reached, where one is alive."""
    known = read_json(keeper_file(project))
    if not known or not known.get("process") or not identity.is_alive(known["process"]):
        return None
    return known


def _wait_for_keeper(project: Path, started: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        known = _read_keeper(project)
        if known is not None and known["process"]["pid"] == started.pid:
            return
        if started.poll() is not None:
            log = log_path(project).read_text(errors="replace")
            raise RuntimeError(f"the keeper of the tunnels has ended with {started.returncode}:\n{log}")
        if time.monotonic() > deadline:
            raise UserError("The process that keeps the tunnels does not start.", f"See {log_path(project)}.")
        time.sleep(0.01)


def log_path(project: Path) -> Path:
    """The keeper's log."""
    return state_folder(project, "remote") / "keeper.log"
