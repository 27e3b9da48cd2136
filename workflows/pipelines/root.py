"""Turns any file with a job into a pipeline: a single job or component becomes a pipeline of one step.

The pipeline around it is only made in memory, and every value keeps its place in its file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ..assets.kinds import COMPONENTS, JOBS, SCHEDULE, kind_of, wrong_kind
from .literals import unknown_keys
from .local_paths import local_path, scheme
from .notes import Notes
from .problems import Problems
from .yaml_file import Value, did_you_mean, read_yaml, refuse

KEYS = (
    *("$schema", "type", "name", "version", "display_name", "description", "tags", "experiment_name", "properties"),
    *("inputs", "outputs", "settings", "jobs", "compute", "identity", "services", "component", "is_deterministic"),
    *("creation_context", "id", "status", "log_files", "intellectual_property"),
)
SETTINGS = (
    *("default_compute", "default_datastore", "datastore", "default_environment", "continue_on_step_failure"),
    *("force_rerun", "continue_on_failed_optional_input", "on_init", "on_finalize", "on_failure"),
)
_PIPELINE_TYPES = ("pipeline", "pipeline_job", "pipeline_component", "pipelinejob", "pipelinecomponent")
#: Fields of a job that move to the pipeline around it.
_OUTSIDE = ("inputs", "outputs", "name", "version", "display_name", "description", "experiment_name", "tags", "$schema")


def as_pipeline(root: Value, notes: Notes, problems: Problems) -> Value:
    """The pipeline, a mapping with ``jobs``, of a file's content.

    Args:
        root: The file's content.
        notes: Gets the ignored fields.
        problems: Gets the errors of single fields.

    Raises:
        UserError: It has no job that could run here.
    """
    kind = kind_of(root)
    if kind is SCHEDULE:
        return _scheduled_job(root, notes, problems)
    if _is_pipeline(root):
        return _pipeline(root, notes, problems)
    if kind not in JOBS:
        raise wrong_kind(root, "a pipeline or a job", JOBS)
    return _wrap_job(root, kind in COMPONENTS, problems)


def _is_pipeline(root: Value) -> bool:
    type_ = root.get("type")
    name = str(type_.data).lower() if type_ is not None else ""
    return name in _PIPELINE_TYPES or ("jobs" in root.data and not name)


def _pipeline(root: Value, notes: Notes, problems: Problems) -> Value:
    keys = unknown_keys(root.mapping("The file"), KEYS, "The pipeline", problems)
    root = keys.with_corrected_keys(root)
    for key in keys.others:
        notes.add_field(key)
    settings = root.get("settings")
    if settings is not None:
        entries = problems.mapping(settings, "`settings`")
        for key in unknown_keys(entries, SETTINGS, "`settings`", problems, notes.add_remark).others:
            notes.add_field(f"settings.{key}")
    for key, place in (("identity", root), ("services", root), ("on_init", settings), ("on_finalize", settings)):
        if place is not None and place.get(key) is not None:
            notes.add_field(key)
    component = root.get("component")
    if root.get("jobs") is None and component is not None:
        return _with_component(root, component, notes, problems)
    if root.get("jobs") is None:
        raise refuse(root.data.get("jobs") or root, "The pipeline has no jobs.", "Add a job under `jobs:`.")
    return root


def _with_component(root: Value, named: Value, notes: Notes, problems: Problems) -> Value:
    """A pipeline job that takes its jobs from a component."""
    if named.is_mapping:
        component = as_pipeline(named, notes, problems)
    else:
        text = named.text("`component`")
        if scheme(text):
            raise refuse(
                named,
                f"The pipeline is the registered component `{text}`.",
                "Name its file: `component: ./pipeline.yml`.",
            )
        file = local_path(named, text)
        problems.files.setdefault(file)
        component = as_pipeline(read_yaml(file, "component file", named, problems.add_error), notes, problems)
    inputs = dict(_entries(component, "inputs", problems))
    for name, value in _entries(root, "inputs", problems).items():
        if name not in inputs:
            problems.add(value, f"The component has no input `{name}`.", did_you_mean(name, inputs))
            continue
        inputs[name] = _declared_and_given(inputs[name], value)
    own = {key: value for key, value in root.data.items() if key != "component"}
    return Value({**component.data, **own, "inputs": Value(inputs, root.file, root.line)}, root.file, root.line)


def _declared_and_given(declared: Value, value: Value) -> Value:
    """Merge an input's declaration with the value that it gets elsewhere."""
    entries = declared.data if declared.is_mapping else {}
    given = value.data if value.is_mapping else {"value": value}
    return Value({**entries, **given}, value.file, value.line)


def _wrap_job(root: Value, is_component: bool, problems: Problems) -> Value:
    """Make a pipeline around one job or one component."""
    name = run_name(root, root.file).replace(".", "-")
    inputs, outputs = _entries(root, "inputs", problems), _entries(root, "outputs", problems)

    def bound(entries: Mapping[str, Value], group: str) -> Value:
        def link(key: str) -> str:
            quote = '"' if "'" in key else "'"
            return "${{parent." + group + "[" + quote + key + quote + "]}}"

        links = {key: Value(link(key), one.file, one.line) for key, one in entries.items()}
        place = root.get(group) or root
        return Value(links, place.file, place.line)

    if is_component and root.file is not None:
        job = {"component": Value(str(root.file), root.file, root.line)}
    else:
        job = {key: value for key, value in root.data.items() if key not in _OUTSIDE}
    job |= {"inputs": bound(inputs, "inputs"), "outputs": bound(outputs, "outputs")}
    kept = {key: root.data[key] for key in _OUTSIDE if key in root.data}
    jobs = {name: Value(job, root.file, root.line)}
    made = {**kept, "jobs": Value(jobs, root.file, root.line)}
    return Value(made, root.file, root.line)


def _scheduled_job(root: Value, notes: Notes, problems: Problems) -> Value:
    """The job that a schedule starts, with the schedule's inputs and settings."""
    created = root.get("create_job")
    if created is None:
        raise refuse(root, "The schedule has no `create_job`.", "Name the job: `create_job: ./job.yml`.")
    notes.add_field("trigger")
    if not created.is_mapping:
        return _named_job(created, notes, problems)
    job = created.get("job")
    if job is None:
        return as_pipeline(created, notes, problems)
    base = as_pipeline(job, notes, problems) if job.is_mapping else _named_job(job, notes, problems)
    inputs = dict(_entries(base, "inputs", problems))
    for name, value in _entries(created, "inputs", problems).items():
        if name not in inputs:
            notes.add_remark(f"The job has no input `{name}`, which is not used. {did_you_mean(name, inputs)}", value)
            continue
        inputs[name] = _declared_and_given(inputs[name], value)
    settings = {**_entries(base, "settings", problems), **_entries(created, "settings", problems)}
    changed = {"inputs": Value(inputs, base.file, base.line), "settings": Value(settings, created.file, created.line)}
    return Value({**base.data, **changed}, base.file, base.line)


def _named_job(named: Value, notes: Notes, problems: Problems) -> Value:
    text = named.text("`job`").strip()
    if scheme(text):
        problem = f"The schedule starts the job `{text}`, which is not on this machine."
        raise refuse(named, problem, "Name its file: `job: ./job.yml`.")
    file = local_path(named, text)
    problems.files.setdefault(file)
    root = read_yaml(file, "job file", named, problems.add_error)
    if kind_of(root) is SCHEDULE:
        raise refuse(named, f"{text} is a schedule itself.", "Name a job.")
    return as_pipeline(root, notes, problems)


def run_name(root: Value, file: Path | None) -> str:
    """The name of a run, with only letters that a file name can have."""
    stem = file.stem if file is not None else ""
    generic = stem.lower() in ("pipeline", "pipeline-job", "job", "main", "component")
    named = [root.get("name"), root.get("display_name")]
    candidates = [str(value.data) for value in named if value is not None]
    for text in (*candidates, *([file.parent.name] if generic and file is not None else []), stem):
        cleaned = re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.")[:60].rstrip("-.")
        if cleaned:
            return cleaned
    return "pipeline"


def _entries(place: Value, key: str, problems: Problems) -> Mapping[str, Value]:
    return problems.mapping(place.get(key), f"`{key}`")
