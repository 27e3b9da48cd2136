"""The frozen values that the steps of a chain hand to each other."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class PathMapping:
    """Where a folder of the developer's lies for the program that is debugged.

    Attributes:
        local_root: Absolute path on this machine.
        remote_root: Absolute path as the debugged program sees it.
    """

    local_root: Path
    remote_root: str

    def as_json(self) -> dict[str, str]:
        """The pair under the names that launch.json uses."""
        return {"localRoot": str(self.local_root), "remoteRoot": self.remote_root}


@dataclass(frozen=True)
class DebugEndpoint:
    """An address on which a debugger is welcome."""

    host: str
    port: int
    path_mappings: tuple[PathMapping, ...]


@dataclass(frozen=True)
class ImageRef:
    """A built environment that an engine can run programs in.

    Attributes:
        engine: ``docker`` or ``process``.
        digest: Hex digest of the definition that it was built from.
        name: The image's name (docker) or the environment's folder (process).
        reused: True when nothing had to be built.
        notes: Where it differs from what its definition asks for.
        live: Folders of packages in it that stay where they are, on this machine.
        variables: Of the conda file that a step's is built from, as they stand there.
        source: That file.
        debugpy: A folder with debugpy for a step that is debugged; empty where the environment has its own.
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
    """Who pulls from a registry of images.

    Attributes:
        address: The registry's host.
        username: The user.
        password: Left out of what is shown of this.
    """

    address: str
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Check:
    """How a service is asked whether it is ready, or alive.

    Attributes:
        by: What in a deployment's file says where, such as ``readiness_route``; empty where nothing does.
        port: The port in the container; 0 for the one that answers requests.
        path: Where on it.
        scheme: ``http`` or ``https``.
        method: The method of HTTP.
        seconds: Seconds that the right answer may take to come; 0 where nothing says it.
        timeout: Seconds that one answer may take; 0 where nothing says it.
        successes: Right answers in a row that it takes.
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
        """What is asked, in a message."""
        scheme = " by https" if self.scheme == "https" else ""
        where = f" on port {self.port}{scheme}" if self.port else scheme
        return f"{self.method} {self.path}{where}{f' (`{self.by}`)' if self.by else ''}"


@dataclass(frozen=True)
class Serving:
    """How an image serves by itself, without the inference server.

    Attributes:
        port: The port in the container that answers requests.
        path: Where requests are posted.
        model: Absolute path of its model, if there is one.
        model_place: The folder of the container that the model is in.
        code: Absolute path of the folder of code that it is given; None where all code is in the image.
        code_place: Where the container sees that.
        script: The scoring script, relative to that folder.
        copied: Folders and files of this machine that its image has copies of, by their places there.
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
    """What a program leaves where it fails by an exception: files ``snapshot-*.json`` beside its logs.

    Attributes:
        story: ``pipeline``, ``experiment`` or ``deployment``.
        redact: A regular expression of names whose values are left out, beside those that look secret.
    """

    story: str
    redact: str = ""


@dataclass(frozen=True)
class ServiceSpec:
    """What an engine needs to know to make a service.

    Attributes:
        project: The project's folder (where tasks.py is).
        session: Folder of the session's own files, shared with the service.
        name: The container's name.
        tag: The tag of the image to run, such as ``debug:1``.
        image: The image behind it.
        score_script: Absolute path of the entry script.
        source: Absolute path of the folder that the service runs; the script is in it.
        model_dir: Absolute path of the model folder, if there is one.
        model_below: What it is called in the folder that AZUREML_MODEL_DIR names; empty where it is that one itself.
        serving: How the image serves by itself; None where the inference server does.
        foreign: Whether the image is somebody else's, which may have no debugpy.
        ready: How it is asked whether it is ready.
        alive: How it is asked whether it is alive, where the image serves by itself.
        variables: Environment variables that were named for it.
        conda_variables: Those of conda.yml, as they stand there.
        conda_file: That file.
        links: Places of this machine that links in these folders lead to, by where a container has to have them.
        runit: Folder of runit services, for the engine without images.
        scoring_port: Port on 127.0.0.1 that answers ``/score``.
        debug_port: Port on 127.0.0.1 that welcomes a debugger.
        wait: Hold for a debugger before score.py is loaded.
        debug_timeout: Seconds that the program waits for a debugger.
        snapshots: What it leaves where it fails; None for nothing.
        summaries: Have tensors and tables described to debuggers.
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
    """A service that an engine has made; kept in a file between commands.

    Attributes:
        engine: ``docker`` or ``process``.
        project: The project's folder.
        session: Folder of the session's own files.
        name: The container's name.
        handle: The container's id (docker), or empty.
        execution: Id of runsvdir's execution in the container (docker), or empty.
        tag: The tag it was made from.
        digest: Digest of the environment.
        environment: The environment's folder or image.
        score_script: Absolute path of the entry script.
        source: Absolute path of the folder that it runs.
        remote_root: That folder as the service sees it.
        scoring_port: Port on 127.0.0.1 that answers ``/score``.
        debug_port: Port on 127.0.0.1 that welcomes a debugger.
        wait: Whether it holds for a debugger before score.py is loaded.
        debug_timeout: Seconds that it holds.
        variables: Environment variables of the service's processes.
        created: Seconds since the epoch.
        started: Whether its services have been started by runsvdir.
        pid: The supervisor's process id (process engine), 0 before the start.
        process: What tells that process from a later one of the same id; see :mod:`workflows.process_identity`.
        links: As of the specification.
        gate_port: Port on 127.0.0.1 at which the container's gate is published (docker), which asks for the token.
        token: What its forwarder says there.
        by_itself: Whether the image serves by itself.
        scoring_path: Where requests are posted.
        ready: As of the specification.
        ready_port: Port on 127.0.0.1 that says whether it is ready.
        alive: As of the specification.
        alive_port: Port on 127.0.0.1 that says whether it is alive.
        mapped: Folders and files of this machine that it has at other places, without their being mounted; by place.
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
        """The service that an engine has made of a specification."""
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
        """Where the service's code lies for it."""
        linked = [PathMapping(Path(local), place) for place, local in {**self.links, **self.mapped}.items()]
        # Of two that begin alike the debugger takes the first: so what lies in the folder comes before it.
        inner = [one for one in linked if self.source in one.local_root.parents]
        return (*inner, PathMapping(self.source, self.remote_root), *(one for one in linked if one not in inner))

    @property
    def endpoint(self) -> DebugEndpoint:
        """Where a debugger is welcome."""
        return DebugEndpoint("127.0.0.1", self.debug_port, self.path_mappings)

    @property
    def scoring_url(self) -> str:
        """Where to post requests."""
        return f"http://127.0.0.1:{self.scoring_port}{self.scoring_path}"

    @property
    def events(self) -> Path:
        """The file in which the debuggee announces what happens."""
        return self.session / "announce" / "events.jsonl"

    def local_path(self, remote: str) -> Path:
        """The developer's own path of a file that the service named."""
        for mapping in self.path_mappings:
            root = mapping.remote_root.rstrip("/")
            if remote == root or remote.startswith(root + "/"):
                return mapping.local_root / remote[len(root) + 1 :]
        return Path(remote)


@dataclass(frozen=True)
class Ended:
    """What is left of a service that was stopped.

    Attributes:
        exit_code: What it exited with; None where nobody knows.
        log: The end of its log.
    """

    exit_code: int | None
    log: bytes
