"""The memory of each kind of background process."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from workflows.background import MARK
from workflows.errors import UserError

from .debugger import ENVIRON, SCRIPT, attach, experiment
from .harness import INV, ROOT, Bench, LeftOut, docker, new_project
from .measure import run

#: The number of sessions of each kind, and the most MiB that a process may take.
TIMES, LIMIT = 10, 40
#: Seconds between two readings of a process's memory, and the most seconds until a process has been started.
REST, PATIENCE = 1.0, 20.0
#: A step that goes on until it is canceled.
PIPELINE = """\
type: pipeline
jobs:
  work:
    code: .
    environment: azureml:any@latest
    command: python debugged.py
"""


def main(bench: Bench) -> None:
    """Measure the processes that runs, services, workspaces and other machines leave behind."""
    with tempfile.TemporaryDirectory(prefix="azureml-debug-bench-") as folder:
        os.chmod(folder, 0o755)
        project = new_project(Path(folder) / "project", {SCRIPT.name: SCRIPT.read_text(), "pipeline.yml": PIPELINE})
        for name, measure in (("runs", runs), ("services", services), ("workspaces", workspaces), ("remote", remote)):
            with bench.part(name):
                measure(bench, project, Path(folder))


@dataclass(frozen=True)
class Memory:
    """The memory of a process in MiB.

    Attributes:
        own: With its share of memory that is shared with other processes, such as libraries.
        resident: All resident memory, as `ps` shows it.
    """

    own: float
    resident: float

    @classmethod
    def of(cls, process: psutil.Process) -> Memory:
        """Read the memory of a process once it has become constant."""
        before, taken = 0.0, float(process.memory_info().rss)
        while abs(taken - before) > 0.01 * taken:
            time.sleep(REST)
            before, taken = taken, float(process.memory_info().rss)
        # Only Linux reports the shares.
        return cls(getattr(process.memory_full_info(), "pss", taken) / 2**20, taken / 2**20)


def find_process(module: str, folder: Path, before: frozenset[int]) -> psutil.Process:
    """Find the new background process of one of the program's modules for a session in a folder.

    Other programs may have sessions, too. The processes of this session have the folder as TMPDIR.
    """
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for process in psutil.process_iter():
            try:
                variables = {} if process.pid in before else process.environ()
                known = variables.get(MARK) == module and variables.get("TMPDIR") == str(folder)
                # Its child processes have the same environment.
                if known and module in process.cmdline():
                    return process
            except psutil.Error:
                continue
        time.sleep(0.05)
    raise UserError(f"No process of {module} is there.", "See what the command left in the background.")


def session(begin: Sequence[str], end: Sequence[str], project: Path, environ: Mapping[str, str], module: str) -> Memory:
    """The memory of a module's process in a session that one command starts and another one ends."""
    before = frozenset(psutil.pids())
    run(begin, project, {**environ, "TMPDIR": str(project.parent)})
    try:
        return Memory.of(find_process(module, project.parent, before))
    finally:
        run(end, project, environ)


def _is_adapter(process: psutil.Process, project: Path) -> bool:
    """Whether a process is the adapter of a program in this project."""
    try:
        ours = any(str(project) in value for value in process.environ().values())
        return ours and any("adapter" in word for word in process.cmdline())
    except psutil.Error:
        return False


def _figure(bench: Bench, what: str, measure: Callable[[], Memory]) -> None:
    resident = []

    def own() -> float:
        taken = measure()
        resident.append(taken.resident)
        return taken.own

    found = bench.measure(TIMES, ours=own)
    bench.figure(what, found, "MiB", LIMIT, note=f"{statistics.median(resident):.0f} MiB as ps shows it")


def runs(bench: Bench, project: Path, _folder: Path) -> None:
    """Measure the process that runs a run's steps, and debugpy's adapter."""
    environ = {**ENVIRON, "AML_PIPELINE_FILE": "pipeline.yml"}
    begin, end = [*INV, "pipeline.debug"], [*INV, "pipeline.cancel"]
    _figure(
        bench,
        "memory of the process that does a run's steps",
        lambda: session(begin, end, project, environ, "workflows.runs.runner"),
    )

    def adapter() -> Memory:
        before = frozenset(psutil.pids())
        with experiment(project) as place:
            client, _thread = attach(place)
            new = [process for process in psutil.process_iter() if process.pid not in before]
            (found,) = [one for one in new if _is_adapter(one, project)]
            taken = Memory.of(found)
            client.close()
            return taken

    _figure(bench, "memory of debugpy's adapter, once a debugger is attached", adapter)


def services(bench: Bench, project: Path, _folder: Path) -> None:
    """Measure the process that forwards connections to a service in a container."""
    docker()
    shutil.copy(ROOT / "examples" / "deployment" / "score.py", project / "score.py")
    environ = {"AML_ENGINE": "docker", "AML_SCORE_SCRIPT": "score.py", "AML_SCORING_PORT": "0", "AML_DEBUG_PORT": "0"}
    environ["AML_CONTAINER_NAME"] = f"azureml-debug-bench-{os.getpid()}"
    begin, end = [*INV, "deploy.debug"], [*INV, "container.stop"]
    _figure(
        bench,
        "memory of the process that leads to a container's debugger",
        lambda: session(begin, end, project, environ, "workflows.forwarder"),
    )


def workspaces(bench: Bench, project: Path, folder: Path) -> None:
    """Measure the process that follows a run in a workspace."""
    sys.path[:0] = [str(ROOT / "tests")]
    from azureml_server import AzureMLServer, client_environment, write_configuration

    python = sys.executable
    if importlib.util.find_spec("azureml") is None or importlib.util.find_spec("azureml.core") is None:
        python = os.environ.get("AZUREML_DEBUG_TEST_SDK", "")
    if not python:
        raise LeftOut("azureml-core is not installed, and AZUREML_DEBUG_TEST_SDK is not set")
    with AzureMLServer(python=python) as server:
        write_configuration(server, project)
        environ = client_environment(server, folder / "home", {})
        environ |= {"AML_BACKEND": "azureml", "AML_COMPUTE_TARGET": "cpu", "AML_PIPELINE_FILE": "workspace.yml"}
        environ["AML_DEBUG_PORT"] = "0"
        (project / "workspace.yml").write_text(PIPELINE.replace("azureml:any@latest", "{image: an-image}"))
        inv = [python, "-m", "invoke"]
        begin, end = [*inv, "pipeline.debug"], [*inv, "pipeline.cancel"]
        _figure(
            bench,
            "memory of the process that follows a run in a workspace",
            lambda: session(begin, end, project, environ, "workflows.azureml.follower"),
        )
    (project / "config.json").unlink(missing_ok=True)


def remote(bench: Bench, project: Path, folder: Path) -> None:
    """Measure the process that keeps the tunnels to a remote machine."""
    sys.path.insert(0, str(ROOT / "tests" / "e2e"))
    from hosts import Hosts, what_is_missing

    reason = what_is_missing()
    if reason:
        raise LeftOut(reason)
    hosts = Hosts(folder / "cache")
    try:
        host = hosts.loopback
        environ = {**hosts.laptop.environment(host), "PYTHONPATH": str(ROOT), "AML_ENGINE": "process"}
        environ["TMPDIR"] = str(folder)
        (project / "tasks.py").write_text("from workflows import namespace as ns\n")
        typed = [*INV, "experiment.debug", "--remote", "--json", "bench", "--script", SCRIPT.name]

        def keeper() -> Memory:
            before = frozenset(psutil.pids())
            json.loads(run(typed, project, environ).splitlines()[-1])
            try:
                return Memory.of(find_process("workflows.remote.keeper", folder, before))
            finally:
                run([*INV, "experiment.cancel", "--remote"], project, environ)
                run([*INV, "remote.stop"], project, environ)

        _figure(bench, "memory of the process that keeps the tunnels to another machine", keeper)
    finally:
        hosts.close()
