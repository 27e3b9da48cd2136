"""Finds free ports, and the programs that hold others, without connecting to them.

A connection that closes at once kills a bare debugpy listener, so ports are probed by binding only.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from ..background import MARK
from ..errors import PortHeld
from ..settings_table import BY_FIELD
from .reservations import is_reserved

#: Seconds that a program may take from binding a port to listening on it.
_BINDING_SECONDS = 1.0
#: The environment variable of a service's forwarder that has the container's id.
FORWARDER = "AZUREML_DEBUG_FORWARDER"
#: Every process of a deployed service, of a step, and of this program in the background has one of these variables.
_MARKS = frozenset({"AZUREML_DEBUGGEE_PROJECT", "AZUREML_DEBUGGEE_RUN", MARK})


def is_free(port: int) -> bool:
    """Whether 127.0.0.1:port can be listened on now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # So that connections in TIME_WAIT do not count; on Windows the option means something else.
        if hasattr(socket, "SO_REUSEPORT"):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:
            # A low port, on which only root may listen: it may well be free, and the Docker engine, which runs as
            # root, can publish it.
            return True
        except OSError:
            return False
        return True


def may_listen(port: int) -> bool:
    """Whether this user may listen on the port at all; low ones are often reserved for root."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:
            return False
        except OSError:
            return True
    return True


def find_free_port(avoid: frozenset[int]) -> int:
    """A free port that the system chooses."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in avoid:
            return port


def find_holder(port: int) -> tuple[str, bool]:
    """The program that listens on a port, and whether it belongs to a session of this program.

    The name is empty where the port is free by now.
    """
    deadline = time.monotonic() + _BINDING_SECONDS
    while True:
        found = _listener(port)
        if found is not None:
            return found
        if is_free(port):
            return "", True
        if time.monotonic() > deadline:
            return "another program", False
        # The port is bound without a listener: a session is just starting, or another command is probing the port.
        time.sleep(0.02)


def find_listeners(port: int) -> list[int]:
    """The ids of the processes of this user that listen on a port."""
    return [connection.pid for connection in _listening(port) if connection.pid is not None]


def find_forwarded_container(port: int) -> str | None:
    """The id of the container whose forwarder listens on a port.

    Empty where another user's program listens, which may be a forwarder. None where another program or none listens.
    """
    import psutil

    for connection in _listening(port):
        if connection.pid is None:
            return ""
        with contextlib.suppress(psutil.Error):
            return psutil.Process(connection.pid).environ().get(FORWARDER)
    return None


def _listening(port: int) -> list[Any]:
    """The listening sockets at a port."""
    import psutil

    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        # macOS shows other users' sockets to root only.
        return []
    return [one for one in connections if one.status == psutil.CONN_LISTEN and one.laddr[1:] == (port,)]


def _listener(port: int) -> tuple[str, bool] | None:
    import psutil

    for connection in _listening(port):
        if connection.pid is None:
            return "a program of another user", False
        try:
            process = psutil.Process(connection.pid)
            name = f"{process.name()} (process {connection.pid})"
        except psutil.Error:
            continue
        try:
            ours = not _MARKS.isdisjoint(process.environ())
        except psutil.Error:
            ours = False
        return name, ours
    return None


def choose_port(
    field: str,
    port: int,
    avoid: frozenset[int],
    containers: Callable[[int], tuple[str, bool] | None],
) -> tuple[int, str]:
    """The port to use for a setting, and a note where it is not the wanted one.

    Args:
        field: The setting, for messages.
        port: The wanted port; 0 for a free one.
        avoid: Ports taken by this same service.
        containers: Returns the container that holds a port, and whether it belongs to this program.

    Raises:
        PortHeld: Another program holds it.
    """
    if port == 0:
        return find_free_port(avoid), ""
    wanted = port
    while not is_free(port) or port in avoid or is_reserved(port):
        # The holder is looked up only for the wanted port, and not where that is reserved: the engine may be slow
        # to answer.
        if port == wanted and port not in avoid and not is_reserved(port) and not is_free(port):
            name, ours = containers(port) or find_holder(port)
            if not ours:
                setting = BY_FIELD[field]
                others = f"{setting.flag} {port + 1}, or {setting.variable}=0 for a free one"
                raise PortHeld(port, f"Port {port} is held by {name}.", f"Stop it, or choose another port: {others}.")
            if not name:
                continue
        port = port + 1 if port < 65535 else 1024
    note = "" if port == wanted else f"port {wanted} belongs to another session, so {port} is used"
    return port, note


def next_free_ports(
    ports: Mapping[int, int], avoid: frozenset[int], own: frozenset[int] = frozenset()
) -> dict[int, int]:
    """A step's ports by rank if they are free, or else the next consecutive ones that are.

    Args:
        ports: The ports by rank; each is the base plus the rank.
        avoid: Ports that are not to be used.
        own: Ports that are reserved for this run.
    """

    def usable(port: int) -> bool:
        return port not in avoid and is_free(port) and (port in own or not is_reserved(port))

    step = max(ports) - min(ports) + 1
    moved = dict(ports)
    while not all(map(usable, moved.values())):
        shift = step if max(moved.values()) + step <= 65535 else 1024 - min(moved.values())
        moved = {rank: port + shift for rank, port in moved.items()}
    return moved


def reserve_free(count: int) -> list[int]:
    """Any free ports, reserved for this process."""
    from .reservations import choosing_lock, reserve

    found: list[int] = []
    with choosing_lock():
        while len(found) < count:
            port = find_free_port(frozenset(found))
            if not is_reserved(port):
                found.append(port)
        reserve(found)
    return found
