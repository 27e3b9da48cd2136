"""Runs steps as containers: one container for each step, with all of its ranks in it."""

from __future__ import annotations

import contextlib
import re
import shlex
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import storage
from ..azureml.forwarding import NetworkTransport
from ..debuggee import FOLDER as DEBUGGEE
from ..errors import UserError
from ..interrupts import uninterrupted
from ..models import ImageRef, PathMapping
from ..pipelines.commands import debugged_command
from ..private import touch
from ..remote.forwarding import Forward
from . import docker_errors, docker_folders, docker_network, forwarders, mlflow_store, ports
from .docker_client import connect
from .docker_containers import ATTEMPTS, LABEL_KIND, LABEL_PORTS, LABEL_PROJECT, container_user, is_transient
from .docker_custom_containers import ANNOUNCE_ROOT, DEBUGGEE_ROOT, DEBUGPY_ROOT
from .docker_errors import suppressed
from .docker_images import connection_lost_error, engine_disk_full_error, inspect
from .docker_packages import image_variables
from .docker_step_mounts import (
    CODE,
    ROOT,
    RUN,
    TRACKED,
    WORK,
    bind_mount,
    code_links,
    code_mounts,
    input_path,
    is_in_code,
    live_packages,
    step_mounts,
)
from .rank_variables import rank_variables
from .step_variables import import_path, injected_variables, parallel_driver
from .steps import StepProcess, StepSpec, StepView
from .work_folder import code_mappings, make_folders, make_work_folder, path_in_step

if TYPE_CHECKING:
    import docker

LABEL_RUN, LABEL_STEP = "azureml-debug.run", "azureml-debug.step"
#: Azure ML's own default for /dev/shm.
SHM_SIZE = "2g"
#: Seconds from SIGTERM until the container is killed: ranks.sh itself kills after half a second.
GRACE_SECONDS = 0.75
#: Seconds to wait while another command removes a container.
REMOVAL_SECONDS = 10
#: Seconds that an engine may not answer, such as while it is restarted, before a step counts as lost.
_TIMEOUT = 30.0
_FIRST_MASTER_PORT = 29500
_SHELL_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
#: Starts ranks.sh, which is passed as text so that it need not be mounted.
_BOOT = 'exec {}"$(command -v bash || echo sh)" -c "$@"'


class DockerSteps:
    """Runs steps as containers.

    Raises:
        UserError: No engine answers.
    """

    name = "docker"

    def __init__(self) -> None:
        self._client = connect()
        self._user: str | None = None
        self._is_user_known = False

    def mappings(self, spec: StepSpec) -> tuple[PathMapping, ...]:
        """See :class:`~workflows.engines.steps.StepEngine`."""
        linked = code_links(spec).places
        live = live_packages(spec)
        return (
            # The debugger takes the first mapping that matches, and a package may be inside the folder of the code.
            *(PathMapping(Path(local), place) for place, local in live.items() if is_in_code(spec, local)),
            *code_mappings(spec, code_mounts(spec), WORK),
            *(PathMapping(Path(local), place) for place, local in linked.items()),
            *(PathMapping(Path(local), place) for place, local in live.items() if not is_in_code(spec, local)),
        )

    def prepare_view(self, spec: StepSpec) -> StepView:
        """See :class:`~workflows.engines.steps.StepEngine`."""
        make_folders(spec)
        make_work_folder(spec, code_mounts(spec))
        paths = {f"inputs.{name}": input_path(name, path) for name, path in spec.inputs.items()}
        for name, (path, is_file) in spec.outputs.items():
            folder = f"{ROOT}/outputs/{name}"
            paths[f"outputs.{name}"] = f"{folder}/{path.name}" if is_file else folder
        return StepView(WORK, paths, self.mappings(spec))

    def default_variables(self, image: ImageRef) -> Mapping[str, str]:
        """See :class:`~workflows.engines.steps.StepEngine`."""
        return image_variables(self._client, image.name)

    def start_step(self, spec: StepSpec, command: str, variables: Mapping[str, str]) -> StepProcess:
        """See :class:`~workflows.engines.steps.StepEngine`."""
        make_folders(spec)
        if spec.injected:
            command = debugged_command(command, f"{DEBUGGEE_ROOT}/inject/launch.py")
        for rank in range(spec.ranks):
            # Created here, so that the log can be followed before the container runs.
            touch(spec.log(rank))
        debug_ports = sorted(spec.debug.ports.values()) if spec.debug else []
        forwards: list[Forward] = []
        with contextlib.ExitStack() as undo:
            # The debug ports are held from here on, as if the engine had published them.
            listeners = [undo.enter_context(forwarders.listen(port, f"the step {spec.step}")) for port in debug_ports]
            container, token, gates = self._start(spec, command, variables, debug_ports)
            for listener, gate in zip(listeners, gates, strict=True):
                forwards.append(Forward(spec.step, "127.0.0.1", gate, 0, NetworkTransport(token), listener=listener))
            undo.pop_all()
        return _Container(self._client, container, spec, forwards)

    def _start(
        self, spec: StepSpec, command: str, variables: Mapping[str, str], debug_ports: Sequence[int]
    ) -> tuple[str, str, list[int]]:
        """Start the step's container; its id, the token of its gates, and the ports at which they are published."""
        token = forwarders.new_token()
        try:
            own, mounts = self._environment(spec, variables)
            if debug_ports:
                own |= forwarders.gate_variables(token)
            attempt = 1
            while True:
                gates = ports.reserve_free(len(debug_ports))
                try:
                    container = self._create(
                        spec, _arguments(spec, command), own, mounts, dict(zip(debug_ports, gates, strict=True))
                    )
                    try:
                        docker_folders.check_visible(self._client, container, (spec.folder / "announce", ANNOUNCE_ROOT))
                        self._client.api.start(container)
                    except BaseException:
                        with uninterrupted(), suppressed("APIError", "RequestException"):
                            self._client.api.remove_container(container, force=True)
                        raise
                    return container, token, gates
                except docker_errors.APIError as error:
                    if attempt >= ATTEMPTS or not is_transient(error, gates):
                        raise
                    attempt += 1
        except docker_errors.APIError as error:
            raise _start_error(error, spec) from error
        except docker_errors.RequestException as error:
            raise connection_lost_error(error) from error
        except docker_errors.DockerException as error:  # the SDK's own checks: a size or a name that is not valid
            raise UserError(
                f"The step {spec.step} cannot be started: {error}.", "Correct it in the pipeline file."
            ) from error

    def end_run(self, run_id: str) -> bool:
        """See :class:`~workflows.engines.steps.StepEngine`."""
        try:
            found = self._client.api.containers(all=True, filters={"label": f"{LABEL_RUN}={run_id}"})
            with uninterrupted(), ThreadPoolExecutor(max_workers=max(1, min(8, len(found)))) as pool:
                list(pool.map(lambda container: _end_container(self._client, str(container["Id"])), found))
        except docker_errors.APIError as error:
            raise UserError(
                f"The Docker engine cannot end the run {run_id}: {error.explanation}.",
                "See the engine's log, then run the same command again.",
            ) from error
        except docker_errors.RequestException as error:
            raise connection_lost_error(error) from error
        return bool(found)

    # Parts of start_step

    def _environment(self, spec: StepSpec, variables: Mapping[str, str]) -> tuple[dict[str, str], list[Any]]:
        """The container's environment variables and mounts."""
        own = {**variables, **parallel_driver(spec, DEBUGGEE_ROOT)}
        mounts = step_mounts(spec)
        if spec.injected or spec.parallel:
            mounts.append(bind_mount(DEBUGGEE_ROOT, DEBUGGEE, True))
        if not self._is_user_known:
            self._user, self._is_user_known = container_user(self._client), True
        if self._user:
            own.setdefault("HOME", "/tmp")  # noqa: S108
            # A user id without a name makes `getpass.getuser()` raise, which torch calls.
            own.setdefault("USER", "azureml")
        image = inspect(self._client, spec.image.name)
        image_env = dict(pair.partition("=")[::2] for pair in image["Config"].get("Env") or ())
        if tracked := mlflow_store.prepare_store(spec, {**image_env, **own}, TRACKED):
            own |= tracked
            mounts.append(bind_mount(TRACKED, str(spec.folder / mlflow_store.FOLDER), False))
        if "PYTHONPATH" in image_env:
            own.setdefault("PYTHONPATH", image_env["PYTHONPATH"])
        own |= import_path(spec, own, WORK)
        if not spec.injected:
            return own, mounts
        own |= injected_variables(
            spec,
            own,
            debuggee=DEBUGGEE_ROOT,
            code=[
                CODE,
                WORK,
                *(path_in_step(path, code_mounts(spec)) for path in spec.includes),
                *code_links(spec).places,
            ],
            events=f"{ANNOUNCE_ROOT}/{spec.events.name}",
            logs=f"{RUN}/{spec.log().parent.name}",
            uploads=WORK,
            # Inside, the port has to be reachable from where it is published: 127.0.0.1 only.
            listen_host="0.0.0.0",  # noqa: S104
        )
        if spec.image.debugpy:
            mounts.append(bind_mount(DEBUGPY_ROOT, spec.image.debugpy, True))
            own["AZUREML_DEBUGGEE_DEBUGPY"] = DEBUGPY_ROOT
        return own, mounts

    def _create(
        self,
        spec: StepSpec,
        arguments: Sequence[str],
        variables: Mapping[str, str],
        mounts: Sequence[Any],
        gates: Mapping[int, int],
    ) -> str:
        # https://docs.docker.com/reference/api/engine/version/v1.41/#operation/ContainerCreate
        host = {
            "Mounts": list(mounts),
            "NetworkMode": docker_network.ensure_network(self._client),
            # In the container the port has the number that the user attaches to, which is the one that the step logs.
            "PortBindings": {
                f"{port}/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(gate)}] for port, gate in gates.items()
            },
            "ShmSize": _parse_size(spec.shm_size or SHM_SIZE),
            # The init reaps orphans, and distinguishes a signal from an exit code.
            "Init": True,
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "1"}},
        }
        name = re.sub(r"[^a-zA-Z0-9_.-]+", "-", f"azureml-debug-{spec.run_id}-{spec.step}")
        labels = {
            LABEL_KIND: "step",
            LABEL_RUN: spec.run_id,
            LABEL_STEP: spec.step,
            LABEL_PROJECT: str(spec.project),
            LABEL_PORTS: ",".join(f"{port}:{gate}" for port, gate in gates.items()),
        }

        # Not every /bin/sh passes on variables whose names are not valid in a shell.
        odd = [f"{key}={value}" for key, value in variables.items() if not _SHELL_NAME.fullmatch(key)]
        boot = _BOOT.format(f"env {shlex.join(odd)} " if odd else "")

        def create() -> str:
            # An interrupt here would leave a container whose id is lost.
            with uninterrupted():
                made = self._client.api.create_container(
                    spec.image.name,
                    entrypoint=["/bin/sh", "-c", boot, "sh"],
                    command=list(arguments),
                    environment=dict(variables),
                    labels=labels,
                    name=name,
                    user=self._user,
                    ports=[(port, "tcp") for port in gates],
                    working_dir=WORK,
                    host_config=host,
                )
            return str(made["Id"])

        try:
            return create()
        except docker_errors.APIError as error:
            if error.status_code != 409 or not self._is_leftover(name, labels):
                raise
        # The container was left by a runner that was killed before this run was resumed.
        _end_container(self._client, name)
        return create()

    def _is_leftover(self, name: str, labels: Mapping[str, str]) -> bool:
        """Whether the container of that name belongs to the same step."""
        try:
            found = self._client.api.inspect_container(name)["Config"]["Labels"] or {}
        except docker_errors.APIError:
            return False
        return bool(found.get(LABEL_RUN) == labels[LABEL_RUN] and found.get(LABEL_STEP) == labels[LABEL_STEP])


class _Container:
    """The container of one step; a thread waits for its end, so that polling costs nothing."""

    def __init__(
        self, client: docker.DockerClient, container: str, spec: StepSpec, forwards: Sequence[Forward]
    ) -> None:
        self._forwards = forwards
        self._client = client
        self._container = container
        self._code: int | None = None
        self._failure: UserError | None = None
        self._ended = threading.Event()
        threading.Thread(target=self._wait, name=f"step {spec.step}", daemon=True).start()

    def poll(self) -> int | None:
        """See :class:`~workflows.engines.steps.StepProcess`.

        Raises:
            UserError: The connection to the engine broke and did not come back.
        """
        if self._failure is not None:
            raise self._failure
        return self._code

    def end(self) -> None:
        """See :class:`~workflows.engines.steps.StepProcess`."""
        if self._ended.is_set():
            return
        with uninterrupted(), suppressed("APIError", "RequestException"):
            self._client.api.kill(self._container, signal="SIGTERM")
            if not self._ended.wait(GRACE_SECONDS):
                self._client.api.kill(self._container, signal="SIGKILL")
        # The waiting thread removes the container; no command waits longer than this for it.
        self._ended.wait(5)

    def _wait(self) -> None:
        try:
            self._code = self._exit_code()
        except UserError as error:
            self._failure = error
        finally:
            # Open connections stay: the debugger's last messages are still on their way.
            for forward in self._forwards:
                forward.stop_listening()
            self._ended.set()

    def _exit_code(self) -> int:
        lost: float | None = None
        while True:
            try:
                code = int(self._client.api.wait(self._container)["StatusCode"])
                break
            except docker_errors.NotFound:
                return -int(signal.SIGKILL)  # another command has removed it
            except (docker_errors.APIError, docker_errors.RequestException) as error:
                lost = lost or time.monotonic()
                if time.monotonic() > lost + _TIMEOUT:
                    raise connection_lost_error(error) from error
                time.sleep(0.5)
        with suppressed("APIError", "RequestException"):
            self._client.api.remove_container(self._container, force=True)
        # Shells and the engine's init report a signal as 128 plus its number.
        return 128 - code if code - 128 in set(signal.Signals) else code


def _end_container(client: docker.DockerClient, container: str) -> None:
    """End and remove a container, whichever command started it."""
    with suppressed("NotFound"):
        # 409: it has ended already.
        with suppressed("APIError", "RequestException"):
            client.api.kill(container, signal="SIGTERM")
            client.api.wait(container, timeout=GRACE_SECONDS)  # type: ignore[arg-type]
        try:
            client.api.remove_container(container, force=True)
        except docker_errors.APIError as error:
            if error.status_code != 409:
                raise
            # The command that waits for it is removing it at this moment.
            with suppressed("APIError", "RequestException"):
                client.api.wait(container, condition="removed", timeout=REMOVAL_SECONDS)


def _parse_size(size: str) -> int:
    """Bytes of a size such as ``2g``.

    Raises:
        docker.errors.DockerException: It is not a size.
    """
    found = re.fullmatch(r"(\d+)([kmg]?)b?", size, re.ASCII | re.IGNORECASE)
    if found is not None:
        return int(found[1]) * 1024 ** "kmg".index(found[2].lower()) * 1024 if found[2] else int(found[1])
    from docker.utils import parse_bytes

    return int(parse_bytes(size))


def _arguments(spec: StepSpec, command: str) -> list[str]:
    """The arguments of ranks.sh."""
    taken = set(spec.debug.ports.values()) if spec.debug else set()
    # Nothing else listens in the container's own network namespace.
    wanted = range(_FIRST_MASTER_PORT, 65536 - spec.ranks)
    master = next(port for port in wanted if taken.isdisjoint(range(port, port + spec.ranks)))
    logs = f"{RUN}/azureml-logs"
    groups = []
    for rank in range(spec.ranks):
        pairs = [f"{name}={value}" for name, value in rank_variables(spec, rank, master).items()]
        groups.append([f"{logs}/{spec.log(rank).name}", *pairs])
    script = Path(__file__).with_name("ranks.sh").read_text("utf-8")
    return [script, "ranks", command, str(len(groups[0]) - 1), *(part for group in groups for part in group)]


def _start_error(error: Any, spec: StepSpec) -> UserError:
    """The error for a step's container that cannot be created or started."""
    if (explained := docker_folders.mount_error(error)) is not None:
        return explained
    text = str(error.explanation or error)
    if error.status_code == 404 and "No such image" in text:
        return UserError(
            f"The image {spec.image.name} of the step {spec.step} is not there any more.",
            "Run the same command again: it is built again.",
        )
    if "/bin/sh" in text and "no such file" in text:
        return UserError(
            f"The image {spec.image.name} of the step {spec.step} has no /bin/sh.", "Use an image that has a shell."
        )
    missing = re.search(r"bind source path does not exist: (.+)", text)
    if missing:
        return UserError(
            f"{missing.group(1).strip()}, which the step {spec.step} needs, does not exist.", "Create or correct it."
        )
    if "argument list too long" in text:
        return UserError(f"The command of the step {spec.step} is too long.", "At most some 100 kB: put it in a file.")
    if storage.find_disk_error([text]) is not None:
        return engine_disk_full_error()
    return UserError(
        f"The Docker engine cannot start the step {spec.step}: {text.rstrip('.')}.", "Correct that, then run it again."
    )
