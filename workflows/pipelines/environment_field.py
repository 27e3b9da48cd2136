"""Reads ``environment``: a registered name, or a definition in place."""

from __future__ import annotations

from pathlib import Path

from ..assets.kinds import ENVIRONMENT
from ..assets.names import LocalAssets, parse_name
from ..paths import exists
from ..redaction import keep_conda_variables
from .definition import EnvironmentReference
from .literals import unknown_keys
from .local_paths import local_path, scheme
from .problems import Problems
from .yaml_file import Value, read_yaml, refuse

_KEYS = (
    *("$schema", "name", "version", "image", "conda_file", "build", "docker", "path", "os_type", "description"),
    *("tags", "properties", "inference_config", "datastore", "type", "creation_context", "id"),
)


def read_environment(
    value: Value, what: str, problems: Problems, assets: LocalAssets | None = None
) -> EnvironmentReference | None:
    """Read the environment of a step; None if the field is empty.

    Args:
        value: The field.
        what: The step in a message.
        problems: Gets the errors of a definition.
        assets: Finds the file of a registered name; None if the workspace resolves the name.

    Raises:
        UserError: It is neither a name nor a definition, defines nothing, or the file that it names cannot be read;
            with the line.
    """
    if not value.is_mapping:
        text = value.text(f"`environment` of {what}").strip()
        is_file = text.startswith(("file:", "./", "../"))
        found = local_path(value, text) if is_file else None
        asked = parse_name(text) if assets is not None and not is_file else None
        if assets is not None and asked is not None and not asked.registry:
            found = assets.find(text, (ENVIRONMENT,), value)
        if found is None:
            assert value.file is not None
            return EnvironmentReference(value.file, value.line, name=text)
        value = Value(read_yaml(found, "environment file", value).data, found, 1)
    return _definition(value, what, problems) if value.data else None


def _definition(value: Value, what: str, problems: Problems) -> EnvironmentReference:
    keys = value.mapping("environment")
    wrong = next((keys[key] for key in ("dependencies", "channels") if key in keys), None)
    if wrong is not None:
        raise refuse(
            wrong,
            f"The environment of {what} is a conda file's content.",
            "Put it under `conda_file:`, and name an `image:`.",
        )
    value = unknown_keys(keys, _KEYS, f"The environment of {what}", problems).with_corrected_keys(value)
    # Files of the preview have the image under `docker`.
    docker = value.get("docker") or value
    image = docker.get("image")
    build = docker.get("build")
    conda = value.get("conda_file")
    name = value.get("name")
    if image is None and build is None and conda is None and name is None:
        problem = f"The environment of {what} defines nothing."
        raise refuse(value, problem, "Give it an `image`, `conda_file` or `build`.")
    assert value.file is not None
    if conda is not None and conda.is_mapping:
        keep_conda_variables(conda.plain())
    folder, dockerfile, conda_file = None, None, None
    if build is not None:
        with problems.collect_errors(build):
            folder, dockerfile = _build(build, what)
    if conda is not None and not conda.is_mapping:
        with problems.collect_errors(conda):
            conda_file = _file(conda, f"The conda file of {what}")
    version = value.get("version")
    return EnvironmentReference(
        value.file,
        value.line,
        name=None if name is None else str(name.data) + (f":{version.data}" if version is not None else ""),
        image=problems.text(image, f"`image` of {what}") or None,
        conda_file=conda_file,
        conda=conda.plain() if conda is not None and conda.is_mapping else None,
        build=folder,
        dockerfile=dockerfile,
    )


def _build(build: Value, what: str) -> tuple[Path, str]:
    place = build.get("path") or build.get("local_path")
    if place is None:
        raise refuse(
            build, f"`build` of {what} has no `path`.", "Name the folder with the Dockerfile: `path: ./docker`."
        )
    folder = _file(place, f"The build folder of {what}")
    if not folder.is_dir():
        raise refuse(place, f"The build folder of {what} is a file: {folder}.", "Name the folder it is in.")
    named = build.get("dockerfile_path")
    dockerfile = named.text("`dockerfile_path`") if named is not None else "Dockerfile"
    if not exists(folder / dockerfile):
        raise refuse(named or place, f"There is no {dockerfile} in {folder}.", "Name it in `dockerfile_path`.")
    return folder, dockerfile


def _file(value: Value, what: str) -> Path:
    text = value.text(what)
    if scheme(text):
        raise refuse(value, f"{what} is not on this machine: {text}.", "Name a local one.")
    path = local_path(value, text)
    if not exists(path):
        raise refuse(value, f"{what} should be {path}, which does not exist.", "Check the path.")
    return path
