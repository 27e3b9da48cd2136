"""The pipeline that is submitted to a workspace, and its child runs, independent of an SDK's types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class CloudEnvironment:
    """What a step runs in.

    Attributes:
        name: Its name; of a registered or curated one, with version or label as in ``azureml:NAME:VERSION``.
        registered: Whether the workspace has it.
        image: The image that it builds on, or that is used as it is; empty for the service's default CPU image.
        conda: The conda file's content; None where an image is used as it is.
        dockerfile: A Dockerfile's text in the image's place; empty where there is none.
        context: Folder of a Docker build context.
        context_dockerfile: The Dockerfile in it, relative.
        note: A note where it differs from the pipeline file.
    """

    name: str
    registered: bool = False
    image: str = ""
    conda: Mapping[str, object] | None = None
    dockerfile: str = ""
    context: Path | None = None
    context_dockerfile: str = ""
    note: str = ""


@dataclass(frozen=True)
class CloudInput:
    """An input of a step.

    Attributes:
        path: A local file or folder, which is uploaded.
        asset: What the workspace has, as in the file.
        step: The step whose output it is.
        output: That output's name.
        file: The file that names it.
        line: Where in that file, counted from 1.
        option: The name for ``--input`` to replace it.
    """

    path: Path | None = None
    asset: str = ""
    step: str = ""
    output: str = ""
    file: Path | None = None
    line: int = 0
    option: str = ""


@dataclass(frozen=True)
class CloudStep:
    """One step.

    Attributes:
        name: Its name.
        source: The staged folder, whose content becomes the snapshot.
        script: The script in it that the service starts.
        compute: The compute target's name.
        environment: What it runs in.
        inputs: Data by name.
        outputs: Names of what it writes.
        after: Steps that have to be completed before.
        distribution: ``pytorch``, ``mpi``, ``tensorflow``, or empty.
        processes: Processes of each node.
        nodes: Nodes.
        shm_size: Size of /dev/shm; empty for the default.
        reuse: Whether an earlier run's result may be reused.
        file: The file that defines it.
        line: Where in that file, counted from 1.
    """

    name: str
    source: Path
    script: str
    compute: str
    environment: CloudEnvironment
    inputs: Mapping[str, CloudInput] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    distribution: str = ""
    processes: int = 1
    nodes: int = 1
    shm_size: str = ""
    reuse: bool = True
    file: Path | None = None
    line: int = 0


@dataclass(frozen=True)
class CloudPipeline:
    """A whole pipeline.

    Attributes:
        experiment: The experiment that its runs belong to.
        steps: Each after those that it needs.
        continue_on_failure: Whether independent steps continue when one has failed.
        tags: Tags of its run.
        uploads: Folder of the default datastore in which local data goes.
    """

    experiment: str
    steps: tuple[CloudStep, ...]
    continue_on_failure: bool
    tags: Mapping[str, str]
    uploads: str


@dataclass(frozen=True)
class ChildRun:
    """A child run as the workspace knows it.

    Attributes:
        step: The step's name.
        run_id: Its id.
        status: The service's status.
        tags: Its tags.
        error: Why it failed, where the list says so.
        reused: Whether an earlier run's result was reused.
        target: Its compute target.
    """

    step: str
    run_id: str
    status: str
    tags: Mapping[str, str] = field(default_factory=dict)
    error: str = ""
    reused: bool = False
    target: str = ""
