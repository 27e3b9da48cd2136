"""Starts programs under debugpy by hand, and waits for their ports."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from workflows.errors import UserError
from workflows.paths import cache_folder

from .harness import ROOT
from .measure import usual_environment

#: The most seconds until a port is listened on; reached only if something is broken.
LIMIT = 300
#: The environment variable that marks all processes which a program has started.
MARK = "AZUREML_DEBUG_BENCH_PROGRAM"


@contextlib.contextmanager
def program(
    command: Sequence[str],
    cwd: Path | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    takes_input: bool = False,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program, and end it and all processes that it has started.

    debugpy's adapter leaves the program's session, and outlives a program that ends before it has been debugged.

    Args:
        command: The command.
        cwd: Its working directory.
        environ: Changes of the environment.
        takes_input: Whether its standard input is a pipe instead of the null device.
    """
    mark = uuid.uuid4().hex
    child = subprocess.Popen(
        list(command),
        cwd=cwd,
        env={**usual_environment(), **(environ or {}), MARK: mark},
        stdin=subprocess.PIPE if takes_input else subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        if child.stdin:
            child.stdin.close()
        while left := _marked(mark):
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(left, LIMIT)
            for process in left:
                _await_threads(process)


def _marked(mark: str) -> list[psutil.Process]:
    """The processes with a program's mark."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _await_threads(process: psutil.Process) -> None:
    """Wait until the last thread of a killed process has exited; until then its sockets are open.

    A process counts as a zombie from the moment its first thread has exited.
    """
    deadline = time.monotonic() + LIMIT
    with contextlib.suppress(psutil.Error):
        while process.num_threads() > 1 and time.monotonic() < deadline:
            time.sleep(0.01)


def free_port() -> int:
    """A free port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listening_ports(ports: set[int], namespace: str = "/proc/net") -> set[int]:
    """The ports among some on which a process listens. They are not connected to, which only works on Linux."""
    found = set()
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), open(f"{namespace}/{name}") as table:
            for line in table.readlines()[1:]:
                fields = line.split()
                if fields[3] == "0A":
                    found.add(int(fields[1].rpartition(":")[2], 16))
    return found & ports


def await_ports(ports: set[int], namespace: str = "/proc/net") -> None:
    """Wait until each of some ports is listened on."""
    deadline = time.monotonic() + LIMIT
    while listening_ports(ports, namespace) != ports:
        if time.monotonic() > deadline:
            raise UserError(
                f"Nothing listens on {sorted(ports - listening_ports(ports, namespace))}.", "Start it by hand."
            )
        time.sleep(0.002)


@functools.cache
def training_python() -> Path:
    """The interpreter of the environment in which steps run; it is built where it does not exist yet.

    Raises:
        UserError: It cannot be built.
    """
    from workflows.environments.definition import load_definition
    from workflows.environments.virtual_environments import ensure_environment

    folder = ROOT / "env" / "training"
    definition = load_definition(folder, default_dockerfile=folder / "Dockerfile")
    return ensure_environment(definition, cache_folder(), lambda line: None).python


def with_debugpy() -> dict[str, str]:
    """The environment variables with which that interpreter finds debugpy, which is outside its environment."""
    from workflows.environments.separate_debugpy import debugpy_folder
    from workflows.environments.virtual_environments import read_python_facts

    return {"PYTHONPATH": str(debugpy_folder(cache_folder(), read_python_facts(training_python().parents[1])))}
