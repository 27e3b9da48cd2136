"""Makes a job of azure-ai-ml for an experiment's run, from a job file or from a run configuration."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ...errors import UserError
from ...experiments.configure import command
from ...experiments.environments import wanted_environment
from ...experiments.runconfig import RunConfig
from ...paths import shown
from ...pipelines.yaml_file import Value
from ...reading import read_bytes
from ...settings import Settings, packaged_defaults
from ..data_references import AssetName, is_in_workspace, parse
from ..environments import cloud_environment
from . import validation
from .job_file import LoadedJob, describe_job, load
from .sdk_module import quiet

if TYPE_CHECKING:
    from ...flows.pipeline import Wanted
    from .assets import Assets

#: The default base image: Azure ML's own image for CPUs, which has an SSH server.
IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:latest"
#: Types of data by the service's names for them, in either spelling.
_TYPES = {"urifile": "uri_file", "urifolder": "uri_folder", "mltable": "mltable"}
_REGISTRY = "azureml://registries/"


@dataclass(frozen=True)
class JobInput:
    """An input of a run.

    Attributes:
        type: ``uri_file``, ``uri_folder`` or ``mltable``.
        path: An absolute path on this machine, or the data's name in the workspace.
    """

    type: str
    path: str


def job_from_file(file: Path, name: str, settings: Settings, sdk: Any, wanted: Wanted) -> LoadedJob:
    """The run of a job file.

    Args:
        file: The file.
        name: The experiment's name.
        settings: The project, and a compute target for a file that names none.
        sdk: The module ``azure.ai.ml``.
        wanted: Values for its inputs.

    Raises:
        UserError: It cannot be read, the SDK does not accept it, or it is a pipeline.
    """
    loaded = load(file, settings.project, sdk, wanted, settings.compute_target)
    if not loaded.single:
        what = f"has {len(loaded.steps)} steps" if len(loaded.steps) != 1 else "is not a job, and runs as a pipeline"
        raise UserError(
            f"{shown(file)} {what}; an experiment in a workspace is one job.",
            f"Run it as a pipeline: inv pipeline.debug --backend azureml --file {shown(file)}",
        )
    named = describe_job(loaded.job, name, loaded.file)
    text = " ".join(named.steps[0].command.split()) or f"a job of type {loaded.job.type}"
    return replace(named, experiment=name, shown=text)


def job_from_configuration(
    settings: Settings, config: RunConfig, name: str, file: Path, assets: Callable[[], Assets]
) -> LoadedJob:
    """The run of a run configuration.

    Args:
        settings: The project, its training environment, and a compute target in place of the run configuration's.
        config: The run configuration.
        name: The experiment's name.
        file: The run configuration's file.
        assets: Returns the workspace's assets; called only where data is given by their names.

    Raises:
        UserError: Its data does not exist, or its environment cannot be used in a workspace.
    """
    inputs = {key: _input(key, text, settings.project, assets) for key, text in config.data.items()}
    environment, notes = _environment(settings, config, name)
    with quiet():
        job = _job(settings, config, inputs, environment)
        validation.check(job, Value({}, file, 1))
    text = shlex.join([config.script, *config.arguments])
    return replace(describe_job(job, name, file), experiment=name, shown=text, notes=notes, needs_compute=True)


def _job(settings: Settings, config: RunConfig, inputs: Mapping[str, JobInput], environment: Any) -> Any:
    from azure.ai.ml import Input, MpiDistribution, PyTorchDistribution
    from azure.ai.ml import command as command_job

    kinds = {"mpi": MpiDistribution, "pytorch": PyTorchDistribution}
    kind = kinds.get(config.distribution)
    return command_job(
        command=job_command(config),
        code=str(settings.project),
        environment=environment,
        environment_variables=dict(config.variables),
        inputs={key: Input(type=one.type, path=one.path) for key, one in inputs.items()},
        distribution=kind(process_count_per_instance=config.processes) if kind is not None else None,
        instance_count=config.node_count if kind is not None else None,
        shm_size=config.shm_size if config.shm_size != RunConfig("").shm_size else None,
        compute=config.target if config.target != "local" else settings.compute_target,
    )


def job_command(config: RunConfig) -> str:
    """The command for bash. The script finds its data at $AZUREML_DATAREFERENCE_NAME, as on this machine."""
    places = [f'export AZUREML_DATAREFERENCE_{name}="${{{{inputs.{name}}}}}"' for name in config.data]
    return " && ".join([*places, command(config)])


# Data -------------------------------------------------------------------------------------------------


def _input(key: str, text: str, project: Path, assets: Callable[[], Assets]) -> JobInput:
    if not key.isidentifier():
        raise UserError(f"{key} cannot be the name of data in a workspace.", "Begin it with a letter: --data NAME=PATH")
    if not is_in_workspace(text):
        path = Path(os.path.abspath(project / text))
        return JobInput("uri_folder" if path.is_dir() else "uri_file", str(path))
    wanted = parse(text)
    if not isinstance(wanted, AssetName):
        # The type is guessed from the name: the user who submits may not be allowed to read the data.
        is_file = bool(PurePosixPath(wanted.path).suffix) and not text.endswith("/")
        return JobInput("uri_file" if is_file else "uri_folder", text)
    asset = assets().find(wanted)
    kind = str(asset.properties.get("dataType") or "")
    named = asset.named
    found = _TYPES.get(kind.replace("_", "").lower())
    if found is None:
        raise UserError(
            f"The data asset {named} is of the type {kind[:40] or 'none'}, which no input accepts.",
            "Name another asset, or its files: azureml://datastores/STORE/paths/PATH",
        )
    if named.registry:
        return JobInput(found, f"{_REGISTRY}{named.registry}/data/{named.name}/versions/{named.version}")
    return JobInput(found, f"azureml:{named.name}:{named.version}")


# Environments -----------------------------------------------------------------------------------------


def _environment(settings: Settings, config: RunConfig, name: str) -> tuple[Any, tuple[str, ...]]:
    """The environment as an object of the SDK, and notes on what is not used."""
    from azure.ai.ml.entities import BuildContext, Environment

    # In a workspace, every run is in a container.
    config = replace(config, use_docker=True)
    if config.user_managed and not (config.base_image or config.base_dockerfile):
        config = replace(config, base_image=IMAGE)
    wanted = wanted_environment(settings, config, name, images=True)
    if wanted.reference is not None and wanted.reference.name is not None:
        return _registered(wanted.reference.name), wanted.notes
    # debugpy is sent with the code, so the environment is the same with and without debugging.
    asked = cloud_environment(wanted.reference, wanted.settings, debugged=False)
    notes = list(wanted.notes)
    with quiet():
        if asked.context is not None:
            build = BuildContext(path=str(asked.context), dockerfile_path=asked.context_dockerfile)
            return Environment(build=build), tuple(notes)
        own = wanted.settings.training_env / "Dockerfile"
        if asked.dockerfile and read_bytes(own) != read_bytes(_default_dockerfile()):
            notes.append(
                f"{shown(own)} is not built in the workspace: the packages are installed on {asked.image or IMAGE};"
                " --environment azureml:NAME names one that is registered there"
            )
        conda = {"conda_file": dict(asked.conda)} if asked.conda is not None else {}
        return Environment(image=asked.image or IMAGE, **conda), tuple(notes)


def _default_dockerfile() -> Path:
    return packaged_defaults() / "env" / "training" / "Dockerfile"


def _registered(text: str) -> str:
    """The name of an environment in a job: with its version, or the label of the newest one."""
    text = text.strip()
    if text.startswith("azureml:/"):
        return text
    plain = text.removeprefix("azureml:")
    return f"azureml:{plain}" if ":" in plain or "@" in plain else f"azureml:{plain}@latest"
