"""A pipeline as it is run: what pipeline.yml and its component files say, resolved.

The terms are those of the job schema, version 2:
https://learn.microsoft.com/azure/machine-learning/reference-yaml-job-pipeline
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .trials import Sweep

#: Types whose value is one file. Every other type of data is a folder, or either.
FILE_TYPES = ("uri_file",)
FOLDER_TYPES = ("uri_folder", "mltable", "mlflow_model", "custom_model", "triton_model")
LITERAL_TYPES = ("string", "number", "integer", "boolean")


@dataclass(frozen=True)
class Input:
    """One input of a step, resolved; with neither text nor path nor step it is optional and not given.

    Attributes:
        type: As in the file: ``string``, ``integer``, ``uri_folder``, …
        text: A literal's value as the command sees it.
        path: Absolute local path of data.
        url: ``http(s)://`` address that has to be fetched first.
        asset: What the workspace has: ``azureml://…``, or ``azureml:NAME:VERSION``.
        step: The step whose output it is.
        output: The name of that output.
        file: The file that gives the value.
        line: Where in that file, counted from 1.
        option: What to give to ``--input`` in its place, without the path; empty where it is no data.
    """

    type: str
    text: str | None = None
    path: Path | None = None
    url: str | None = None
    asset: str | None = None
    step: str | None = None
    output: str | None = None
    file: Path | None = None
    line: int = 0
    option: str = ""

    @property
    def given(self) -> bool:
        """Whether it has a value."""
        return any(value is not None for value in (self.text, self.path, self.url, self.asset, self.step))


@dataclass(frozen=True)
class EnvironmentReference:
    """What a step wants to run in.

    Attributes:
        name: A curated or registered name (``azureml:…``), where it is not defined here.
        image: The image that it builds on.
        conda_file: Absolute path of the conda file.
        conda: The conda file's content, where it is written into the pipeline file itself.
        build: Absolute path of a Docker build context.
        dockerfile: The Dockerfile in it, relative.
        file: The file that names it.
        line: Where in that file, counted from 1.
    """

    file: Path
    line: int
    name: str | None = None
    image: str | None = None
    conda_file: Path | None = None
    conda: Mapping[str, Any] | None = None
    build: Path | None = None
    dockerfile: str | None = None


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        name: Its key under ``jobs``; in a nested pipeline with that one's name and a point in front.
        command: As in the file: with ``${{inputs.x}}``, ``${{outputs.x}}`` and ``$[[ … ]]``.
        code: Absolute path of its source folder (or file); None where it has none.
        environment: What it wants to run in; None for the default one.
        inputs: Every declared input.
        outputs: Type (``uri_folder``, ``uri_file``, …) of every declared output.
        variables: Environment variables.
        distribution: ``pytorch``, ``mpi``, ``tensorflow``, or empty.
        processes: Processes of each instance.
        instances: Instances (nodes).
        shm_size: Size of /dev/shm in containers, such as ``2g``; empty for the default.
        after: Steps whose outputs it takes.
        includes: Absolute paths of files and folders that lie beside the code in the working folder.
        compute: Name of its compute target, without ``azureml:``; empty where the file names none.
        kind: ``command``; ``parallel``; ``sweep`` for its only trial, ``trial`` for one of several, and ``best`` for
            what takes the best of these, which are those that it comes ``after``.
        sweep: Of a sweep and of ``best``, what its trials are.
        seconds: How long it may run where nobody debugs it; 0 for no limit.
        file: The file that holds its command.
        line: Where in that file, counted from 1.
        world: How many processes it is over all instances, where not each instance has as many; 0 where it has.
    """

    name: str
    command: str
    code: Path | None
    environment: EnvironmentReference | None
    file: Path
    line: int
    inputs: Mapping[str, Input] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    distribution: str = ""
    processes: int = 1
    instances: int = 1
    shm_size: str = ""
    after: tuple[str, ...] = ()
    includes: tuple[Path, ...] = ()
    compute: str = ""
    kind: str = "command"
    sweep: Sweep | None = None
    seconds: int = 0
    world: int = 0

    @property
    def ranks(self) -> int:
        """How many processes it is, over all instances."""
        return self.world or self.processes * self.instances


@dataclass(frozen=True)
class Skipped:
    """A step, or a nested pipeline, that does not run here.

    Attributes:
        name: Its full name.
        reason: Why.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class Pipeline:
    """A pipeline file, resolved and checked.

    Attributes:
        name: ``name``, ``display_name`` or the file's folder or stem, in letters fit for a file name.
        file: Absolute path.
        steps: In an order in which each comes after those that it needs.
        outputs: The pipeline's outputs: name to (step, output).
        continue_on_failure: Whether independent steps go on when one has failed.
        notes: What is done differently here, one line each, such as fields that are not acted on.
        skipped: What does not run here.
        asked: Names of the steps that were asked for, in full; empty where all were.
        files: What it has been read from, absolute, in the order in which they are named.
    """

    name: str
    file: Path
    steps: tuple[Step, ...]
    outputs: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    continue_on_failure: bool = True
    notes: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    asked: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()

    def with_steps(self, steps: Sequence[Step]) -> Pipeline:
        """The same with other code for its steps, which are the same ones."""
        return replace(self, steps=tuple(steps))
