"""The resolved pipeline, made from pipeline.yml and its component files.

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

#: Types whose value is a single file. Every other type of data is a folder, or may be either.
FILE_TYPES = ("uri_file",)
FOLDER_TYPES = ("uri_folder", "mltable", "mlflow_model", "custom_model", "triton_model")
LITERAL_TYPES = ("string", "number", "integer", "boolean")


@dataclass(frozen=True)
class Input:
    """One resolved input of a step. An optional input that is not given has no text, path or step.

    Attributes:
        type: As in the file: ``string``, ``integer``, ``uri_folder``, …
        text: A literal's value as the command sees it.
        path: Absolute local path of data.
        url: ``http(s)://`` address that has to be fetched first.
        asset: Data in the workspace: ``azureml://…``, or ``azureml:NAME:VERSION``.
        step: The step whose output it is.
        output: The name of that output.
        file: The file that gives the value.
        line: Where in that file, counted from 1.
        option: Its name for ``--input``; empty if it is not data.
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
    """The environment that a step names or defines.

    Attributes:
        name: A curated or registered name (``azureml:…``), if it is not defined here.
        image: The base image.
        conda_file: Absolute path of the conda file.
        conda: The conda file's content, if that is in the pipeline file itself.
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
        name: Its key under ``jobs``; in a nested pipeline preceded by that pipeline's name and a dot.
        command: As in the file: with ``${{inputs.x}}``, ``${{outputs.x}}`` and ``$[[ … ]]``.
        code: Absolute path of its source folder (or file); None if it has none.
        environment: The environment that it names; None for the default one.
        inputs: Every declared input.
        outputs: Type (``uri_folder``, ``uri_file``, …) of every declared output.
        variables: Environment variables.
        distribution: ``pytorch``, ``mpi``, ``tensorflow``, or empty.
        processes: Processes of each instance.
        instances: Instances (nodes).
        shm_size: Size of /dev/shm in containers, such as ``2g``; empty for the default.
        after: Steps whose outputs it takes.
        includes: Absolute paths of files and folders that are placed beside the code in the working folder.
        compute: Name of its compute target, without ``azureml:``; empty if the file names none.
        kind: ``command``; ``parallel``; ``sweep`` for a sweep's only trial, ``trial`` for one of several, and ``best``
            for the step that chooses the best of the trials, which are in ``after``.
        sweep: The trials of a sweep; also set for ``best``.
        seconds: How long it may run if it is not debugged; 0 for no limit.
        file: The file with its command.
        line: Where in that file, counted from 1.
        world: The number of processes on all instances, if the instances have different numbers; otherwise 0.
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
        """The number of its processes on all instances."""
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
        name: ``name``, ``display_name`` or the file's folder or stem, with only letters that a file name can have.
        file: Absolute path.
        steps: The steps, each after those that it needs.
        outputs: The pipeline's outputs: name to (step, output).
        continue_on_failure: Whether independent steps go on when one has failed.
        notes: What works differently here, one line each, such as ignored fields.
        skipped: The steps and nested pipelines that do not run here.
        asked: Full names of the requested steps; empty if all were requested.
        files: Absolute paths of the files that it was read from, in the order in which they are named.
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
        """The same pipeline with changed steps, which have the same names and order."""
        return replace(self, steps=tuple(steps))
