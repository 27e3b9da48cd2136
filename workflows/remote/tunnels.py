"""The commands' side of the tunnels: starts the background process that keeps them, and sends it requests."""

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

#: Seconds that a keeper may take to write its port and key.
START_SECONDS = 30.0
#: Seconds for the connection that the tunnels go through.
CONNECT_SECONDS = 60.0


def keeper_file(project: Path) -> Path:
    """The file with the port and key of a project's keeper."""
    return state_folder(project, "remote") / "keeper.json"


def start_keeper(project: Path, address: Address, passphrases: Mapping[str, str]) -> bool:
    """Start a keeper unless one for the same machine runs; return whether one was started.

    A keeper for another machine is stopped, with its tunnels.

    Raises:
        UserError: It does not start.
    """
    from ..locks import hold

    # Without the lock, two simultaneous commands would start two keepers, and one would replace the other.
    with hold(keeper_file(project).with_name("keeper.lock"), 2 * START_SECONDS):
        known = _read_keeper(project)
        if known is not None:
            if known.get("address") == json.loads(json.dumps(address.as_json())):
                return False
            stop_keeper(project)
        with open_file(log_path(project), "wb") as log:
            # glibc reserves memory for each thread, which a mostly waiting process does not need.
            frugal = {"MALLOC_ARENA_MAX": "1", **os.environ}
            child = spawn(
                "workflows.remote.keeper", [str(project)], environment=frugal,
                stdin=subprocess.PIPE, stdout=log, stderr=log,
            )  # fmt: skip
        assert child.stdin is not None
        with child.stdin:
            # Sent over standard input, not on the command line: it may contain a passphrase and a token.
            handed = {"address": address.as_json(), "passphrases": dict(passphrases), "token": _token(address)}
            child.stdin.write(json.dumps(handed).encode())
        _wait_for_keeper(project, child)
        # The process outlives this command, so this one does not wait for it.
        child.returncode = 0
    return True


def _token(address: Address) -> dict[str, Any] | None:
    """This command's token, if the machine is reached through a workspace."""
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
    """Open tunnels and wait until they can be used.

    Args:
        project: The project's folder.
        address: The machine.
        passphrases: Passphrases of key files, by path.
        paths: Translates paths between the two machines.
        owner: The run or service that they belong to; they are closed when it ends.
        name: The owner's name.
        report: The remote file to which the owner reports, and the offset up to which it has been read.
        wanted: The tunnels.
        ports_named: The ports in the local settings.

    Returns:
        The local ports, by the tunnels' names.

    Raises:
        UserError: There is no keeper, or it cannot connect.
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
    """Send a request to a project's keeper and return its answer; None if there is no keeper."""
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
    """The ports on the remote machine's 127.0.0.1, and the local ones that lead to them."""
    answer = query_keeper(project, {"do": "list"}) or {}
    if answer.get("to") != str(address):
        return {}
    return {one["port"]: one["local_port"] for one in answer["tunnels"] if one["host"] == "127.0.0.1"}


def stop_keeper(project: Path) -> int:
    """Close all tunnels of a project, and return their number."""
    known = _read_keeper(project)
    answer = query_keeper(project, {"do": "stop"})
    deadline = time.monotonic() + 10
    while known is not None and identity.is_alive(known["process"]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return int((answer or {}).get("closed", 0))


def _read_keeper(project: Path) -> dict[str, Any] | None:
    """The port and key of a project's keeper; None if none runs."""
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
    """The log file of a project's keeper."""
    return state_folder(project, "remote") / "keeper.log"
