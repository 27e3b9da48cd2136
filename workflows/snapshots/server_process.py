"""Starting the process that shows a snapshot to an editor; it replaces one that still waits on the same port."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import process_identity as identity
from ..background import spawn
from ..engines import ports, reservations
from ..errors import PortHeld, UserError
from ..models import PathMapping
from ..project import append_log, state_folder
from .server import MODULE, WAIT_SECONDS

#: Seconds within which it has to report its port: it reads and checks the file first.
START_SECONDS = 30.0
#: Seconds that an earlier process may take to end.
_END_SECONDS = 3.0
_OWNER = "snapshot"


def start_server(
    snapshot: Path,
    mappings: Sequence[PathMapping],
    guesses: Sequence[PathMapping],
    port: int,
    project: Path,
    wait: float = WAIT_SECONDS,
) -> int:
    """Start a server process that outlives this command.

    Args:
        snapshot: The file.
        mappings: Where the run's code is on this machine.
        guesses: Where it may be.
        port: The port to listen on; 0 for a free one.
        project: The project's folder, which has the server's log.
        wait: Seconds within which a client has to attach.

    Returns:
        The port.

    Raises:
        UserError: The port is held by another program, or the file cannot be read.
    """
    if port:
        end_server(port)
    told = {
        "snapshot": str(snapshot),
        "port": port,
        "mappings": [(str(one.local_root), one.remote_root) for one in mappings],
        "guesses": [(str(one.local_root), one.remote_root) for one in guesses],
        "wait": wait,
    }
    with append_log(state_folder(project, "snapshots") / "server.log") as complaints:
        pipe = subprocess.PIPE
        child = spawn(MODULE, (), cwd=os.path.abspath(os.sep), stdin=pipe, stdout=pipe, stderr=complaints)
    said = _first_line(child, json.dumps(told).encode())
    if "port" in said:
        found = int(said["port"])
        reservations.reserve([found], pid=child.pid, kind=_OWNER)
        # It outlives this command, so nothing waits for it.
        child.returncode = 0
        return found
    with contextlib.suppress(OSError):
        child.kill()
    child.wait()
    if "problem" in said:
        raise UserError(str(said["problem"]), str(said["remedy"]))
    if "held" in said:
        name = ports.find_holder(port)[0] or "another program"
        raise PortHeld(port, f"Port {port} is held by {name}.", "Stop it, or choose another port in launch.json.")
    log = state_folder(project, "snapshots") / "server.log"
    raise UserError("The process that shows the snapshot has not started.", f"Its log: {log}")


def _first_line(child: subprocess.Popen[bytes], told: bytes) -> dict[str, Any]:
    """The first line of a server process as a JSON object; empty if none comes in time."""
    assert child.stdin is not None and child.stdout is not None
    with contextlib.suppress(OSError), child.stdin:
        child.stdin.write(told)
    # Windows has no select for pipes.
    watch = threading.Timer(START_SECONDS, child.kill)
    watch.daemon = True
    watch.start()
    try:
        with child.stdout:
            line = child.stdout.readline()
        found = json.loads(line) if line else {}
    except ValueError:
        return {}
    finally:
        watch.cancel()
    return found if isinstance(found, dict) else {}


def end_server(port: int) -> None:
    """End the server process on a port, if it is one of this program on this machine."""
    noted = reservations.read_reservation(port)
    if noted is None or noted.get("kind") != _OWNER or not identity.is_alive(noted):
        noted = _identify_listener(port)
    if noted is None or not identity.shares_pid_namespace(noted):
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(int(noted["pid"]), signal.SIGTERM)
    deadline = time.monotonic() + _END_SECONDS
    # The port is free once the process's last thread has ended, which may be after the process counts as ended.
    while (identity.is_alive(noted) or not ports.is_free(port)) and time.monotonic() < deadline:
        time.sleep(0.01)
    reservations.release([port])


def _identify_listener(port: int) -> dict[str, Any] | None:
    """The identity of the server process that listens on a port; None where none does."""
    if ports.is_free(port):
        return None
    import psutil

    for pid in ports.find_listeners(port):
        with contextlib.suppress(psutil.Error):
            if psutil.Process(pid).cmdline()[-2:] == ["-m", MODULE]:
                return identity.identify(pid)
    return None
