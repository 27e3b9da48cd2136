"""Starts, finds and ends the forwarders of services in containers; ``workflows/forwarder.py`` is what they run.

The process that forwards a port is noted in the port's reservation, so that every project knows whose the port is.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from .. import loopback
from .. import process_identity as identity
from ..background import spawn
from ..errors import PortHeld, UserError
from ..forwarder import MODULE
from ..private import open_file
from . import ports, reservations

#: Seconds for a forwarder to end.
END_SECONDS = 3.0
#: The user's variables that a forwarder gets: those that programs need to find files.
_KEPT = ("PATH", "HOME", "USERPROFILE", "SYSTEMROOT", "TMPDIR", "TEMP", "XDG_CACHE_HOME")


def new_token() -> str:
    """A new token for a container's gate: one for each session, never shown."""
    return secrets.token_urlsafe(32)


def gate_variables(token: str) -> dict[str, str]:
    """The variables that make the gate in a container ask for a token."""
    return {
        "AZUREML_DEBUGGEE_TOKEN": hashlib.sha256(token.encode()).hexdigest(),
        # An editor in the container itself, as `container.code` opens one, has no token.
        "AZUREML_DEBUGGEE_LOOPBACK": "1",
    }


def listen(port: int, owner: str) -> socket.socket:
    """Listen on a debug port.

    Args:
        port: The port.
        owner: The port's owner for messages, such as ``the service debug``.

    Raises:
        UserError: Another program holds it, or only root may listen there.
    """
    try:
        return loopback.listen(port, 128)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            raise UserError(f"Only root may listen on port {port}.", "Choose a port from 1024 on.") from error
        name = ports.find_holder(port)[0] or "another program"
        raise PortHeld(
            port,
            f"Port {port} of {owner} is held by {name}.",
            "Stop it, or choose another port: --debug-port 0 for a free one.",
        ) from error


def start(listener: socket.socket, configuration: dict[str, Any], log: Path) -> None:
    """Start a forwarder in the background on a socket of :func:`listen`.

    Args:
        listener: The socket; handed over, and closed in this process.
        configuration: What :func:`workflows.forwarder.main` reads, without the listener.
        log: The file for its errors.
    """
    container = str(configuration["container"])
    keep = _KEPT if configuration["socket"] else (*_KEPT, "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG",
                                         "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "SSH_AUTH_SOCK")  # fmt: skip
    environment = {name: os.environ[name] for name in keep if name in os.environ}
    environment[ports.FORWARDER] = container
    port = int(listener.getsockname()[1])
    options: dict[str, Any] = {}
    with listener:
        if sys.platform == "win32":
            listener.close()  # it cannot be handed over there
            configuration = {**configuration, "port": port}
        else:
            options["pass_fds"] = (listener.fileno(),)
            configuration = {**configuration, "listener": listener.fileno()}
        with open_file(log, "wb") as complaints:
            child = spawn(
                MODULE, (), lean=bool(configuration["socket"]), environment=environment, cwd=os.path.abspath(os.sep),
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=complaints, **options,
            )  # fmt: skip
    assert child.stdin is not None
    # If it has died already, the next command finds that out.
    with contextlib.suppress(OSError), child.stdin:
        child.stdin.write(json.dumps(configuration).encode())
    reservations.reserve([port], pid=child.pid, container=container)
    # It outlives this command: without a return code, Popen would warn that it is still running.
    child.returncode = 0


def is_running(port: int, container: str) -> bool:
    """Whether the forwarder of a container still holds its port."""
    noted = reservations.read_reservation(port)
    if noted is not None and noted.get("container") == container and identity.is_alive(noted):
        return True
    # The folder with the notes may have been deleted.
    return not ports.is_free(port) and ports.find_forwarded_container(port) == container


def end(port: int, container: str) -> None:
    """End the forwarder of a container that is being removed, rather than wait until it ends by itself."""
    noted = reservations.read_reservation(port)
    if noted is not None and noted.get("container") == container and identity.is_alive(noted):
        if not identity.shares_pid_namespace(noted):
            return
        for number in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(int(noted["pid"]), number)
            if _wait_until(lambda: not identity.is_alive(noted)):
                break
        reservations.release([port])
        return
    _wait_until(lambda: ports.is_free(port) or ports.find_forwarded_container(port) != container)


def _wait_until(condition: Any) -> bool:
    deadline = time.monotonic() + END_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
