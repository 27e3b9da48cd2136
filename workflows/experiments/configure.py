"""An experiment's run configuration, changed by what was typed, checked and saved."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..azureml import data_references
from ..console import Console
from ..engines.work_folder import RUN_FOLDERS
from ..errors import UserError
from ..paths import shown
from ..project import STATE_FOLDER
from ..settings import Settings
from . import catalog, runconfig
from .environments import relative_to_project, with_environment, with_environment_folder
from .runconfig import RunConfig
from .runconfig_fields import error_at

EXAMPLE = "examples/experiment/train.py"
_REFERENCE = re.compile(
    r"\$\{\{\s*inputs\.(\w+)\s*\}\}|\$AZUREML_DATAREFERENCE_(\w+)|\$\{AZUREML_DATAREFERENCE_(\w+)\}"
)


@dataclass(frozen=True)
class RunOptions:
    """What was typed for a run; None for what was not.

    Attributes:
        script: The script, absolute.
        arguments: Its arguments.
        environment: Folder of a definition, or a name.
        data: By name, absolute local paths, or names of a workspace's data as text.
        edit: Open the run configuration in the user's editor first.
        once: Leave the run configuration as it is.
        job: A job file that is run instead, absolute.
        inputs: Values for the job file's inputs by name.
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
    """The run configuration of an experiment's next run. It is saved, unless the options are for one run only.

    Raises:
        UserError: It cannot be run. An existing run configuration is unchanged then, unless the user edited it.
    """
    project, path = settings.project, catalog.runconfig_path(settings.project, name)

    def typed() -> tuple[RunConfig | None, RunConfig]:
        """The run configuration in the file, and the same with what was typed."""
        before = runconfig.read(path) if path.exists() else None
        config = with_options(before or _first_configuration(settings, console, name, options), options, project)
        check(config, project)
        return before, config

    opened = False
    try:
        before, config = typed()
    except UserError as error:
        # An error in the file can be corrected in the editor; one in the options cannot.
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
    # The compute target is only used in a workspace.
    ignored = [name for name in config.ignored if name != "target" or settings.backend != "azureml"]
    if config.node_count > 1 and not config.distribution:
        ignored.append("nodeCount")
    if ignored:
        console.line(f"  note: not acted on: {', '.join(ignored)} ({shown(path)})")
    return config


def _first_configuration(settings: Settings, console: Console, name: str, options: RunOptions) -> RunConfig:
    """The run configuration of an experiment that has none yet, for the script that was typed or the example."""
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
    # An environment that a setting names is not written into the file: the setting decides.
    if "training_env" not in settings.set_by and settings.training_env.is_relative_to(project):
        config = with_environment_folder(config, settings.training_env, project)
    return config


def with_options(config: RunConfig, options: RunOptions, project: Path) -> RunConfig:
    """A run configuration with what was typed.

    Raises:
        UserError: The script or the environment is not valid.
    """
    if options.script is not None:
        config = replace(config, script=_path_in_project(options.script, project))
    if options.arguments is not None:
        config = replace(config, arguments=tuple(options.arguments))
    if options.data:
        data = {
            name: path if isinstance(path, str) else relative_to_project(path, project)
            for name, path in options.data.items()
        }
        config = replace(config, data={**config.data, **data})
    if options.environment is not None:
        config = with_environment(config, options.environment, project)
    # The changed fields no longer stand at their lines of the file.
    typed = {
        "script": options.script,
        "arguments": options.arguments,
        "environment": options.environment,
        "conda_file": options.environment,
    }
    gone = {name for name, value in typed.items() if value is not None} | {f"data.{key}" for key in options.data or ()}
    return replace(config, places={name: place for name, place in config.places.items() if name not in gone})


def _path_in_project(path: Path, project: Path) -> str:
    for place, root in ((path, project), (path.resolve(), project.resolve())):
        if place.is_relative_to(root):
            return place.relative_to(root).as_posix()
    raise UserError(
        f"The script {shown(path)} is not in the project's folder {project}.",
        "A run has access to that folder only: move the script there.",
    )


# Script, arguments and data -------------------------------------------------------------------------


def check(config: RunConfig, project: Path) -> None:
    """Check that the script and the data exist.

    Raises:
        UserError: One does not; with its file and line in the run configuration.
    """
    script = project / config.script
    if not script.is_file():
        what = "is a folder" if script.is_dir() else "does not exist"
        raise error_at(
            config, "script", f"The script {shown(script)} {what}.", "Create it, or name another: --script train.py"
        )
    first = Path(os.path.normpath(config.script)).parts[0]
    if first in ("..", "/") or not os.path.abspath(script).startswith(os.path.join(os.path.abspath(project), "")):
        remedy = "A run has access to that folder only: move the script there."
        raise error_at(config, "script", f"The script {script} is not in the project's folder {project}.", remedy)
    if first in (*RUN_FOLDERS, STATE_FOLDER):
        problem = f"The script {config.script} is in {first}, which every run has as a folder of its own."
        raise error_at(config, "script", problem, "Move it to another folder.")
    for name, path in config.data.items():
        if data_references.is_in_workspace(path):
            try:
                data_references.parse(path)
            except UserError as error:
                raise error_at(config, f"data.{name}", error.problem, error.remedy) from error
        elif not (project / path).exists():
            problem = f"The data {name} does not exist: {shown(Path(os.path.abspath(project / path)))}."
            raise error_at(config, f"data.{name}", problem, f"Create it, or give another path: --data {name}=PATH")
    for name in [name for argument in config.arguments for name in _data_names_in(argument)]:
        if name not in config.data:
            problem = f"The script's arguments refer to the data {name}, which has no path on this machine."
            raise error_at(config, "arguments", problem, f"Give it: --data {name}=PATH")


def _data_names_in(argument: str) -> Iterator[str]:
    for match in _REFERENCE.finditer(argument):
        yield match[1] or match[2] or match[3]


def command(config: RunConfig) -> str:
    """The command for bash; references to data become the paths that the script sees."""

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
    """A script's path as one quoted argument that cannot be taken for an option."""
    return shlex.quote(f"./{script}" if script.startswith("-") else script)


# The editor -----------------------------------------------------------------------------------------


def edit(path: Path) -> None:
    """Open a file in the user's editor and wait until the editor ends.

    Raises:
        UserError: No editor is set, or it cannot be started or fails.
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
