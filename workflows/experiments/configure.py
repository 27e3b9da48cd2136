"""An experiment's run configuration with what was typed: checked, kept, and what it asks to run in."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..azureml import data_references
from ..console import Console
from ..engines.work_folder import RUN_FOLDERS
from ..environments.definition import CONDA_FILES
from ..environments.references import ResolvedEnvironment, absolute_entry, resolve_environment
from ..errors import UserError
from ..paths import absolute, cache_folder, shown
from ..pipelines.definition import EnvironmentReference
from ..project import STATE_FOLDER, write_bytes
from ..settings import Settings
from . import catalog, runconfig
from .runconfig import RunConfig

EXAMPLE = "examples/experiment/train.py"
#: Environments whose definitions are in a registry or workspace.
_REGISTERED = ("AzureML-", "azureml:", "azureml://")
_REFERENCE = re.compile(
    r"\$\{\{\s*inputs\.(\w+)\s*\}\}|\$AZUREML_DATAREFERENCE_(\w+)|\$\{AZUREML_DATAREFERENCE_(\w+)\}"
)
_DEFINITIONS = (*CONDA_FILES, "requirements.txt")


@dataclass(frozen=True)
class RunOptions:
    """What was typed for a run; None for what was not.

    Attributes:
        script: The script, absolute.
        arguments: Its arguments.
        environment: Folder of a definition, or a name.
        data: Local paths by name, absolute; or, as text, what they are called in a workspace.
        edit: Open the run configuration in the person's editor first.
        once: Leave the run configuration as it is.
        job: A job file that is run in its place, absolute.
        inputs: Values for that one's inputs by name.
    """

    script: Path | None = None
    arguments: Sequence[str] | None = None
    environment: str | None = None
    data: Mapping[str, Path | str] | None = None
    edit: bool = False
    once: bool = False
    job: Path | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)


def configure(settings: Settings, console: Console, name: str, options: RunOptions) -> RunConfig:
    """What an experiment's next run is to be, kept in its run configuration unless it is for this once.

    Raises:
        UserError: It cannot be run so. A run configuration that is there is as it was then, unless it was edited.
    """
    project, path = settings.project, catalog.runconfig_path(settings.project, name)

    def typed() -> tuple[RunConfig | None, RunConfig]:
        """What the file says, and that with what was typed."""
        before = runconfig.read(path) if path.exists() else None
        config = changed(before or _first(settings, console, name, options), options, project)
        check(config, project)
        return before, config

    opened = False
    try:
        before, config = typed()
    except UserError as error:
        # What is wrong in the file is mended in the editor; what was typed wrong is not.
        if not options.edit or not path.exists() or error.file is None:
            raise
        console.line(f"  note: {error.file}:{error.line or 1}: {error.problem}")
        edit(path)
        opened = True
        before, config = typed()
    if config != before and not options.once and runconfig.write(path, config):
        console.line(
            f"  note: {shown(path)} {'made' if before is None else 'changed'}: what a run without flags repeats"
        )
    if options.edit and not opened:
        edit(path)
        config = runconfig.read(path)
        check(config, project)
    # A compute target is where it runs in a workspace.
    ignored = [name for name in config.ignored if name != "target" or settings.backend != "azureml"]
    if config.node_count > 1 and not config.distribution:
        ignored.append("nodeCount")
    if ignored:
        console.line(f"  note: not acted on: {', '.join(ignored)} ({shown(path)})")
    return config


def _first(settings: Settings, console: Console, name: str, options: RunOptions) -> RunConfig:
    """The run configuration of an experiment that has none; its script is given, or the example."""
    project = settings.project
    script = ""
    if options.script is None:
        if not (project / EXAMPLE).is_file():
            raise UserError(
                f"The experiment {name} has no run configuration yet, so its script is not known.",
                f"Name it: --script train.py (kept in {shown(catalog.runconfig_path(project, name))})",
            )
        script = EXAMPLE
        console.line(f"  note: no --script was given: the example {EXAMPLE} is run")
    config = RunConfig(script, use_docker=True)
    # One that a setting names is left to the setting.
    if "training_env" not in settings.set_by and settings.training_env.is_relative_to(project):
        config = _of_folder(config, settings.training_env, project)
    return config


def changed(config: RunConfig, options: RunOptions, project: Path) -> RunConfig:
    """A run configuration with what was typed.

    Raises:
        UserError: The script or the environment cannot be one.
    """
    if options.script is not None:
        config = replace(config, script=_inside(options.script, project))
    if options.arguments is not None:
        config = replace(config, arguments=tuple(options.arguments))
    if options.data:
        data = {
            name: path if isinstance(path, str) else _relative(path, project) for name, path in options.data.items()
        }
        config = replace(config, data={**config.data, **data})
    if options.environment is not None:
        config = _with_environment(config, options.environment, project)
    # What has changed is not to be looked for at its old place.
    typed = {
        "script": options.script,
        "arguments": options.arguments,
        "environment": options.environment,
        "conda_file": options.environment,
    }
    gone = {name for name, value in typed.items() if value is not None} | {f"data.{key}" for key in options.data or ()}
    return replace(config, places={name: place for name, place in config.places.items() if name not in gone})


def _inside(path: Path, project: Path) -> str:
    for place, root in ((path, project), (path.resolve(), project.resolve())):
        if place.is_relative_to(root):
            return place.relative_to(root).as_posix()
    raise UserError(
        f"The script {shown(path)} is not in the project's folder {project}.",
        "Only that folder is seen by the run: move the script there.",
    )


def _relative(path: Path, project: Path) -> str:
    try:
        return Path(os.path.relpath(path, project)).as_posix()
    except ValueError:  # another drive of Windows
        return str(path)


# Environments ---------------------------------------------------------------------------------------


def _with_environment(config: RunConfig, wanted: str, project: Path) -> RunConfig:
    """A run configuration with the environment that was typed: a folder, or a name."""
    for folder in (absolute(wanted), project / wanted, project / "env" / wanted):
        if folder.is_dir() and wanted:
            if not _is_definition(folder):
                raise UserError(
                    f"The environment folder {shown(folder)} has no conda.yml or requirements.txt.",
                    "Add one, or name another folder.",
                )
            return _of_folder(config, folder, project)
    if not wanted.startswith(_REGISTERED):
        there = sorted(entry.name for entry in (project / "env").glob("*") if _is_definition(entry))
        known = f"Those there are: {', '.join(there)}" if there else "There is none below env/ yet"
        raise UserError(
            f"There is no environment {wanted}.",
            f"{known}; or name a folder with a conda.yml, or a registered one: azureml:NAME or AzureML-NAME.",
        )
    return replace(config, environment=wanted, environment_version="", **_UNDEFINED)


_UNDEFINED: dict[str, Any] = {"conda_file": "", "conda": None, "base_dockerfile": "", "user_managed": False}


def _is_definition(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _DEFINITIONS)


def _of_folder(config: RunConfig, folder: Path, project: Path) -> RunConfig:
    """With a definition's folder: by its path as the name, and its conda file for whoever reads the file elsewhere."""
    conda_file = next((name for name in CONDA_FILES if (folder / name).is_file()), None)
    path = _relative(folder, project)
    defined = {**_UNDEFINED, "conda_file": f"{path}/{conda_file}" if conda_file else ""}
    return replace(config, environment=path, environment_version="", **defined)


def _folder_of(config: RunConfig, project: Path) -> Path | None:
    """The definition's folder that a run configuration names, unless it also says something else."""
    if not config.environment or config.conda is not None or config.base_dockerfile or config.user_managed:
        return None
    for folder in (project / config.environment, project / "env" / config.environment):
        if folder.is_dir() and _is_definition(folder):
            same = not config.conda_file or (project / config.conda_file).resolve().parent == folder.resolve()
            return Path(os.path.abspath(folder)) if same else None
    return None


def with_registered(settings: Settings, console: Console, config: RunConfig) -> RunConfig:
    """A run configuration with what the workspace has under its environment's name, where it has only the name.

    Without a workspace, or without the SDK, it stays as it is.

    Raises:
        UserError: The workspace has none of that name, or cannot be reached.
    """
    project, typed = settings.project, settings.set_by.get("training_env") == "--training-env"
    if not config.environment or not config.only_named or typed or _folder_of(config, project) is not None:
        return config
    from ..azureml import by_name, registered

    if by_name.can_bring(settings):
        # Its name is looked up where every name of an environment is.
        return config
    name = config.environment.removeprefix("azureml:")
    # SDK v1 knows nothing of registries.
    if name.startswith("//") or not registered.available(settings):
        return config
    name += f":{config.environment_version}" if config.environment_version else ""
    with console.step("environment") as step:
        try:
            found = registered.definition(settings, name, step.detail)
        except UserError as error:
            raise _at(config, "environment", error.problem, error.remedy) from error
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
    """What a run configuration asks to run in.

    Attributes:
        reference: What it says; None for the training environment of the settings.
        settings: The settings, with the folder that it names as training environment.
        notes: What of it does not count, one line each.
    """

    reference: EnvironmentReference | None
    settings: Settings
    notes: tuple[str, ...] = ()


def wanted_environment(settings: Settings, config: RunConfig, name: str, *, images: bool) -> WantedEnvironment:
    """What a run is to be run in, as its run configuration says it.

    Args:
        settings: For the default environment and the base image.
        config: The run configuration.
        name: The experiment's name.
        images: Whether it can be run in an image.

    Raises:
        UserError: A file of it is missing.
    """
    project, typed = settings.project, settings.set_by.get("training_env") == "--training-env"
    image = config.base_image if config.use_docker else ""
    folder = None if typed else _folder_of(config, project)
    if folder is not None:
        notes = []
        if "training_env" in settings.set_by and settings.training_env != folder:
            notes = [f"the run configuration names {shown(folder)}, so AML_TRAINING_ENV is not used"]
        there = replace(settings, training_env=folder, base_image=image or settings.base_image)
        return WantedEnvironment(None, there, tuple(notes))
    if typed:
        return WantedEnvironment(None, settings)
    if config.base_dockerfile and config.user_managed and images:
        context = _context(config.base_dockerfile)
        built = EnvironmentReference(*_named_at(config, name, project), build=context, dockerfile="Dockerfile")
        return WantedEnvironment(built, settings)
    notes = ["baseDockerfile is not built here"] if config.base_dockerfile else []
    file, line = _named_at(config, name, project)
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
            # Its paths are relative to the project, as the SDK has them.
            conda["dependencies"] = [absolute_entry(entry, project) for entry in conda["dependencies"]]
        reference = EnvironmentReference(file, line, image=image or None, conda=conda)
    elif image:
        reference = EnvironmentReference(file, line, image=image)
    elif config.environment:
        version = f":{config.environment_version}" if config.environment_version else ""
        reference = EnvironmentReference(file, line, name=f"{config.environment}{version}")
    return WantedEnvironment(reference, settings, tuple(notes))


def resolved_environment(settings: Settings, config: RunConfig, name: str, engine: str) -> ResolvedEnvironment:
    """What a run is to be run in on this machine; nothing is built yet.

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


def _named_at(config: RunConfig, name: str, project: Path) -> tuple[Path, int]:
    """File and line where a run configuration names its environment."""
    place = config.places.get("conda_file") or config.places.get("environment")
    return place or (catalog.runconfig_path(project, name), 1)


def _context(dockerfile: str) -> Path:
    """A build context with nothing but this Dockerfile; the same for the same text."""
    data = dockerfile.encode()
    folder = cache_folder() / "dockerfiles" / hashlib.sha256(data).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / "Dockerfile", data)
    return folder


def _noted(environment: ResolvedEnvironment, notes: Sequence[str]) -> ResolvedEnvironment:
    return replace(environment, notes=(*notes, *environment.notes))


# Script, arguments and data -------------------------------------------------------------------------


def check(config: RunConfig, project: Path) -> None:
    """See that the script and the data are there.

    Raises:
        UserError: One is not; with the place in the run configuration where it names that.
    """
    script = project / config.script
    if not script.is_file():
        what = "is a folder" if script.is_dir() else "does not exist"
        raise _at(
            config, "script", f"The script {shown(script)} {what}.", "Create it, or name another: --script train.py"
        )
    first = Path(os.path.normpath(config.script)).parts[0]
    if first in ("..", "/") or not os.path.abspath(script).startswith(os.path.join(os.path.abspath(project), "")):
        remedy = "Only that folder is seen by the run: move the script there."
        raise _at(config, "script", f"The script {script} is not in the project's folder {project}.", remedy)
    if first in (*RUN_FOLDERS, STATE_FOLDER):
        problem = f"The script {config.script} is in {first}, which every run has as a folder of its own."
        raise _at(config, "script", problem, "Move it to another folder.")
    for name, path in config.data.items():
        if data_references.in_workspace(path):
            try:
                data_references.parse(path)
            except UserError as error:
                raise _at(config, f"data.{name}", error.problem, error.remedy) from error
        elif not (project / path).exists():
            problem = f"The data {name} does not exist: {shown(Path(os.path.abspath(project / path)))}."
            raise _at(config, f"data.{name}", problem, f"Create it, or give another path: --data {name}=PATH")
    for name in [name for argument in config.arguments for name in _referred(argument)]:
        if name not in config.data:
            problem = f"The script's arguments refer to the data {name}, of which there is nothing on this machine."
            raise _at(config, "arguments", problem, f"Give it: --data {name}=PATH")


def _at(config: RunConfig, field: str, problem: str, remedy: str) -> UserError:
    file, line = config.places.get(field, (None, None))
    return UserError(problem, remedy, file=None if file is None else shown(file), line=line)


def _referred(argument: str) -> Iterator[str]:
    for match in _REFERENCE.finditer(argument):
        yield match[1] or match[2] or match[3]


def command(config: RunConfig) -> str:
    """The text for bash; what refers to data becomes the path where the script sees it."""

    def quoted(argument: str) -> str:
        parts, at = [], 0
        for match in _REFERENCE.finditer(argument):
            parts += [shlex.quote(argument[at : match.start()])] if match.start() > at else []
            parts += [f'"${{AZUREML_DATAREFERENCE_{match[1] or match[2] or match[3]}}}"']
            at = match.end()
        if at < len(argument) or not argument:
            parts.append(shlex.quote(argument[at:]))
        return "".join(parts)

    return " ".join(["python", quoted_script(config.script), *map(quoted, config.arguments)])


def quoted_script(script: str) -> str:
    """A script's path as one word that is no option."""
    return shlex.quote(f"./{script}" if script.startswith("-") else script)


# The editor -----------------------------------------------------------------------------------------


def edit(path: Path) -> None:
    """Have the person edit a file, and wait for the end of it.

    Raises:
        UserError: No editor is named, or it cannot be started or fails.
    """
    import subprocess

    named = os.environ.get("VISUAL") or os.environ.get("EDITOR") or ""
    try:
        words = shlex.split(named)
    except ValueError as error:
        raise UserError(f"The editor {named} cannot be read: {error}.", "Correct EDITOR (or VISUAL).") from error
    if not words:
        raise UserError("No editor is named for --edit.", f"Set EDITOR, such as EDITOR=nano; or edit {shown(path)}.")
    try:
        code = subprocess.run([*words, str(path)], check=False).returncode
    except OSError as error:
        raise UserError(
            f"The editor {words[0]} cannot be started: {error.strerror}.", "Correct EDITOR (or VISUAL)."
        ) from error
    if code:
        raise UserError(f"The editor {words[0]} ended with {code}, so nothing was started.", "Run it again.")
