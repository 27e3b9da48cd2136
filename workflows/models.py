"""The frozen values that the steps of a flow pass to each other."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class PathMapping:
    """A folder of the developer's, and its path in the program that is debugged.

    Attributes:
        local_root: Absolute path on this machine.
        remote_root: Absolute path as the debugged program sees it.
    """

    local_root: Path
    remote_root: str

    def as_json(self) -> dict[str, str]:
        """The pair with launch.json's keys."""
        return {"localRoot": str(self.local_root), "remoteRoot": self.remote_root}


@dataclass(frozen=True)
class DebugEndpoint:
    """An address at which a debugger can attach, with the path mappings."""

    host: str
    port: int
    path_mappings: tuple[PathMapping, ...]


@dataclass(frozen=True)
class ImageRef:
    """A built environment that an engine can run programs in.

    Attributes:
        engine: ``docker`` or ``process``.
        digest: Hex digest of the definition it was built from.
        name: The image's name (docker) or the environment's folder (process).
        reused: Whether nothing had to be built.
        notes: Where it differs from its definition.
        live: Folders of its packages that stay in place on this machine, such as editable installs.
        variables: The ``variables`` of the conda file that a step's environment is built from, unexpanded.
        source: That conda file.
        debugpy: A folder with debugpy for a debugged step; empty if the environment has its own.
    """

    engine: str
    digest: str
    name: str
    reused: bool = False
    notes: tuple[str, ...] = ()
    live: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    source: str = ""
    debugpy: str = ""


@dataclass(frozen=True)
class RegistryLogin:
    """The login for a registry of images.

    Attributes:
        address: The registry's host.
        username: The user.
        password: Not in the ``repr``.
    """

    address: str
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Check:
    """A probe: how a service is checked for being ready, or alive.

    Attributes:
        by: The deployment's key that names the route, such as ``readiness_route``; empty if none does.
        port: The port in the container; 0 for the one that answers requests.
        path: The path of the request.
        scheme: ``http`` or ``https``.
        method: The method of HTTP.
        seconds: Seconds until the right answer has to come; 0 if not specified.
        timeout: Seconds that one answer may take; 0 if not specified.
        successes: Right answers in a row that are needed.
    """

    by: str = ""
    port: int = 0
    path: str = "/"
    scheme: str = "http"
    method: str = "GET"
    seconds: int = 0
    timeout: int = 0
    successes: int = 1

    @property
    def text(self) -> str:
        """The request, for messages."""
        scheme = " by https" if self.scheme == "https" else ""
        where = f" on port {self.port}{scheme}" if self.port else scheme
        return f"{self.method} {self.path}{where}{f' (`{self.by}`)' if self.by else ''}"


@dataclass(frozen=True)
class Serving:
    """How a custom image serves without the inference server.

    Attributes:
        port: The port in the container that answers requests.
        path: The path that requests are posted to.
        model: Absolute path of its model; None if it has none.
        model_place: The container's folder that has the model.
        code: Absolute path of the folder of code that is mounted; None if all code is in the image.
        code_place: The path of that folder in the container.
        script: The scoring script, relative to that folder.
        copied: Folders and files of this machine that were copied into the image, by their paths in it.
    """

    port: int
    path: str
    model: Path | None = None
    model_place: str = ""
    code: Path | None = None
    code_place: str = ""
    script: str = ""
    copied: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshots:
    """Settings of the snapshots that a failing program writes: files ``snapshot-*.json`` beside its logs.

    Attributes:
        story: ``pipeline``, ``experiment`` or ``deployment``.
        redact: A regular expression of names whose values are masked, besides those that look secret.
    """

    story: str
    redact: str = ""


@dataclass(frozen=True)
class ServiceSpec:
    """What an engine needs to create a service.

    Attributes:
        project: The project's folder (where tasks.py is).
        session: Folder of the session's files, shared with the service.
        name: The container's name.
        tag: The tag of the image to run, such as ``debug:1``.
        image: The image or environment behind that tag.
        score_script: Absolute path of the entry script.
        source: Absolute path of the folder of code that the service runs; the script is in it.
        model_dir: Absolute path of the model folder, if there is one.
        model_below: Its path below the folder that AZUREML_MODEL_DIR names; empty if it is that folder.
        serving: How a custom image serves; None if the inference server does.
        foreign: Whether the image was not built by this program, so that it may have no debugpy.
        ready: The probe for being ready.
        alive: The probe for being alive, for a custom image.
        variables: Environment variables that the user set for it.
        conda_variables: The ``variables`` of conda.yml, unexpanded.
        conda_file: That conda.yml.
        links: Targets of links in these folders, by the paths at which a container needs them.
        runit: Folder of runit services, for the engine without images.
        scoring_port: Port on 127.0.0.1 that answers ``/score``.
        debug_port: Port on 127.0.0.1 for debuggers.
        wait: Whether it waits for a debugger before score.py is loaded.
        debug_timeout: Seconds that the program waits for a debugger.
        snapshots: Settings of its snapshots; None for none.
        summaries: Whether debuggers are shown descriptions of tensors and tables.
    """

    project: Path
    session: Path
    name: str
    tag: str
    image: ImageRef
    score_script: Path
    source: Path
    model_dir: Path | None
    runit: Path
    scoring_port: int
    debug_port: int
    wait: bool
    debug_timeout: int
    model_below: str = ""
    serving: Serving | None = None
    foreign: bool = False
    ready: Check = Check()
    alive: Check = Check()
    links: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    conda_variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    conda_file: Path = Path("conda.yml")
    snapshots: Snapshots | None = None
    summaries: bool = True


@dataclass(frozen=True)
class Service:
    """A service that an engine has created; kept in session.json between commands.

    Attributes:
        engine: ``docker`` or ``process``.
        project: The project's folder.
        session: Folder of the session's own files.
        name: The container's name.
        handle: The container's id (docker), or empty.
        execution: Id of runsvdir's execution in the container (docker), or empty.
        tag: The tag of its image.
        digest: Digest of the environment.
        environment: The environment's folder or image.
        score_script: Absolute path of the entry script.
        source: Absolute path of the folder that it runs.
        remote_root: The path of that folder in the service.
        scoring_port: Port on 127.0.0.1 that answers ``/score``.
        debug_port: Port on 127.0.0.1 for debuggers.
        wait: Whether it waits for a debugger before score.py is loaded.
        debug_timeout: Seconds that it waits.
        variables: Environment variables of the service's processes.
        created: When, in seconds since the epoch.
        started: Whether its services have been started by runsvdir.
        pid: The supervisor's process id (process engine), 0 before the start.
        process: That process's identity, as :mod:`workflows.process_identity` returns it.
        links: As in :class:`ServiceSpec`.
        gate_port: Port on 127.0.0.1 at which the container's gate is published (docker), which asks for the token.
        token: The token that its forwarder sends there.
        by_itself: Whether a custom image serves, without the inference server.
        scoring_path: The path that requests are posted to.
        ready: As in :class:`ServiceSpec`.
        ready_port: Port on 127.0.0.1 for the probe ``ready``.
        alive: As in :class:`ServiceSpec`.
        alive_port: Port on 127.0.0.1 for the probe ``alive``.
        mapped: Folders and files of this machine that the image has copies of, by their paths in it.
    """

    engine: str
    project: Path
    session: Path
    name: str
    handle: str
    tag: str
    digest: str
    environment: str
    score_script: Path
    source: Path
    remote_root: str
    scoring_port: int
    debug_port: int
    wait: bool
    debug_timeout: int
    variables: Mapping[str, str] = field(default_factory=dict)
    created: float = 0.0
    started: bool = False
    execution: str = ""
    pid: int = 0
    process: Mapping[str, Any] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    gate_port: int = 0
    token: str = field(default="", repr=False)
    by_itself: bool = False
    scoring_path: str = "/score"
    ready: Check = Check()
    ready_port: int = 0
    alive: Check = Check()
    alive_port: int = 0
    mapped: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        spec: ServiceSpec,
        engine: str,
        remote_root: str,
        variables: Mapping[str, str],
        handle: str = "",
        gate_port: int = 0,
        token: str = "",
        asked: Mapping[str, int] | None = None,
        mapped: Mapping[str, str] | None = None,
    ) -> Service:
        """The service that an engine has created from a specification."""
        return cls(
            engine=engine,
            project=spec.project,
            session=spec.session,
            name=spec.name,
            handle=handle,
            tag=spec.tag,
            digest=spec.image.digest,
            environment=spec.image.name,
            score_script=spec.score_script,
            source=spec.source,
            remote_root=remote_root,
            scoring_port=spec.scoring_port,
            debug_port=spec.debug_port,
            wait=spec.wait,
            debug_timeout=spec.debug_timeout,
            variables=variables,
            created=time.time(),
            links=spec.links,
            gate_port=gate_port,
            token=token,
            by_itself=spec.serving is not None,
            scoring_path=spec.serving.path if spec.serving is not None else "/score",
            ready=spec.ready,
            ready_port=(asked or {}).get("ready", spec.scoring_port),
            alive=spec.alive,
            alive_port=(asked or {}).get("alive", spec.scoring_port),
            mapped=mapped or {},
        )

    @property
    def path_mappings(self) -> tuple[PathMapping, ...]:
        """The path mappings of the service's code, in the order in which the debugger tries them."""
        linked = [PathMapping(Path(local), place) for place, local in {**self.links, **self.mapped}.items()]
        # The debugger takes the first that matches, so what lies in the folder comes before the folder.
        inner = [one for one in linked if self.source in one.local_root.parents]
        return (*inner, PathMapping(self.source, self.remote_root), *(one for one in linked if one not in inner))

    @property
    def endpoint(self) -> DebugEndpoint:
        """The address at which a debugger can attach."""
        return DebugEndpoint("127.0.0.1", self.debug_port, self.path_mappings)

    @property
    def scoring_url(self) -> str:
        """The URL to post requests to."""
        return f"http://127.0.0.1:{self.scoring_port}{self.scoring_path}"

    @property
    def events(self) -> Path:
        """The file to which the debuggee appends its events."""
        return self.session / "announce" / "events.jsonl"

    def local_path(self, remote: str) -> Path:
        """The path on this machine of a file that the service named."""
        for mapping in self.path_mappings:
            root = mapping.remote_root.rstrip("/")
            if remote == root or remote.startswith(root + "/"):
                return mapping.local_root / remote[len(root) + 1 :]
        return Path(remote)


@dataclass(frozen=True)
class Ended:
    """What a stopped service has left.

    Attributes:
        exit_code: Its exit code; None if it is not known.
        log: The end of its log.
    """

    exit_code: int | None
    log: bytes
