"""The embedded engine: environments in the user's cache, services as processes here."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import line_ends
from .. import process_identity as identity
from ..debuggee import FOLDER as DEBUGGEE
from ..environments.definition import EnvironmentDefinition
from ..environments.pythons import PythonFacts
from ..errors import UserError
from ..models import Ended, ImageRef, Service, ServiceSpec
from ..paths import cache_folder
from ..private import open_file, restrict_tree
from ..project import read_json, state_folder, write_json
from .base import KEPT_LOG_BYTES, OUTPUT_SECONDS, Unused, service_variables
from .links import Links
from .step_wrappers import ENVIRONMENT

#: Seconds that processes have to end by themselves before they are killed.
GRACE_SECONDS = 0.5
#: How many times as long they have while they do end, one after the other.
_MOST_GRACES = 5
SUPERVISE = Path(__file__).with_name("supervise.sh")


class ProcessEngine:
    """Runs services as a process group of their own, supervised by runsvdir where it is installed."""

    name = "process"

    # Environments

    def find(self, definition: EnvironmentDefinition, base_image: str | None) -> ImageRef | None:
        """See :class:`~workflows.engines.base.Engine`."""
        from ..environments.virtual_environments import find_environment

        built = find_environment(definition, cache_folder())
        return ImageRef(self.name, built.digest, str(built.folder), reused=True, live=built.live) if built else None

    def build(
        self, definition: EnvironmentDefinition, base_image: str | None, report: Callable[[str], None]
    ) -> ImageRef:
        """See :class:`~workflows.engines.base.Engine`."""
        from ..environments.progress import brief_reporter
        from ..environments.virtual_environments import ensure_environment

        built = ensure_environment(definition, cache_folder(), brief_reporter(report))
        folder, notes = str(built.folder), built.notes
        return ImageRef(self.name, built.digest, folder, reused=built.reused, notes=notes, live=built.live)

    def read_python(self, image: ImageRef) -> PythonFacts | None:
        """See :class:`~workflows.engines.base.Engine`."""
        from ..environments.virtual_environments import read_python_facts

        return read_python_facts(Path(image.name))

    def tag(self, image: ImageRef, tag: str, project: Path) -> None:
        """See :class:`~workflows.engines.base.Engine`."""
        path = state_folder(project) / "tags.json"
        write_json(path, {**(read_json(path) or {}), tag: {"digest": image.digest, "name": image.name}})

    def find_tagged(self, tag: str, project: Path) -> ImageRef | None:
        """See :class:`~workflows.engines.base.Engine`."""
        entry = (read_json(state_folder(project) / "tags.json") or {}).get(tag)
        if not entry or not Path(entry["name"]).is_dir():
            return None
        from ..environments.virtual_environments import read_live_folders

        return ImageRef(
            self.name, entry["digest"], entry["name"], reused=True, live=read_live_folders(Path(entry["name"]))
        )

    # Services

    def app_root(self, source: Path) -> str:
        """See :class:`~workflows.engines.base.Engine`."""
        return os.path.realpath(source)

    def links(self, source: Path, model_dir: Path | None, image: str, below: str = "") -> Links:
        """No links: a process sees their targets anyway."""
        return Links()

    def create(self, spec: ServiceSpec) -> Service:
        """See :class:`~workflows.engines.base.Engine`."""
        if sys.platform == "win32":
            raise UserError(
                "The inference server needs gunicorn, which does not run on Windows itself.",
                "Start Docker Desktop, or work in WSL.",
            )
        runit = spec.session / "runit"
        shutil.rmtree(runit, ignore_errors=True)
        try:
            shutil.copytree(spec.runit, runit)
            line_ends.convert_copy(runit)
            restrict_tree(runit)
            with open_file(spec.session / "service.log", "wb"):
                pass
        except BaseException:
            shutil.rmtree(runit, ignore_errors=True)
            raise
        model = spec.model_dir.parent if spec.model_dir is not None and spec.model_below else spec.model_dir
        variables = service_variables(
            app_root=str(spec.source),
            debuggee=DEBUGGEE,
            events=str(spec.session / "announce" / "events.jsonl"),
            project=spec.project,
            spec=spec,
            debug_host="127.0.0.1",
            debug_port=spec.debug_port,
            server_port=spec.scoring_port,
            bind=f"127.0.0.1:{spec.scoring_port}",
            model_dir=str(model) if model else None,
            present=machine_variables(spec.image.name),
        )
        return Service.of(spec, self.name, self.app_root(spec.source), variables)

    def start(self, service: Service) -> Service:
        """See :class:`~workflows.engines.base.Engine`."""
        runit = service.session / "runit"
        runsvdir = shutil.which("runsvdir")
        command = [runsvdir, str(runit)] if runsvdir else ["/bin/sh", str(SUPERVISE), str(runit)]
        with open_file(service.session / "service.log", "ab") as log:
            process = subprocess.Popen(
                command,
                cwd=service.source,
                env=_environment(service),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        # It outlives this command: without a return code, Popen would warn that it is still running.
        process.returncode = 0
        return replace(service, started=True, pid=process.pid, process=identity.identify(process.pid) or {})

    def is_alive(self, service: Service) -> bool:
        """See :class:`~workflows.engines.base.Engine`."""
        if not service.started:
            return True
        return service.pid > 0 and bool(service.process) and identity.is_alive(service.process)

    def held_ports(self, service: Service) -> frozenset[int]:
        """See :class:`~workflows.engines.base.Engine`."""
        return frozenset((service.scoring_port, service.debug_port)) if self.is_alive(service) else frozenset()

    def ensure_forwarder(self, service: Service) -> None:
        """Do nothing: a process listens on its debug port itself, without a forwarder."""

    def restart_worker(self, service: Service, worker: int) -> Service:
        """See :class:`~workflows.engines.base.Engine`."""
        if not self.is_alive(service):
            # Without runit the supervisor ends with its service.
            return self.start(service)
        with contextlib.suppress(ProcessLookupError):
            if worker and os.getpgid(worker) != service.pid:
                worker = 0  # The id was reused by a process that does not belong to the service.
        subprocess.run(
            ["/bin/sh", os.path.join(DEBUGGEE, "restart_worker.sh"), str(worker), str(service.session / "runit")],
            env=_environment(service),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        return service

    def run_program(self, service: Service, program: str, arguments: Sequence[str]) -> str:
        """See :class:`~workflows.engines.base.Engine`."""
        environment = _environment(service)
        python = shutil.which("python", path=environment["PATH"]) or sys.executable
        try:
            done = subprocess.run(
                [python, os.path.join(DEBUGGEE, program), *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=OUTPUT_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stdout.decode("utf-8", "replace")

    def stop(self, service: Service) -> Ended:
        """See :class:`~workflows.engines.base.Engine`."""
        # By the mark in their environment: the supervisor may be gone while its children live on, and its process id
        # may have been reused. If the command that started the service was killed, its session file may lack the id.
        for group in self.list_leftovers(service.project):
            self.remove(group)
        log = b""
        with contextlib.suppress(OSError), open(service.session / "service.log", "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - KEPT_LOG_BYTES))
            log = file.read()
        from ..debugger.readiness import read_events

        codes = [
            -event["signal"] if event.get("code") == -1 else event.get("code")
            for event in read_events(service.events)
            if event["event"] == "exited"
        ]
        shutil.rmtree(service.session / "runit", ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            (service.session / "service.log").unlink()
        return Ended(codes[-1] if codes else None, log)

    def logs(self, service: Service, follow: bool, tail: int | None = None) -> Iterator[bytes]:
        """See :class:`~workflows.engines.base.Engine`."""
        from ..logs.log_tail import find_last_lines

        with open(service.session / "service.log", "rb") as file:
            file.seek(0 if tail is None else find_last_lines(file, tail))
            while True:
                data = file.read(65536)
                if data:
                    yield data
                elif not follow or not self.is_alive(service):
                    return
                else:
                    time.sleep(0.05)

    def shell(self, service: Service, command: Sequence[str]) -> int:
        """See :class:`~workflows.engines.base.Engine`."""
        argv = list(command) or [os.environ.get("SHELL") or "/bin/sh"]
        environment = _environment(service)
        # Without the mark by which a service's processes are found and ended.
        del environment["AZUREML_DEBUGGEE_PROJECT"]
        try:
            return subprocess.run(argv, cwd=service.source, env=environment, check=False).returncode
        except OSError as error:
            raise UserError(
                f"{argv[0]} cannot be started: {error.strerror}.", "Name a program that is there."
            ) from error

    def port_holder(self, port: int) -> tuple[str, bool] | None:
        """None: there are no containers here."""
        return None

    def holder_of_name(self, name: str) -> str | None:
        """None: names are always free here, since each project has its own session."""
        return None

    def list_leftovers(self, project: Path) -> list[str]:
        """See :class:`~workflows.engines.base.Engine`: the ids of process groups."""
        import psutil

        groups = set()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get("AZUREML_DEBUGGEE_PROJECT") == str(project):
                    groups.add(os.getpgid(process.pid))
        return [str(group) for group in groups - {os.getpgid(0)}]

    def remove(self, handle: str) -> None:
        """See :class:`~workflows.engines.base.Engine`."""
        # Long enough for runit to report how the service ended, also on a busy machine.
        end_groups([int(handle)], grace=4 * GRACE_SECONDS)

    def list_services(self) -> list[dict[str, str]]:
        """Empty: processes are listed by their projects."""
        return []

    def list_abandoned(self, known: frozenset[str]) -> list[Unused]:
        """Empty: processes are found by their projects only."""
        return []

    def list_unused(self, keep: frozenset[str], tag: str) -> list[Unused]:
        """See :class:`~workflows.engines.base.Engine`."""
        from ..environments.store import list_environments
        from . import step_packages

        return [
            (f"environment {entry.name} {entry.digest[:12]}", entry.size, entry.remove)
            for entry in list_environments(cache_folder())
            if entry.digest not in keep and not _is_in_use(entry.folder)
        ] + step_packages.list_leftovers()


def _environment(service: Service) -> dict[str, str]:
    """The environment of a service's processes."""
    return {**machine_variables(service.environment), **service.variables}


#: Variables that describe this machine and user, rather than being meant for one program.
_MACHINE = frozenset((
    "ALL_PROXY", "FTP_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY",
    "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR", "SSL_CERT_FILE",
    "HOME", "HOSTNAME", "LOGNAME", "SHELL", "TERM", "USER", "DISPLAY", "XAUTHORITY",
    "LANG", "LANGUAGE", "TZ", "TZDIR", "TEMP", "TMP", "TMPDIR",
    "PATH", "VIRTUAL_ENV", "GOMP_CPU_AFFINITY", "HF_HOME", "TORCH_HOME",
    "JAVA_HOME", "ODBCINI", "ODBCSYSINI", "ORACLE_HOME", "SPARK_HOME", "TNS_ADMIN",
))  # fmt: skip
#: The same by prefix: locales, folders, loaders, GPUs, threads of numerical libraries.
_MACHINE_PREFIXES = (
    "LC_", "XDG_", "LD_", "DYLD_", "CUDA_", "CUDNN_", "CUBLAS_", "NVIDIA_", "NCCL_", "ROCM_", "ROCR_", "HIP_", "HSA_",
    "GPU_", "OMP_", "MKL_", "KMP_", "OPENBLAS_", "NUMEXPR_", "VECLIB_", "MALLOC_", "XLA_",
)  # fmt: skip


def machine_variables(environment: str) -> dict[str, str]:
    """The user's variables that every service gets, with a virtual environment's ``bin`` first in PATH."""
    kept = clean_variables(environment)
    # Proxy variables may be written in small letters, too.
    return {
        name: value for name, value in kept.items() if name.upper() in _MACHINE or name.startswith(_MACHINE_PREFIXES)
    }


def clean_variables(environment: str) -> dict[str, str]:
    """The user's variables without this program's and Python's, with a virtual environment's ``bin`` first in PATH."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AML_", "AZUREML_", "PYTHON", "PYDEVD_"))
        and name not in ("AZURE_CLIENT_SECRET", "VIRTUAL_ENV")
    }
    kept["PATH"] = os.path.join(environment, "bin") + os.pathsep + kept.get("PATH", os.defpath)
    kept["VIRTUAL_ENV"] = environment
    return kept


def _members(groups: Collection[int]) -> list[int]:
    """The living processes of some groups, without zombies."""
    import psutil

    members = []
    for pid in psutil.pids():
        with contextlib.suppress(psutil.Error, ProcessLookupError, PermissionError):
            if os.getpgid(pid) in groups and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                members.append(pid)
    return members


def is_group_alive(group: int) -> bool:
    """Whether a group still has a process; takes one system call."""
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def end_groups(groups: Collection[int], grace: float = GRACE_SECONDS) -> None:
    """End every process of some groups: SIGTERM first, SIGKILL once none has ended or begun for ``grace`` seconds.

    On a busy machine the end of a service takes longer than on one at rest: runit notes how each process ended.
    """
    _signal(groups, signal.SIGTERM)
    # A stopped process handles SIGTERM only once it continues.
    _signal(groups, signal.SIGCONT)
    begun = changed = time.monotonic()
    left = _members(groups)
    while left and (now := time.monotonic()) - changed < grace and now - begun < _MOST_GRACES * grace:
        time.sleep(0.02)
        before, left = left, _members(groups)
        if left != before:
            changed = time.monotonic()
    deadline = time.monotonic() + 5
    while left and time.monotonic() < deadline:
        _signal(groups, signal.SIGKILL)
        time.sleep(0.02)
        left = _members(groups)


def _signal(groups: Collection[int], number: int) -> None:
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)


def _is_in_use(folder: Path) -> bool:
    """Whether a process runs from an environment's folder."""
    import psutil

    inside = str(folder) + os.sep
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            values: dict[str, Any] = process.as_dict(["cmdline", "environ"])
            if any(part.startswith(inside) for part in values["cmdline"] or ()):
                return True
            own = values["environ"] or {}
            if str(folder) in (own.get("VIRTUAL_ENV"), own.get(ENVIRONMENT)):
                return True
    return False
