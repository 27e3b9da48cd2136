"""Batch deployments, as pipelines of one parallel step.

https://learn.microsoft.com/azure/machine-learning/reference-yaml-deployment-batch
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..assets.kinds import MODEL
from ..assets.names import LocalAssets, parse_name
from ..paths import exists, shown
from .definition import LITERAL_TYPES
from .literals import unknown_keys
from .local_paths import local_path, scheme
from .notes import Notes
from .parallel import MODEL_INPUT, MODEL_NAME
from .problems import Problems
from .yaml_file import Value, listed, read_yaml, refuse

#: The name of the input that `deploy.debug --data` sets.
DATA = "data"
OUTPUT = "score"
#: Azure's name of the output file, if the deployment names none.
_FILE_NAME = "predictions.csv"
#: Settings that a parallel job has under the same name.
_SAME = ("mini_batch_size", "max_concurrency_per_instance", "logging_level", "error_threshold", "retry_settings")
_SETTINGS = (*_SAME, "output_action", "output_file_name", "environment_variables", "instance_count")
_KEYS = (
    *("$schema", "name", "endpoint_name", "description", "type", "tags", "properties", "id", "model", "compute"),
    *("code_configuration", "environment", "environment_variables", "resources", "settings", "component"),
    *("job_definition", "creation_context", "provisioning_state", *_SETTINGS),
)
#: The letters that an input's name and a file name may have.
_PLAIN = re.compile(r"[\w.-]+", re.ASCII)


def pipeline_of_deployment(
    root: Value, notes: Notes, problems: Problems, assets: LocalAssets, data_is_file: bool
) -> Value:
    """The pipeline that a batch deployment starts for its data.

    Args:
        root: The deployment's file.
        notes: Gets the ignored fields.
        problems: Gets the errors of single fields.
        assets: Finds the files of registered models.
        data_is_file: Whether the data is a single file.

    Raises:
        UserError: It has nothing that could run here; with the line.
    """
    for key in unknown_keys(root.mapping("The deployment"), _KEYS, "The deployment", problems, notes.add_remark).others:
        notes.add_field(key)
    type_ = root.get("type")
    if root.get("component") is not None or root.get("job_definition") is not None:
        return _of_component(root)
    if type_ is not None and str(type_.data).lower() == "pipeline":
        raise refuse(type_, "The deployment is a pipeline without a `component`.", "Name it: `component: ./x.yml`.")
    name = _name(root)
    code = root.get("code_configuration")
    if code is None:
        problem = f"The batch deployment {name} has no scoring script: MLflow models are served by Azure's own."
        remedy = "Add `code_configuration` with a script that loads the model: `mlflow.pyfunc.load_model`."
        problems.add(root, problem, remedy)
        code = Value({}, root.file, root.line)
    elif problems.mapping(code, "`code_configuration`") and code.get("scoring_script") is None:
        problems.add(code, "The `code_configuration` has no `scoring_script`.", "Name the script that has run().")
    settings = _settings(root, problems)

    def at(data: Any, place: Value = root) -> Value:
        return Value(data, place.file, place.line)

    task = _task(root, code, settings, problems)
    inputs = {DATA: at("${{parent.inputs." + DATA + "}}")}
    declared = {DATA: at({"type": at("uri_file" if data_is_file else "uri_folder")})}
    job: dict[str, Value] = {"type": at("parallel"), "input_data": at("${{inputs." + DATA + "}}"), "task": at(task)}
    model = None
    with problems.collect_errors():
        model = _model(root, assets)
    if model is not None:
        key = model.data["name"]
        inputs[key] = at({"type": model.data["type"], "path": model.data["path"]}, model)
        job[MODEL_INPUT] = at("${{inputs." + key + "}}")
        if key != model.data["called"]:
            job[MODEL_NAME] = at(model.data["called"])
    job |= {key: settings[key] for key in _SAME if key in settings}
    job["mini_batch_size"] = at(str(settings["mini_batch_size"].data) if "mini_batch_size" in settings else "10")
    own = problems.mapping(settings.get("environment_variables"), "`environment_variables`")
    variables = {**problems.mapping(root.get("environment_variables"), "`environment_variables`"), **own}
    job["environment_variables"] = at(variables)
    job["outputs"] = at({OUTPUT: at("${{parent.outputs." + OUTPUT + "}}")})
    job["inputs"] = at(inputs)
    if root.get("resources") is not None:
        job["resources"] = root.data["resources"]
    made = {
        "name": at(name),
        "inputs": at(declared),
        "outputs": at({OUTPUT: at({"type": at("uri_folder")})}),
        "jobs": at({name: at(job)}),
    }
    return at(made)


def _task(root: Value, code: Value, settings: Mapping[str, Value], problems: Problems) -> dict[str, Value]:
    """The ``task`` of the parallel job."""
    # A missing script has been reported; an empty one has the place of the code.
    script = code.get("scoring_script") or Value("", root.file, root.line)
    task = {"type": Value("run_function", root.file, root.line), "entry_script": script}
    if code.get("code") is not None:
        task["code"] = code.data["code"]
    if root.get("environment") is not None:
        task["environment"] = root.data["environment"]
    if _appends(settings, problems):
        file = settings.get("output_file_name")
        file_name = str(file.data) if file is not None else _FILE_NAME
        if not _PLAIN.fullmatch(file_name):
            problem = f"`output_file_name` cannot be `{file_name}`."
            problems.add(file or root, problem, "Use letters, digits, `-._`.")
            file_name = _FILE_NAME
        place = file or root
        task["append_row_to"] = Value("${{outputs." + OUTPUT + "}}/" + file_name, place.file, place.line)
    return task


def data_input(file: Path) -> str:
    """The name of the input for a batch deployment's data: the only input of a component that takes data.

    Raises:
        UserError: The file cannot be read, or the component has no or several such inputs.
    """
    root = read_yaml(file, "deployment file")
    component = root.get("component")
    if component is None:
        return DATA
    if not component.is_mapping:
        component = read_yaml(local_path(component, component.text("`component`")), "component file", component)
    types = {name: value.get("type") for name, value in _entries(component, "inputs").items()}
    names = [name for name, type_ in types.items() if type_ is None or str(type_.data) not in LITERAL_TYPES]
    if len(names) != 1:
        has = f"several inputs of data: {listed(names)}" if names else "no input of data"
        remedy = f"inv pipeline.debug --file {shown(file)} --input NAME=PATH"
        raise refuse(component, f"The pipeline of the deployment has {has}.", remedy)
    return names[0]


def _of_component(root: Value) -> Value:
    """The pipeline job of a deployment with a pipeline component."""
    component = root.get("component")
    if component is None:
        problem = "The deployment starts a job of the workspace, which is not on this machine."
        raise refuse(root.data["job_definition"], problem, "Name the component's file: `component: ./pipeline.yml`.")
    kept = {key: root.data[key] for key in ("component", "settings", "name") if key in root.data}
    return Value({"type": Value("pipeline", root.file, root.line), **kept}, root.file, root.line)


def _settings(root: Value, problems: Problems) -> dict[str, Value]:
    """The settings, which older files have at the top level."""
    outer = {key: value for key, value in root.data.items() if key in _SETTINGS and value.data is not None}
    inner = problems.mapping(root.get("settings"), "`settings`")
    return {**outer, **{key: value for key, value in inner.items() if value.data is not None}}


def _appends(settings: Mapping[str, Value], problems: Problems) -> bool:
    action = settings.get("output_action")
    if action is None:
        return True
    # Earlier files write SummaryOnly.
    name = re.sub(r"[^a-z]", "", str(action.data).lower())
    if name not in ("appendrow", "summaryonly"):
        problems.add(action, f"`output_action` cannot be `{action.data}`.", "Write append_row or summary_only.")
    return name != "summaryonly"


def _model(root: Value, assets: LocalAssets) -> Value | None:
    """The model: its path, its type, and the name of its input, which is the last part of the path."""
    named = root.get("model")
    if named is None:
        return None
    place = named
    if not named.is_mapping:
        text = named.text("`model`").strip()
        if scheme(text) or (parse_name(text) is not None and not exists(local_path(named, text))):
            file = assets.find(text, (MODEL,), named)
            if file is None:
                problem = f"The registered model `{text}` is not on this machine."
                raise refuse(named, problem, "Give it by path: `model: {path: ./model}`.")
            place = read_yaml(file, "model file", named)
    path = place.get("path") if place.is_mapping else place
    if path is None:
        raise refuse(place, "The model has no `path`.", "Name its folder or file: `path: ./model`.")
    local = local_path(path, path.text("The path of the model"))
    # An input's name has only certain letters, and one input is the data.
    name = local.name if _PLAIN.fullmatch(local.name) and local.name != DATA else "model"
    type_ = "uri_file" if exists(local) and not local.is_dir() else "uri_folder"
    values = {"path": path, "type": Value(type_, path.file, path.line), "name": name, "called": local.name}
    return Value(values, path.file, path.line)


def _name(root: Value) -> str:
    named = root.get("name")
    text = re.sub(r"[^A-Za-z0-9_-]+", "-", str(named.data)) if named is not None else ""
    return text.strip("-") or "deployment"


def _entries(place: Value, key: str) -> Mapping[str, Value]:
    value = place.get(key)
    return value.mapping(f"`{key}`") if value is not None else {}
