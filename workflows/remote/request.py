"""Translates a task typed here into the remote command: with remote paths, and with the local settings."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

from ..deployments import overlay
from ..paths import absolute
from ..settings import Settings
from ..settings_table import BY_FIELD
from .remote_paths import RemotePaths

#: The ways in which a flag's value can name a file on this machine.
PATH, NAMED, LOCATION, MAYBE, FORM = "path", "name=path", "file:line", "path or name", "name=@path"

#: The parameter for a service's environment variables.
_VARIABLES = "env"
#: Tasks that create a service.
_MAKING = ("deploy.build", "deploy.tag", "deploy.run", "deploy.debug", "vscode.setup")
#: Settings that every task may use. Of the others, a task gets those for which it has a flag.
_ALWAYS = ("engine", "image_tag", "container_name", "debug_timeout")


@dataclass(frozen=True)
class TypedTask:
    """One task as it was typed.

    Attributes:
        name: Its full name, such as ``deploy.debug``.
        values: The values of its own flags, by parameter.
        defaults: The default values of these flags.
        fields: The settings for which it has a flag.
        flags: Settings typed on the command line, by field.
        positional: Parameters without a flag.
        kinds: The parameters that name files, and how.
        as_json: Whether ``--json`` was typed.
        remainder: The arguments after ``--``; None without ``--``.
    """

    name: str
    values: Mapping[str, Any]
    defaults: Mapping[str, Any]
    fields: Sequence[str]
    flags: Mapping[str, str]
    positional: Sequence[str] = ()
    kinds: Mapping[str, str] = field(default_factory=dict)
    as_json: bool = False
    remainder: Sequence[str] | None = None

    @property
    def handed(self) -> list[str]:
        """The local settings that the task needs, by field."""
        own = [*_ALWAYS, *self.fields]
        if self.name.startswith("deploy."):
            # Every task of the service uses the local code.
            own += ["score_script", "source_directory", "deployment"]
        # The file of variables is read on this machine, and its content is passed on.
        return [name for name in dict.fromkeys(own) if not name.startswith("remote_") and name != "service_env"]


def include_named_files(typed: TypedTask, settings: Settings, paths: RemotePaths) -> None:
    """Find the local files that the task names, so that they are sent."""
    for name, value in _named_settings(typed, settings):
        if name == "score_script" and value.is_file():
            # A service runs in the folder of its script, unless another one is named.
            paths.include_code(settings.source_root)
        elif name.endswith(("_env", "source_directory")) and value.is_dir():
            paths.include_code(value)
        elif value.exists():
            paths.include(value)
    for name, kind in typed.kinds.items():
        for text in _as_list(typed.values.get(name)):
            path = _path_in(text, kind)
            if path is not None:
                paths.include(path)
    job = typed.values.get("job")
    if typed.name in ("experiment.run", "experiment.debug") and job is None:
        _include_experiment(typed, paths)
    if settings.deployment is not None and (typed.name.startswith("deploy.") or typed.name == "vscode.setup"):
        _include_deployment(typed, settings, paths)
    if job is not None:
        _include_pipeline(typed, absolute(str(job)), True, paths)
    if typed.name in ("pipeline.submit", "pipeline.debug", "vscode.setup"):
        _include_pipeline(typed, settings.pipeline_file, "pipeline_file" in settings.set_by, paths)


def _named_settings(typed: TypedTask, settings: Settings) -> list[tuple[str, Path]]:
    return [
        (name, getattr(settings, name))
        for name in typed.handed
        if BY_FIELD[name].path
        and name in settings.set_by
        and name not in ("pipeline_file", "deployment")
        and name not in overlay.overruled_settings(settings)
    ]


def _include_experiment(typed: TypedTask, paths: RemotePaths) -> None:
    """Send the data that a run configuration names. Data outside the project is passed to the remote task by a flag."""
    from ..errors import UserError
    from ..experiments import catalog, runconfig

    path = catalog.runconfig_path(paths.project, str(typed.values["name"]))
    try:
        data = runconfig.read(path).data if path.is_file() else {}
    except UserError:
        # The remote task reports the error.
        return
    known = {text.partition("=")[0] for text in _as_list(typed.values.get("data"))}
    for name, place in data.items():
        full = Path(os.path.abspath(paths.project / place))
        if name in known or not full.exists():
            continue
        paths.include(full)
        if not full.is_relative_to(paths.project):
            typed.values["data"].append(f"{name}={full}")


def _include_deployment(typed: TypedTask, settings: Settings, paths: RemotePaths) -> None:
    """Send what a deployment's file names, after checking that the file can be read."""
    from ..errors import UserError

    file = settings.deployment
    assert file is not None
    try:
        found = overlay.apply_deployment_file(settings).deployment
    except UserError:
        if typed.name in _MAKING:
            raise
        # The running service does not need the file.
        return
    if found is None:
        return
    inside = file.is_relative_to(paths.project)
    paths.include(file if inside else file.parent)
    code = [found.code] if found.code is not None else []
    others = [found.model.path] if found.model is not None else []
    if found.environment is not None:
        others += [path for path in (found.environment.conda_file, found.environment.build) if path is not None]
    for path in (*code, *others):
        if path in code and path.is_relative_to(paths.project):
            paths.include_code(path)
        elif path.is_relative_to(paths.project):
            paths.include(path)
        elif not any(path.is_relative_to(place) for place in paths.outside):
            raise UserError(
                f"{path}, which {file.name} names, lies outside the project's folder, so it has no such place on the "
                "other machine.",
                "Move it into the project; of a model its folder can be named: --model-dir FOLDER",
                file=file,
            )


def _include_pipeline(typed: TypedTask, named: Path, own: bool, paths: RemotePaths) -> None:
    """Send what a pipeline file and its components name, after checking that they can be read.

    Args:
        typed: The task.
        named: The file.
        own: Whether it is the user's own file and not the program's example.
        paths: Takes what travels.
    """
    from ..errors import UserError
    from ..pipelines import python_file
    from ..pipelines.reader import load_pipeline

    replaced = dict(text.split("=", 1) for text in _as_list(typed.values.get("input")) if "=" in text)
    # The remote machine checks whether data of a workspace is accessible.
    only, skip = (tuple(_as_list(typed.values.get(name))) for name in ("step", "skip"))
    pipeline = load_pipeline(named, replaced, project=paths.project, only=only, skip=skip, fetch_data=True)
    in_python = python_file.parse_place(named)
    if in_python is not None:
        # Sent with the modules and component files next to it, since the SDK builds the pipeline on the remote machine.
        paths.include_code(in_python.file.parent)
    elif named.is_relative_to(paths.project):
        paths.include(named)
    elif own:
        paths.include(named.parent)
    for step in pipeline.steps:
        found = [(entry.path, entry.file, entry.line) for entry in step.inputs.values() if entry.path is not None]
        code = [step.code] if step.code is not None else []
        found += [(path, step.file, step.line) for path in (*code, *step.includes)]
        if step.environment is not None:
            place = (step.environment.file, step.environment.line)
            found += [
                (path, *place) for path in (step.environment.conda_file, step.environment.build) if path is not None
            ]
        typed_paths = {Path(os.path.abspath(text)) for text in replaced.values()}
        for path, file, line in found:
            if (path in code or path in step.includes) and path.is_relative_to(paths.project):
                paths.include_code(path)
                continue
            if path in typed_paths or path.is_relative_to(paths.project):
                paths.include(path)
            elif not any(path.is_relative_to(place) for place in paths.outside) and own:
                raise UserError(
                    f"{path} lies outside the project's folder, so it has no such place on the other machine.",
                    "Move it into the project, or replace the input: --input NAME=PATH",
                    file=file,
                    line=line,
                )


def _as_list(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(one) for one in value] if isinstance(value, list) else [str(value)]


def _path_in(text: str, kind: str) -> Path | None:
    """The local file or folder that a value names; None if it names none."""
    if kind == NAMED:
        text = text.partition("=")[2]
    elif kind == LOCATION:
        text = text.rpartition(":")[0]
    elif kind == FORM:
        text = text.partition("=@")[2]
    if not text or "\0" in text:
        return None
    path = absolute(text)
    if kind == PATH:
        return path
    # A text that is not a path may be too long for one.
    with contextlib.suppress(OSError):
        return path if path.exists() else None
    return None


def remote_arguments(typed: TypedTask, paths: RemotePaths) -> list[str]:
    """The arguments of the remote command; the remote project folder has to be known."""
    words = [typed.name]
    given = list(takewhile(lambda name: typed.values[name] is not None, typed.positional))
    #: Flags with an optional value that was not given. They come last: a following word would be read as the value.
    last = []
    for name, value in typed.values.items():
        if name in given or name == _VARIABLES or value == typed.defaults.get(name):
            continue
        flag = "--" + name.replace("_", "-").rstrip("-")
        if value is True and typed.defaults.get(name) is None:
            last.append(flag)
            continue
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
            continue
        kind = typed.kinds.get(name)
        words += [f"{flag}={_with_remote_path(text, kind, paths)}" for text in _as_list(value)]
    for name, text in typed.flags.items():
        if name == "service_env":
            continue
        kind = PATH if BY_FIELD[name].path else None
        words.append(f"{BY_FIELD[name].flag}={_with_remote_path(text, kind, paths)}")
    if typed.as_json:
        words.append("--json")
    words += [_with_remote_path(str(typed.values[name]), typed.kinds.get(name), paths) for name in given]
    words += last
    if typed.remainder is not None:
        words += ["--", *typed.remainder]
    return words


def _with_remote_path(text: str, kind: str | None, paths: RemotePaths) -> str:
    if kind is None:
        return text
    path = _path_in(text, kind)
    if path is None:
        return text
    if kind == NAMED:
        return f"{text.partition('=')[0]}={paths.to_remote(path)}"
    if kind == FORM:
        return f"{text.partition('=@')[0]}=@{paths.to_remote(path)}"
    if kind == LOCATION:
        return f"{paths.to_remote(path)}:{text.rpartition(':')[2]}"
    return paths.to_remote(path)


def remote_environment(typed: TypedTask, settings: Settings, paths: RemotePaths) -> dict[str, str]:
    """The local settings that the remote task needs, as environment variables, and a service's variables."""
    found = {}
    if _VARIABLES in typed.values:
        from ..flows import service_variables

        # On a command line they would be visible in the list of processes.
        found[service_variables.TRANSFER_VARIABLE] = service_variables.encode_variables(
            service_variables.collect_variables(settings, _as_list(typed.values[_VARIABLES]))
        )
    for name in typed.handed:
        setting = BY_FIELD[name]
        if name not in settings.set_by or name in typed.flags or name in overlay.overruled_settings(settings):
            continue
        value = getattr(settings, name)
        if value is not None:
            found[setting.variable] = paths.to_remote(value) if setting.path else str(value)
    return found


def working_directory(paths: RemotePaths) -> str:
    """The working directory of the remote command."""
    here = Path.cwd()
    return paths.to_remote(here) if here.is_relative_to(paths.project) else paths.root
