"""What an engine can do. Two implementations, one contract test."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from ..environments.conda_variables import expand_variables
from ..environments.definition import EnvironmentDefinition
from ..environments.pythons import PythonFacts
from ..errors import UserError
from ..models import Ended, ImageRef, Service, ServiceSpec
from .links import Links
from .snapshots import snapshot_variables, summary_variables

#: What can be pruned: its name, the bytes that are freed, and a function that removes it.
Unused = tuple[str, int, Callable[[], None]]

#: Bytes of a stopped service's log that are kept.
KEPT_LOG_BYTES = 4 * 1024 * 1024
#: Seconds that one of the debuggee's programs may run.
OUTPUT_SECONDS = 30


class Engine(Protocol):
    """Builds environments and runs services in them."""

    name: str

    def find(self, definition: EnvironmentDefinition, base_image: str | None) -> ImageRef | None:
        """The environment's image; None where it is not built yet."""

    def build(
        self, definition: EnvironmentDefinition, base_image: str | None, report: Callable[[str], None]
    ) -> ImageRef:
        """The environment's image, built where it is not there yet."""

    def read_python(self, image: ImageRef) -> PythonFacts | None:
        """Version and platform of an environment's Python; None where they cannot be found out."""

    def tag(self, image: ImageRef, tag: str, project: Path) -> None:
        """Give an image the name under which it is run."""

    def find_tagged(self, tag: str, project: Path) -> ImageRef | None:
        """The image of that name."""

    def app_root(self, source: Path) -> str:
        """The path at which the service sees its source folder; known before anything is created."""

    def links(self, source: Path, model_dir: Path | None, image: str, below: str = "") -> Links:
        """Targets of symbolic links in a service's folders that the service would not have.

        Args:
            source: The source folder that it runs.
            model_dir: Its model folder, if there is one.
            image: The name of its image.
            below: The model folder's name in the folder that AZUREML_MODEL_DIR names.

        Raises:
            UserError: A target cannot be mounted.
        """

    def create(self, spec: ServiceSpec) -> Service:
        """Create a service's container, with nothing running in it yet."""

    def start(self, service: Service) -> Service:
        """Start the services in it by ``runsvdir``."""

    def is_alive(self, service: Service) -> bool:
        """Whether the container, or the supervisor, is running."""

    def held_ports(self, service: Service) -> frozenset[int]:
        """The ports on 127.0.0.1 that a service holds at this moment, even if it has ended."""

    def ensure_forwarder(self, service: Service) -> None:
        """Start the forwarder of a running service's debug port again if it was killed.

        Raises:
            UserError: Another program holds the debug port by now.
        """

    def restart_worker(self, service: Service, worker: int) -> Service:
        """End the process that has score.py loaded, so that a new one takes its place."""

    def run_program(self, service: Service, program: str, arguments: Sequence[str]) -> str:
        """Run one of the debuggee's programs with the service's own Python; its output, empty where it cannot run.

        Args:
            service: A running service.
            program: The program's file name in the debuggee's folder.
            arguments: Its arguments, with paths as the service sees them.
        """

    def stop(self, service: Service) -> Ended:
        """End everything that belongs to the service and remove it."""

    def logs(self, service: Service, follow: bool, tail: int | None = None) -> Iterator[bytes]:
        """The service's log so far, or its last ``tail`` lines; with ``follow``, also what is added until it ends."""

    def shell(self, service: Service, command: Sequence[str]) -> int:
        """Run a command in the service's environment on this terminal; its exit code."""

    def port_holder(self, port: int) -> tuple[str, bool] | None:
        """The container that holds a port, and whether it belongs to a session of this program."""

    def holder_of_name(self, name: str) -> str | None:
        """The project whose session holds a container name; None where the name is free.

        It is empty where the container does not belong to this program.
        """

    def list_leftovers(self, project: Path) -> list[str]:
        """Handles of the project's containers, including those that no session file names."""

    def remove(self, handle: str) -> None:
        """End and remove one of the leftovers."""

    def list_services(self) -> list[dict[str, str]]:
        """Every running service of this program that the engine knows, for listing."""

    def list_abandoned(self, known: frozenset[str]) -> list[Unused]:
        """Services whose projects were deleted while they ran, so that no command in the project can stop them.

        Args:
            known: Handles of the services in the session files of existing projects.
        """

    def list_unused(self, keep: frozenset[str], tag: str) -> list[Unused]:
        """Environments that nothing uses and whose digests are not in ``keep``."""


def service_variables(
    *,
    app_root: str,
    debuggee: str,
    events: str,
    project: Path,
    spec: ServiceSpec,
    debug_host: str,
    debug_port: int,
    server_port: int,
    bind: str | None,
    model_dir: str | None,
    present: Mapping[str, str],
) -> dict[str, str]:
    """The environment variables of a service: the user's, and those that make the inference server a debugged one.

    The server's own: https://learn.microsoft.com/azure/machine-learning/how-to-inference-server-http
    """
    named = spec.variables
    user_variables = {
        **expand_variables(spec.conda_variables, named, present, os.environ, file=spec.conda_file),
        **named,
    }
    gunicorn, configuration = gunicorn_arguments(
        user_variables.pop("GUNICORN_CMD_ARGS", present.get("GUNICORN_CMD_ARGS", ""))
    )
    own_variables = {
        "AML_APP_ROOT": app_root,
        "AZUREML_ENTRY_SCRIPT": spec.score_script.relative_to(spec.source).as_posix(),
        # gunicorn must not kill a worker that is paused at a breakpoint, and a second worker would have no port for
        # its debugger.
        "WORKER_COUNT": "1",
        "WORKER_TIMEOUT": "0",
        "WORKER_PRELOAD": "false",
        # The server interrupts a request after this time, even while it is paused.
        "SCORING_TIMEOUT_MS": str(7 * 24 * 3600 * 1000),
        "GUNICORN_CMD_ARGS": shlex.join([*gunicorn, "--config", f"{debuggee}/gunicorn_conf.py"]),
        # Scripts may be reached through symbolic links; breakpoints are set in the files that these lead to.
        "PYDEVD_RESOLVE_SYMLINKS": "1",
        "AZUREML_DEBUGGEE_HOST": debug_host,
        "AZUREML_DEBUGGEE_PORT": str(debug_port),
        "AZUREML_DEBUGGEE_SERVER_PORT": str(server_port),
        "AZUREML_DEBUGGEE_EVENTS": events,
        "AZUREML_DEBUGGEE_TIMEOUT": str(spec.debug_timeout),
        "AZUREML_DEBUGGEE_WAIT": "1" if spec.wait else "0",
        "AZUREML_DEBUGGEE_PROJECT": str(project),
        **snapshot_variables(spec.snapshots, os.path.dirname(events)),
        **summary_variables(spec.summaries),
    }
    if bind:
        own_variables["AZUREML_DEBUGGEE_BIND"] = bind
    if configuration:
        own_variables["AZUREML_DEBUGGEE_GUNICORN_CONFIG"] = configuration
    if model_dir:
        own_variables["AZUREML_MODEL_DIR"] = model_dir
    if spec.model_below:
        # For mlflow_scoring: the folder in AZUREML_MODEL_DIR may hold other things besides the model.
        own_variables["AZUREML_DEBUGGEE_MODEL"] = spec.model_below
    # With this variable the server would start a debugger of its own.
    user_variables.pop("AZUREML_DEBUG_PORT", None)
    # No byte code: nothing is left in the user's folders, and no stale byte code is loaded after an edit within the
    # same second.
    return {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1", **user_variables, **own_variables}


def gunicorn_arguments(text: str) -> tuple[list[str], str]:
    """Take out of the user's GUNICORN_CMD_ARGS what a debugged service cannot have.

    The service has to stay in the foreground and load score.py in the worker. Its configuration file is ours, which
    reads the user's first.

    Returns:
        The other arguments, and the user's configuration file; empty where they name none.

    Raises:
        UserError: A quote is not closed.
    """
    try:
        arguments = shlex.split(text)
    except ValueError as error:
        raise UserError("GUNICORN_CMD_ARGS has a quote that is not closed.", "Close it, or unset it.") from error
    kept, configuration, following = list[str](), "", iter(arguments)
    for argument in following:
        flag, given, value = argument.partition("=")
        if flag in ("-D", "--daemon", "--preload"):
            continue
        if flag in ("-c", "--config"):
            configuration = value if given else next(following, "")
        elif argument.startswith("-c") and not argument.startswith("--"):
            configuration = argument[2:]
        else:
            kept.append(argument)
    return kept, configuration
