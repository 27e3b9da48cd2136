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

#: What an unused image or environment gives back: name, bytes, and how to remove it.
Unused = tuple[str, int, Callable[[], None]]

#: Bytes of a stopped service's log that are kept.
KEPT_LOG_BYTES = 4 * 1024 * 1024
#: Seconds that one of the debuggee's programs may take to print what it was asked for.
OUTPUT_SECONDS = 30


class Engine(Protocol):
    """Builds environments and runs services in them."""

    name: str

    def find(self, definition: EnvironmentDefinition, base_image: str | None) -> ImageRef | None:
        """The environment's image where it is built already."""

    def build(
        self, definition: EnvironmentDefinition, base_image: str | None, report: Callable[[str], None]
    ) -> ImageRef:
        """The environment's image, built where it is not there yet."""

    def read_python(self, image: ImageRef) -> PythonFacts | None:
        """What an environment's Python says of itself; None where that cannot be told."""

    def tag(self, image: ImageRef, tag: str, project: Path) -> None:
        """Give an image the name under which it is run."""

    def find_tagged(self, tag: str, project: Path) -> ImageRef | None:
        """The image of that name."""

    def app_root(self, source: Path) -> str:
        """The folder that a service runs as it will see it; known before anything is made."""

    def links(self, source: Path, model_dir: Path | None, tag: str, below: str = "") -> Links:
        """What links in a service's folders lead to that the service would not have.

        Args:
            source: The folder that it runs.
            model_dir: Its model folder, if there is one.
            tag: The tag of its image.
            below: What the model folder is called in the one that AZUREML_MODEL_DIR names.

        Raises:
            UserError: It cannot be given to it.
        """

    def create(self, spec: ServiceSpec) -> Service:
        """Make a service's container, with nothing running in it yet."""

    def start(self, service: Service) -> Service:
        """Start the services in it by ``runsvdir``."""

    def is_alive(self, service: Service) -> bool:
        """Whether the container, or the supervisor, is there and runs."""

    def held_ports(self, service: Service) -> frozenset[int]:
        """The ports on 127.0.0.1 that a service holds at this moment, although it may have ended."""

    def ensure_forwarder(self, service: Service) -> None:
        """See that what leads to a running service is there, and start it again where it was killed.

        Raises:
            UserError: It cannot be started: another program holds the debug port by now.
        """

    def restart_worker(self, service: Service, worker: int) -> Service:
        """End the process that has score.py loaded and see that another takes its place."""

    def run_program(self, service: Service, program: str, arguments: Sequence[str]) -> str:
        """What one of the debuggee's programs prints on the service's own Python; empty where it cannot run there.

        Args:
            service: The service, which runs.
            program: The program's name in the debuggee's folder.
            arguments: Its arguments; paths as the service sees them.
        """

    def stop(self, service: Service) -> Ended:
        """End everything that belongs to the service and take it away."""

    def logs(self, service: Service, follow: bool, tail: int | None = None) -> Iterator[bytes]:
        """The service's log so far, or its last lines, and with ``follow`` as it grows until the service ends."""

    def shell(self, service: Service, command: Sequence[str]) -> int:
        """Run a command in the service's environment on this terminal; its exit code."""

    def port_holder(self, port: int) -> tuple[str, bool] | None:
        """The container that holds a port, and whether it is a session of this program."""

    def holder_of_name(self, name: str) -> str | None:
        """The project whose session holds a container name; None where it is free.

        An empty string where the container is not of this program.
        """

    def list_leftovers(self, project: Path) -> list[str]:
        """Handles of the project's containers, those that no file tells of included."""

    def remove(self, handle: str) -> None:
        """End and remove one of the leftovers."""

    def list_services(self) -> list[dict[str, str]]:
        """Every running service of this program that the engine knows, for listing."""

    def list_abandoned(self, known: frozenset[str]) -> list[Unused]:
        """Services whose projects were deleted while they ran, so that no command of theirs can stop them.

        Args:
            known: Handles of the services that projects know as theirs.
        """

    def list_unused(self, keep: frozenset[str], tag: str) -> list[Unused]:
        """Environments whose digests are not among those to keep and that nothing uses."""


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
    """The environment variables of a service: the person's, and those that make the inference server a debugged one.

    The server's own: https://learn.microsoft.com/azure/machine-learning/how-to-inference-server-http
    """
    named = spec.variables
    theirs = {
        **expand_variables(spec.conda_variables, named, present, os.environ, file=spec.conda_file),
        **named,
    }
    gunicorn, configuration = gunicorn_arguments(theirs.pop("GUNICORN_CMD_ARGS", present.get("GUNICORN_CMD_ARGS", "")))
    ours = {
        "AML_APP_ROOT": app_root,
        "AZUREML_ENTRY_SCRIPT": spec.score_script.relative_to(spec.source).as_posix(),
        # A worker paused at a breakpoint must not be taken for a dead one, and a second
        # worker would have no port for its debugger.
        "WORKER_COUNT": "1",
        "WORKER_TIMEOUT": "0",
        "WORKER_PRELOAD": "false",
        # The server interrupts a request after this time, in the middle of a pause too.
        "SCORING_TIMEOUT_MS": str(7 * 24 * 3600 * 1000),
        "GUNICORN_CMD_ARGS": shlex.join([*gunicorn, "--config", f"{debuggee}/gunicorn_conf.py"]),
        # Scripts may be reached by links; breakpoints belong to the files behind them.
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
        ours["AZUREML_DEBUGGEE_BIND"] = bind
    if configuration:
        ours["AZUREML_DEBUGGEE_GUNICORN_CONFIG"] = configuration
    if model_dir:
        ours["AZUREML_MODEL_DIR"] = model_dir
    if spec.model_below:
        # For mlflow_scoring; here the folder has other things in it than the model.
        ours["AZUREML_DEBUGGEE_MODEL"] = spec.model_below
    # With it the server would have a debugger of its own.
    theirs.pop("AZUREML_DEBUG_PORT", None)
    # Nothing is left in the person's folders, and no stale byte code is ever loaded
    # after an edit within the same second.
    return {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1", **theirs, **ours}


def gunicorn_arguments(text: str) -> tuple[list[str], str]:
    """A person's GUNICORN_CMD_ARGS, less what no debugged service can have, and the configuration file that they name.

    The service stays in the foreground, loads score.py in the worker, and has a configuration of ours, which reads
    theirs first.

    Raises:
        UserError: It has a quote that is not closed.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UserError("GUNICORN_CMD_ARGS has a quote that is not closed.", "Close it, or unset it.") from error
    kept, configuration, following = list[str](), "", iter(words)
    for word in following:
        flag, given, value = word.partition("=")
        if flag in ("-D", "--daemon", "--preload"):
            continue
        if flag in ("-c", "--config"):
            configuration = value if given else next(following, "")
        elif word.startswith("-c") and not word.startswith("--"):
            configuration = word[2:]
        else:
            kept.append(word)
    return kept, configuration
