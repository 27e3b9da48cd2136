"""Finds a deployment's parts on this machine: its code, its model, an environment by its registered name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ..assets import kinds
from ..assets.names import LocalAssets, parse_name
from ..errors import UserError
from ..formatting import shorten
from ..paths import exists, shown
from ..pipelines.local_paths import code_path, local_path, scheme
from ..pipelines.yaml_file import Value, did_you_mean, read_yaml
from .definition import Model
from .problems import Problems

_MODEL_KEYS = (
    *("$schema", "name", "version", "type", "path", "description", "properties", "tags", "stage", "flavors", "id"),
    *("datastore", "job_name", "creation_context", "local_path", "latest_version", "utc_time_created"),
    *("system_metadata", "default_deployment_template", "allowed_deployment_templates"),
)
_ELSEWHERE = "Download it and name its folder: --model-dir FOLDER, or AML_MODEL_DIR."


def read_code(problems: Problems, value: Value) -> tuple[Path | None, Path | None]:
    """The folder of a deployment's code and its scoring script; None for both where something is wrong.

    Args:
        problems: Gets the errors.
        value: ``code_configuration``.
    """
    code, script = value.get("code"), value.get("scoring_script")
    folder: Path | None = None
    if code is None:
        problems.add(value, "`code_configuration` has no `code`.", "Name the folder of the scoring script: `code: .`")
    else:
        with problems.collect_errors(code):
            folder = code_path(code, "the deployment")
        if folder is not None and not folder.is_dir():
            problems.add(code, f"The code {shown(folder)} is a file.", "Name the folder that it is in.")
            folder = None
    if script is None:
        problems.add(value, "`code_configuration` has no `scoring_script`.", "Name it: `scoring_script: score.py`")
    if folder is None or script is None:
        return None, None
    with problems.collect_errors(script):
        text = script.text("`scoring_script`").strip().replace("\\", "/")
        path = Path(os.path.abspath(folder / text))
        if not path.is_relative_to(folder):
            problems.add(
                script,
                f"The scoring script {shorten(text)} is not in the code's folder {shown(folder)}, which is all that "
                "a service gets.",
                "Name a folder above it in `code`, and the script from there.",
            )
        elif not exists(path) or not path.is_file():
            inside = sorted(one.name for one in folder.glob("*.py"))
            remedy = did_you_mean(text, inside) if inside else "Correct `scoring_script` or `code`."
            where = shorten(text, 200)
            problems.add(script, f"There is no scoring script {where} in {shown(folder)}.", remedy)
        else:
            return folder, path
    return None, None


def read_model(
    problems: Problems,
    value: Value | None,
    names: LocalAssets,
    model_dir: Path | None,
    *,
    needed: bool,
    download: Callable[[str], Model] | None = None,
) -> Model | None:
    """Read a deployment's model.

    Args:
        problems: Gets the errors, such as that the model is not on this machine.
        value: ``model``.
        names: Finds files by registered names.
        model_dir: The folder that replaces the model, where one was typed or set.
        needed: Whether the deployment has no code, so that MLflow has to serve the model.
        download: Downloads a registered model; None where that is not possible.

    Returns:
        The model; None where there is none, another folder replaces it, or something is wrong.
    """
    if model_dir is not None:
        if needed and (model_dir / "MLmodel").is_file():
            return Model(model_dir, type="mlflow_model")
        if value is not None:
            problems.notes.append(f"the model is {shown(model_dir)} (AZUREML_MODEL_DIR), in place of `model`")
        return None
    if value is None:
        return None
    with problems.collect_errors(value):
        if value.is_mapping:
            return _read_inline_model(problems, value)
        return _find_named_model(problems, value, value.text("`model`").strip(), names, download)
    return None


def _read_inline_model(problems: Problems, value: Value) -> Model | None:
    for key, one in value.data.items():
        if key not in _MODEL_KEYS:
            problems.add(one, f"A model has no key `{key}`.", did_you_mean(key, _MODEL_KEYS))
    place = value.get("path") or value.get("local_path")
    name, version = (value.get(key) for key in ("name", "version"))
    if place is None:
        problems.add(value, "The model has no `path`.", "Name its file or folder: `path: ./model`")
        return None
    text = place.text("`path` of the model").strip()
    if scheme(text):
        problems.add(place, f"The model is not on this machine: {shorten(text, 200)}.", _ELSEWHERE)
        return None
    path = local_path(place, text)
    if not exists(path):
        problems.add(place, f"The model {shown(path)} does not exist.", f"Check the path. {_ELSEWHERE}")
        return None
    given = value.get("type")
    type_ = given.text("`type` of the model") if given is not None else "custom_model"
    called = name.text("`name` of the model").strip() if name is not None else ""
    found = Model(path, called, version.text("`version` of the model").strip() if version is not None else "", type_)
    if type_ == "mlflow_model" and not found.is_mlflow:
        problems.add(place, f"{shown(path)} is not an MLflow model: it has no MLmodel.", "Correct `path`, or `type`.")
    return found


def _find_named_model(
    problems: Problems, value: Value, text: str, names: LocalAssets, download: Callable[[str], Model] | None
) -> Model | None:
    file = None if text.startswith("file:") else names.find(text, (kinds.MODEL,), value)
    if file is not None:
        return _read_inline_model(problems, read_yaml(file, "model file", value))
    requested = parse_name(text)
    if requested is None and not scheme(text):
        # A file of a model, or the model itself.
        path = local_path(value, text)
        if exists(path) and kinds.kind_of_file(path) is kinds.MODEL:
            return _read_inline_model(problems, read_yaml(path, "model file", value))
        if exists(path):
            return Model(path)
    if download is not None and scheme(text) == "azureml":
        try:
            return download(text)
        except UserError as error:
            # Report the error at the name's place, unless it has a place or details of its own.
            if error.file is not None or error.details:
                raise
            problems.add(value, error.problem, error.remedy)
            return None
    problems.add(value, f"The model `{shorten(text, 200)}` is not on this machine.", _ELSEWHERE)
    return None


def resolve_environment_name(value: Value, names: LocalAssets) -> Value:
    """The definition of an environment by its name: that of a file with the name, or the value itself.

    Raises:
        UserError: Several files have that name.
    """
    if value.is_mapping:
        return value
    text = value.text("`environment`").strip()
    if text.startswith("file:") or parse_name(text) is None:
        path = local_path(value, text)
        if path.suffix.lower() in kinds.SUFFIXES and exists(path):
            return read_yaml(path, "environment file", value)
        if not text.startswith("azureml:") and not scheme(text) and ":" not in text:
            raise UserError(
                f"There is no environment file {shown(path)}.",
                "Check the path; a registered one is `azureml:NAME:VERSION`.",
                file=shown(value.file) if value.file else None,
                line=value.line,
                column=value.column,
            )
        return value
    file = names.find(text, (kinds.ENVIRONMENT,), value)
    return read_yaml(file, "environment file", value) if file is not None else value
