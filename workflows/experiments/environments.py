"""The environment of an experiment's run: what its run configuration asks for, and what was typed in its place."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..console import Console
from ..environments.definition import CONDA_FILES
from ..environments.references import ResolvedEnvironment, absolute_entry, resolve_environment
from ..errors import UserError
from ..paths import absolute, cache_folder, shown
from ..pipelines.definition import EnvironmentReference
from ..project import write_bytes
from ..settings import Settings
from . import catalog
from .runconfig import RunConfig
from .runconfig_fields import error_at

#: Environments whose definitions are in a registry or workspace.
_REGISTERED = ("AzureML-", "azureml:", "azureml://")
_DEFINITIONS = (*CONDA_FILES, "requirements.txt")


def relative_to_project(path: Path, project: Path) -> str:
    """A path relative to the project's folder, with `/`; absolute where it is on another drive."""
    try:
        return Path(os.path.relpath(path, project)).as_posix()
    except ValueError:  # another drive of Windows
        return str(path)


def with_environment(config: RunConfig, wanted: str, project: Path) -> RunConfig:
    """A run configuration with the environment that was typed: a folder, or a name."""
    for folder in (absolute(wanted), project / wanted, project / "env" / wanted):
        if folder.is_dir() and wanted:
            if not _is_definition(folder):
                raise UserError(
                    f"The environment folder {shown(folder)} has no conda.yml or requirements.txt.",
                    "Add one, or name another folder.",
                )
            return with_environment_folder(config, folder, project)
    if not wanted.startswith(_REGISTERED):
        there = sorted(entry.name for entry in (project / "env").glob("*") if _is_definition(entry))
        known = f"Existing ones: {', '.join(there)}" if there else "There is none below env/ yet"
        raise UserError(
            f"There is no environment {wanted}.",
            f"{known}; or name a folder with a conda.yml, or a registered one: azureml:NAME or AzureML-NAME.",
        )
    return replace(config, environment=wanted, environment_version="", **_UNDEFINED)


_UNDEFINED: dict[str, Any] = {"conda_file": "", "conda": None, "base_dockerfile": "", "user_managed": False}


def _is_definition(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _DEFINITIONS)


def with_environment_folder(config: RunConfig, folder: Path, project: Path) -> RunConfig:
    """A run configuration with the environment of a definition's folder.

    The folder's path becomes the environment's name. The conda file is named as well, for other programs that read the
    run configuration.
    """
    conda_file = next((name for name in CONDA_FILES if (folder / name).is_file()), None)
    path = relative_to_project(folder, project)
    defined = {**_UNDEFINED, "conda_file": f"{path}/{conda_file}" if conda_file else ""}
    return replace(config, environment=path, environment_version="", **defined)


def _environment_folder(config: RunConfig, project: Path) -> Path | None:
    """The definition's folder that a run configuration names; None where it also defines something else."""
    if not config.environment or config.conda is not None or config.base_dockerfile or config.user_managed:
        return None
    for folder in (project / config.environment, project / "env" / config.environment):
        if folder.is_dir() and _is_definition(folder):
            same = not config.conda_file or (project / config.conda_file).resolve().parent == folder.resolve()
            return Path(os.path.abspath(folder)) if same else None
    return None


def with_registered_environment(settings: Settings, console: Console, config: RunConfig) -> RunConfig:
    """Replace an environment's name by its definition in the workspace, where the run configuration has only the name.

    Without a workspace or the SDK, the run configuration is returned unchanged.

    Raises:
        UserError: The workspace has no environment of that name, or cannot be reached.
    """
    project, typed = settings.project, settings.set_by.get("training_env") == "--training-env"
    if not config.environment or not config.only_named or typed or _environment_folder(config, project) is not None:
        return config
    from ..azureml import named_assets, registered_environments

    if named_assets.can_download(settings):
        # The name is looked up later, with every other environment's name.
        return config
    name = config.environment.removeprefix("azureml:")
    # SDK v1 knows nothing of registries.
    if name.startswith("//") or not registered_environments.can_look_up(settings):
        return config
    name += f":{config.environment_version}" if config.environment_version else ""
    with console.step("environment") as step:
        try:
            found = registered_environments.find_definition(settings, name, step.detail)
        except UserError as error:
            raise error_at(config, "environment", error.problem, error.remedy) from error
        step.text = f"{name}, as the workspace has it"
    return replace(
        config,
        base_image=found.image,
        base_dockerfile=found.dockerfile,
        conda=found.conda,
        user_managed=found.conda is None,
        use_docker=True,
    )


@dataclass(frozen=True)
class WantedEnvironment:
    """The environment that a run configuration names.

    Attributes:
        reference: The environment; None for the training environment of the settings.
        settings: The settings, with the folder that the run configuration names as training environment.
        notes: What of it is not used, one line each.
    """

    reference: EnvironmentReference | None
    settings: Settings
    notes: tuple[str, ...] = ()


def wanted_environment(settings: Settings, config: RunConfig, name: str, *, images: bool) -> WantedEnvironment:
    """The environment that a run configuration names.

    Args:
        settings: For the default environment and the base image.
        config: The run configuration.
        name: The experiment's name.
        images: Whether runs can use an image.

    Raises:
        UserError: One of its files is missing.
    """
    project, typed = settings.project, settings.set_by.get("training_env") == "--training-env"
    image = config.base_image if config.use_docker else ""
    folder = None if typed else _environment_folder(config, project)
    if folder is not None:
        notes = []
        if "training_env" in settings.set_by and settings.training_env != folder:
            notes = [f"the run configuration names {shown(folder)}, so AML_TRAINING_ENV is not used"]
        there = replace(settings, training_env=folder, base_image=image or settings.base_image)
        return WantedEnvironment(None, there, tuple(notes))
    if typed:
        return WantedEnvironment(None, settings)
    if config.base_dockerfile and config.user_managed and images:
        context = _build_context(config.base_dockerfile)
        built = EnvironmentReference(*_environment_place(config, name, project), build=context, dockerfile="Dockerfile")
        return WantedEnvironment(built, settings)
    notes = ["baseDockerfile is not built here"] if config.base_dockerfile else []
    file, line = _environment_place(config, name, project)
    reference = None
    if config.user_managed:
        if image and images:
            reference = EnvironmentReference(file, line, image=image)
        else:
            reference = EnvironmentReference(file, line, name="with userManagedDependencies")
    elif config.conda_file:
        conda_file = Path(os.path.abspath(project / config.conda_file))
        if not conda_file.is_file():
            raise UserError(
                f"The conda file {config.conda_file} does not exist.",
                "Create or correct it; its path is relative to the project's folder.",
                file=shown(file),
                line=line,
            )
        reference = EnvironmentReference(file, line, image=image or None, conda_file=conda_file)
    elif config.conda is not None:
        conda = dict(config.conda)
        if isinstance(conda.get("dependencies"), list):
            # Its paths are relative to the project, as in the SDK.
            conda["dependencies"] = [absolute_entry(entry, project) for entry in conda["dependencies"]]
        reference = EnvironmentReference(file, line, image=image or None, conda=conda)
    elif image:
        reference = EnvironmentReference(file, line, image=image)
    elif config.environment:
        version = f":{config.environment_version}" if config.environment_version else ""
        reference = EnvironmentReference(file, line, name=f"{config.environment}{version}")
    return WantedEnvironment(reference, settings, tuple(notes))


def resolved_environment(settings: Settings, config: RunConfig, name: str, engine: str) -> ResolvedEnvironment:
    """The environment of a run on this machine. Nothing is built yet.

    Args:
        settings: For the default environment and the base image.
        config: The run configuration.
        name: The experiment's name.
        engine: ``docker`` or ``process``.

    Raises:
        UserError: Its definition is missing or cannot be read.
    """
    wanted = wanted_environment(settings, config, name, images=engine == "docker")
    return _noted(resolve_environment(wanted.reference, wanted.settings, engine), wanted.notes)


def _environment_place(config: RunConfig, name: str, project: Path) -> tuple[Path, int]:
    """The file and line at which a run configuration names its environment."""
    place = config.places.get("conda_file") or config.places.get("environment")
    return place or (catalog.runconfig_path(project, name), 1)


def _build_context(dockerfile: str) -> Path:
    """A build context that contains only this Dockerfile; the folder depends only on the text."""
    data = dockerfile.encode()
    folder = cache_folder() / "dockerfiles" / hashlib.sha256(data).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / "Dockerfile", data)
    return folder


def _noted(environment: ResolvedEnvironment, notes: Sequence[str]) -> ResolvedEnvironment:
    return replace(environment, notes=(*notes, *environment.notes))
