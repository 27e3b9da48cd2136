"""Executes runs: unpacks source folders, runs commands, writes logs, and cancels."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .jobs import Job, rank_variables
from .snapshots import unpack
from .state import ENDED, Run, State
from .tokens import make_token

#: Seconds that processes have between SIGTERM and SIGKILL.
GRACE = 2.0
LOOK = 0.02


@dataclass(frozen=True)
class Layout:
    """Where the service writes logs.

    Attributes:
        single: The log of a process that is alone.
        ranks: The log of one of several, with `{rank}`.
        system: A log of the service's own, beside it.
    """

    single: str
    ranks: str
    system: str


LAYOUTS = {
    "azureml-logs": Layout(
        "azureml-logs/70_driver_log.txt", "azureml-logs/70_driver_log_{rank}.txt", "azureml-logs/65_job_prep.txt"
    ),
    "user_logs": Layout(
        "user_logs/std_log.txt", "user_logs/std_log_process_{rank}.txt", "system_logs/lifecycler/execution-wrapper.log"
    ),
}


@dataclass
class Behaviour:
    """How runs go.

    Attributes:
        layout: One of LAYOUTS.
        pauses: Seconds that a run stays in a state before the next: `NotStarted`, `Queued`, `Preparing`, `Finalizing`.
        build_seconds: How long an image is built, with a log, before a run starts; 0 for an image that is there.
        build_fails: Whether that build fails.
        variables: Environment variables of every process.
        package_fails: What packaging a model fails with; empty where it works.
        closing_seconds: How long a pipeline's run goes on after its last step.
    """

    layout: str = "azureml-logs"
    pauses: dict[str, float] = field(default_factory=dict)
    build_seconds: float = 0.0
    build_fails: bool = False
    variables: dict[str, str] = field(default_factory=dict)
    package_fails: str = ""
    closing_seconds: float = 0.0


class Runner:
    """Args:
    state: The workspace.
    python: The interpreter that runs scripts.
    behaviour: How runs go; looked at whenever it matters.
    site: A folder that comes last on the processes' PYTHONPATH.
    authorities: A file with the certificates that the server is known by; empty where it has none.
    """

    def __init__(self, state: State, python: str, behaviour: Behaviour, site: Path, authorities: str = "") -> None:
        self._authorities = authorities
        self._state, self._python, self._behaviour, self._site = state, python, behaviour, site
        self._lock = threading.Lock()
        self._processes: dict[str, list[subprocess.Popen[bytes]]] = {}
        self._preempted: set[str] = set()
        self._nodes: dict[str, int] = {}
        self._threads: list[threading.Thread] = []
        self._built: set[str] = set()

    def start(self, job: Job, ended: Callable[[], None] = lambda: None) -> None:
        """Begin a run; `ended` is called when it has ended, however."""
        self.adopt(threading.Thread(target=self._work, args=(job, ended), name=f"run {job.run.id}", daemon=True))

    def adopt(self, thread: threading.Thread) -> None:
        """Start a thread that ends, and moves its run to its last state, once the run is cancelled."""
        self._threads.append(thread)
        thread.start()

    def cancel(self, run: Run) -> None:
        """End a run and all below it."""
        run.cancelled.set()
        for child in self._state.children(run.id):
            self.cancel(child)
        if not any(thread.name == f"run {run.id}" and thread.is_alive() for thread in self._threads):
            self._state.move(run, "Canceled")

    def preempt(self, run: Run) -> None:
        """Take a run's node away: its processes die at once, and it fails."""
        self._preempted.add(run.id)
        for process in self._processes.get(run.id, []):
            _kill(process, signal.SIGKILL)

    def processes(self, run: Run) -> list[int]:
        """The ids of a run's processes."""
        return [process.pid for process in self._processes.get(run.id, []) if process.poll() is None]

    def close(self, seconds: float = 10) -> None:
        """End everything."""
        for run in list(self._state.runs.values()):
            run.cancelled.set()
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for processes in self._processes.values():
            for process in processes:
                _kill(process, signal.SIGKILL)

    # One run

    def _work(self, job: Job, ended: Callable[[], None]) -> None:
        run, held = job.run, 0
        try:
            if not self._pass(run, "NotStarted", move=False):
                return
            if not self._pass(run, "Queued"):
                return
            held = self._take_nodes(job)
            if not held or not self._prepare(job):
                return
            error = self._execute(job)
            if run.cancelled.is_set():
                return
            self._pass(run, "Finalizing")
            self._state.move(run, "Failed" if error else "Completed", error)
        except Exception as error:
            self._state.move(run, "Failed", f"{type(error).__name__}: {error}")
        finally:
            if run.target:
                with self._lock:
                    self._nodes[run.target] = self._nodes.get(run.target, 0) - held
            if run.status not in ENDED:
                self._state.move(run, "Canceled")
            ended()

    def _pass(self, run: Run, status: str, move: bool = True) -> bool:
        """Stay in a state as long as is wanted; False where the run was cancelled."""
        if move and not self._state.move(run, status):
            return False
        return not run.cancelled.wait(self._behaviour.pauses.get(status, 0.0))

    def _take_nodes(self, job: Job) -> int:
        """Wait for the nodes; how many there are, 0 where the run was cancelled."""
        target = job.run.target or ""
        while not job.run.cancelled.is_set():
            with self._lock, self._state.lock:
                compute = self._state.computes.get(target)
                limit = compute.nodes if compute else job.nodes
                if self._nodes.get(target, 0) + job.nodes <= limit:
                    self._nodes[target] = self._nodes.get(target, 0) + job.nodes
                    return job.nodes
            job.run.cancelled.wait(LOOK)
        return 0

    def _prepare(self, job: Job) -> bool:
        run, behaviour = job.run, self._behaviour
        if not self._state.move(run, "Preparing"):
            return False
        if behaviour.build_seconds or behaviour.build_fails:
            log = self._log(run, "azureml-logs/20_image_build_log.txt")
            for number in range(1, 6):
                _append(log, f"Step {number}/5 : building the image of {run.target}\n".encode())
                if run.cancelled.wait(behaviour.build_seconds / 5):
                    return False
            if behaviour.build_fails:
                _append(log, b"ERROR: No matching distribution found for no-such-package\n")
                self._state.move(
                    run, "Failed", "Image build failed. For more details, check log file 20_image_build_log.txt."
                )
                return False
        return not run.cancelled.wait(behaviour.pauses.get("Preparing", 0.0))

    def _log(self, run: Run, name: str) -> Path:
        path = self._state.artifact(run, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return path

    def _execute(self, job: Job) -> str:
        """Run the processes to their end; what went wrong, or nothing."""
        run, layout = job.run, LAYOUTS[self._behaviour.layout]
        work = self._state.root / "work" / run.id
        work.mkdir(parents=True)
        if job.snapshot:
            unpack(self._state, job.snapshot, work)
        for name in ("outputs", "logs"):
            if not (work / name).exists():
                kept = self._state.artifact(run, name)
                kept.mkdir(parents=True, exist_ok=True)
                (work / name).symlink_to(kept, target_is_directory=True)
        for folder in job.folders:
            folder.mkdir(parents=True, exist_ok=True)
        _append(self._log(run, layout.system), f"Preparing {job.ranks} processes\n".encode())
        if not self._state.move(run, "Running"):
            return ""
        port = _free_port()
        started: list[subprocess.Popen[bytes]] = []
        with self._lock:
            self._processes[run.id] = started
        pumps = []
        for rank in range(job.ranks):
            name = layout.single if job.ranks == 1 else layout.ranks.format(rank=rank)
            process = subprocess.Popen(
                self._command(job, rank, work),
                cwd=work,
                env=self._environment(job, rank, port, work),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            started.append(process)
            pump = threading.Thread(target=_pump, args=(process, self._log(run, name)), daemon=True)
            pump.start()
            pumps.append(pump)
        self._wait(run, started)
        for pump in pumps:
            pump.join(5)
        return self._outcome(job, started)

    def _wait(self, run: Run, processes: list[subprocess.Popen[bytes]]) -> None:
        """Until all have ended, one has failed, or the run is cancelled; nothing is left of it then."""
        while any(process.poll() is None for process in processes):
            failed = any(process.poll() for process in processes)
            if failed or run.cancelled.wait(LOOK):
                break
        for process in processes:
            _kill(process, signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
            time.sleep(LOOK)
        for process in processes:
            _kill(process, signal.SIGKILL)
            process.wait(10)

    def _outcome(self, job: Job, processes: list[subprocess.Popen[bytes]]) -> str:
        if job.run.id in self._preempted:
            return "AzureMLCompute job failed.\nNodePreempted: the node was preempted while the job ran."
        codes = [process.returncode for process in processes]
        # Those that were ended because another one failed say nothing.
        bad = next((code for code in codes if code > 0), None) or next((code for code in codes if code), None)
        if bad is None:
            return ""
        return f"AzureMLCompute job failed.\nJobFailed: Submitted script failed with a non-zero exit code: {bad}"

    def _command(self, job: Job, rank: int, work: Path) -> list[str]:
        command = ["bash", "-c", job.command] if job.command else [self._python, job.script, *job.arguments]
        return job.where[job.node_of(rank)].within(work, command) if job.where else command

    def _environment(self, job: Job, rank: int, port: int, work: Path) -> dict[str, str]:
        state, run = self._state, job.run
        home = work.parent / f"{run.id}-home"
        home.mkdir(exist_ok=True)
        environ = {name: os.environ[name] for name in ("LANG", "LC_ALL", "TZ") if name in os.environ}
        # As a node's, it goes with the node.
        temporary = state.root / "tmp"
        temporary.mkdir(exist_ok=True)
        path = os.pathsep.join([str(Path(self._python).parent), os.environ.get("PATH", os.defpath)])
        environ |= {
            "PATH": path,
            "HOME": str(home),
            "TMPDIR": str(temporary),
            "AZUREML_RUN_ID": run.id,
            "AZUREML_ROOT_RUN_ID": run.root,
            "AZUREML_ARM_SUBSCRIPTION": state.subscription,
            "AZUREML_ARM_RESOURCEGROUP": state.group,
            "AZUREML_ARM_WORKSPACE_NAME": state.workspace,
            "AZUREML_ARM_PROJECT_NAME": run.experiment.name,
            "AZUREML_EXPERIMENT_ID": run.experiment.id,
            "AZUREML_EXPERIMENT_SCOPE": f"{state.scope}/experiments/{run.experiment.name}",
            "AZUREML_WORKSPACE_ID": state.workspace_id,
            "AZUREML_WORKSPACE_SCOPE": state.scope,
            "AZUREML_RUN_TOKEN": make_token(state.run_token_seconds, run=run.id),
            "AZUREML_RUN_TOKEN_EXPIRY": str(int(time.time() + state.run_token_seconds)),
            "AZUREML_SERVICE_ENDPOINT": state.url,
            "AZUREML_DISCOVERY_SERVICE_ENDPOINT": f"{state.url}/discovery",
            "AZUREML_RUN_HISTORY_SERVICE_ENDPOINT": state.url,
            "AZUREML_CURRENT_CLOUD": "AzureCloud",
            "AZUREML_DEBUG_TEST_SERVER": state.url,
            "AZUREML_OUTPUT_DIR": str(work / "outputs"),
            "PYTHONUNBUFFERED": "1",
            "AZUREML_PROCESS_NAME": f"rank_{rank}",
            # Azure's own certificates need no such thing.
            **({"REQUESTS_CA_BUNDLE": self._authorities} if self._authorities else {}),
            **self._behaviour.variables,
            **job.variables,
            **rank_variables(job, rank, port),
        }
        path_entries = [*filter(None, [environ.get("PYTHONPATH")]), str(self._site)]
        environ["PYTHONPATH"] = os.pathsep.join(path_entries)
        return environ


def _pump(process: subprocess.Popen[bytes], log: Path) -> None:
    """Write what a process says to its log as it comes."""
    assert process.stdout is not None
    with process.stdout as pipe, log.open("ab", buffering=0) as file:
        while chunk := os.read(pipe.fileno(), 65536):
            file.write(chunk)


def _append(path: Path, text: bytes) -> None:
    with path.open("ab") as file:
        file.write(text)


def _kill(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """A signal to a process and to all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def clear(folder: Path) -> None:
    """Take the files away."""
    shutil.rmtree(folder, ignore_errors=True)
