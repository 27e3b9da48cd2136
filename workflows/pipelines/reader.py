"""A pipeline file and all it names, read, checked and resolved before anything runs."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from ..errors import BadValue
from .bindings import Bindings, PipelineInput, read_pipeline_inputs
from .component import Components, Notes, Source
from .definition import Pipeline, Step
from .expressions import Malformed, expressions, whole
from .graph import find_cycle, in_order
from .literals import literal_text, read_truth, read_type, unknown_keys
from .local_paths import local_path, scheme
from .scripts import missing_script
from .yaml_file import Value, did_you_mean, listed, read_yaml, refuse

_KEYS = (
    *("$schema", "type", "name", "version", "display_name", "description", "tags", "experiment_name", "properties"),
    *("inputs", "outputs", "settings", "jobs", "compute", "identity", "services", "component", "is_deterministic"),
    *("creation_context", "id", "status", "log_files", "intellectual_property"),
)
_SETTINGS = (
    *("default_compute", "default_datastore", "datastore", "default_environment", "continue_on_step_failure"),
    *("force_rerun", "continue_on_failed_optional_input", "on_init", "on_finalize"),
)
_PIPELINE_TYPES = ("pipeline", "pipeline_job", "pipeline_component")


def load_pipeline(file: Path, inputs: Mapping[str, str] | None = None, cloud: bool = False) -> Pipeline:
    """Read a pipeline file of Azure ML's job schema, version 2, and the component files that it names.

    Args:
        file: The file; relative to the current folder.
        inputs: Values for inputs of the pipeline by name, and for those of a step by ``step.name``: a literal's
            text, or a path relative to the current folder.
        cloud: Whether it is to run in a workspace, whose data and computes it may name.

    Raises:
        UserError: It cannot be read, contradicts itself or the schema, or cannot run on this machine; with the line.
        BadValue: ``inputs`` has an unknown name, or a value that does not fit.
    """
    replaced = dict(inputs or {})
    file = Path(os.path.abspath(file))
    notes = Notes()
    root = _root(read_yaml(file, "pipeline file"))
    for key in unknown_keys(root.mapping("The file"), _KEYS, "The pipeline"):
        notes.add(key)
    settings = root.get("settings")
    if settings is not None:
        for key in unknown_keys(settings.mapping("`settings`"), _SETTINGS, "`settings`"):
            notes.add(f"settings.{key}")
    for key, place in (("identity", root), ("services", root), ("on_init", settings), ("on_finalize", settings)):
        if place is not None and place.get(key) is not None:
            notes.add(key)
    own = read_pipeline_inputs(_entries(root, "inputs"), replaced)
    components = Components(notes, lambda value: _settle(value, own))
    sources = {name: components.read(name, job) for name, job in _jobs(root).items()}
    _check_replaced(replaced, own, sources)
    bindings = Bindings(own, sources, replaced, cloud)
    types = {
        name: read_type(value, f"Output `{name}`", output=True) for name, value in _entries(root, "outputs").items()
    }
    outputs = _outputs(root, sources, types)
    decided = {place: types[name] for name, place in outputs.items()}
    default = (settings.get("default_compute") if settings is not None else None) or root.get("compute")
    compute = _settle(default, own) if default is not None else None
    steps = {source.name: _step(source, bindings, decided, compute) for source in sources.values()}
    after = {name: step.after for name, step in steps.items()}
    cycle = find_cycle(after)
    if cycle:
        link = next(item for item in steps[cycle[1]].inputs.values() if item.step == cycle[0])
        place = Value(None, link.file, link.line)
        raise refuse(place, f"The jobs wait for each other: {' → '.join(cycle)}.", "Take one of these bindings out.")
    bindings.check_here()
    return Pipeline(
        _name(root, file),
        file,
        tuple(steps[name] for name in in_order(after)),
        outputs,
        read_truth(settings, "continue_on_step_failure", True),
        notes.lines(),
    )


def _entries(place: Value, key: str) -> Mapping[str, Value]:
    value = place.get(key)
    return value.mapping(f"`{key}`") if value is not None else {}


def _root(root: Value) -> Value:
    """The mapping with ``jobs``, which a pipeline job may have in a component file."""
    type_ = root.get("type")
    name = type_.text("`type`") if type_ is not None else ""
    if name and name.lower() not in _PIPELINE_TYPES:
        raise refuse(
            type_ or root,
            f"{_file_name(root)} is a {name} job or component, not a pipeline.",
            "Name a file with `type: pipeline`; a single job can be put under `jobs:` of one.",
        )
    component = root.get("component")
    if root.get("jobs") is None and component is not None:
        return _with_component(root, component)
    if root.get("jobs") is None:
        empty = root.data.get("jobs")
        if empty is None and not name:
            known = [key for key in ("command", "dependencies", "steps", "image") if key in root.data]
            has = f" (it has `{known[0]}`)" if known else ""
            unknown_keys(root.data, _KEYS, "The pipeline")
            raise refuse(root, f"{_file_name(root)} is not a pipeline{has}: it has no `jobs`.", "Name a pipeline file.")
        unknown_keys(root.data, _KEYS, "The pipeline")
        raise refuse(empty or root, "The pipeline has no jobs.", "Add a job under `jobs:`.")
    return root


def _file_name(value: Value) -> str:
    return value.file.name if value.file is not None else "The file"


def _with_component(root: Value, named: Value) -> Value:
    text = named.text("`component`")
    if scheme(text):
        raise refuse(
            named, f"The pipeline is the registered component `{text}`.", "Name its file: `component: ./pipeline.yml`."
        )
    component = _root(read_yaml(local_path(named, text), "component file", named))
    inputs = dict(_entries(component, "inputs"))
    for name, value in _entries(root, "inputs").items():
        if name not in inputs:
            raise refuse(value, f"The component has no input `{name}`.", did_you_mean(name, inputs))
        declared = inputs[name].mapping(f"Input `{name}`")
        given = value.data if value.is_mapping else {"value": value}
        inputs[name] = Value({**declared, **given}, value.file, value.line)
    own = {key: value for key, value in root.data.items() if key != "component"}
    return Value({**component.data, **own, "inputs": Value(inputs, root.file, root.line)}, root.file, root.line)


def _jobs(root: Value) -> Mapping[str, Value]:
    jobs = _entries(root, "jobs")
    if not jobs:
        raise refuse(root.get("jobs") or root, "The pipeline has no jobs.", "Add a job under `jobs:`.")
    folded: dict[str, str] = {}
    for name, job in jobs.items():
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,255}", name):
            raise refuse(job, f"A job cannot be called `{name}`.", "Use letters, digits, `_` and `-`.")
        # Each has a folder, and some file systems do not tell A from a.
        if (other := folded.setdefault(name.lower(), name)) != name:
            raise refuse(job, f"The jobs `{other}` and `{name}` differ only in case.", "Rename one of them.")
    return jobs


def _settle(value: Value, own: Mapping[str, PipelineInput]) -> Value:
    """A field's value, with the pipeline's input in the place of ``${{parent.inputs.x}}``."""
    try:
        expression = whole(value.data) if isinstance(value.data, str) else None
    except Malformed:
        return value
    if expression is None or expression.path[:2] != ("parent", "inputs"):
        return value
    name = ".".join(expression.path[2:])
    given = own[name].given.value if name in own else None
    if given is None:
        raise refuse(value, f"The pipeline has no input `{name}` with a value.", did_you_mean(name, own))
    declared = own[name].declared
    return Value(
        literal_text(given, declared, f"Input `{name}`") if declared.type else given.data, value.file, value.line
    )


def _check_replaced(
    replaced: Mapping[str, str], own: Mapping[str, PipelineInput], sources: Mapping[str, Source]
) -> None:
    of_steps = [f"{source.name}.{name}" for source in sources.values() for name in source.declared]
    for name in replaced:
        if name not in own and name not in of_steps:
            raise BadValue(
                f"There is no input `{name}`.",
                f"Inputs of the pipeline: {listed(own)}; of its steps: {listed(of_steps)}.",
            )


def _outputs(root: Value, sources: Mapping[str, Source], types: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Which step writes each of the pipeline's outputs."""
    outputs: dict[str, tuple[str, str]] = {}
    for source in sources.values():
        for output, value in source.bound.items():
            place = value.get("path") or value
            try:
                expression = whole(place.data) if isinstance(place.data, str) else None
            except Malformed:
                expression = None  # a path in a datastore, with ${{name}} in it
            if expression is None:
                if isinstance(value.data, (str, int, float, list)):
                    raise refuse(
                        value,
                        f"Output `{output}` of step `{source.name}` cannot be `{value.plain()}`.",
                        "Write `${{parent.outputs.NAME}}`, `type: uri_folder`, or nothing.",
                    )
                continue
            path = expression.path[1:] if expression.path[0] == "parent" else expression.path
            name = ".".join(path[1:])
            if path[0] != "outputs" or name not in types:
                raise refuse(place, f"The pipeline has no output `{name or path[0]}`.", did_you_mean(name, types))
            if name in outputs:
                raise refuse(
                    place,
                    f"Two steps write output `{name}` of the pipeline: {outputs[name][0]} and {source.name}.",
                    "Give one of them an output of its own.",
                )
            outputs[name] = (source.name, output)
    return outputs


def _step(source: Source, bindings: Bindings, decided: Mapping[tuple[str, str], str], compute: Value | None) -> Step:
    inputs = bindings.resolve(source)
    outputs = {
        name: type_ or decided.get((source.name, name)) or "uri_folder" for name, type_ in source.outputs.items()
    }
    command = source.command.text("command")
    what = f"The command of step `{source.name}`"
    try:
        found = expressions(command)
    except Malformed as error:
        raise refuse(source.command, f"{what} cannot be read: {error}.", "Correct the command.") from error
    for expression in found:
        kind, name = expression.path[0], ".".join(expression.path[1:])
        known: Mapping[str, object] = inputs if kind == "inputs" else outputs
        if kind not in ("inputs", "outputs") or not name:
            remedy = "A command takes `${{inputs.NAME}}` and `${{outputs.NAME}}`."
            if kind == "search_space":
                remedy = "Search spaces belong to sweep jobs: write a value."
            raise refuse(source.command, f"{what} names `{expression.text}`, which means nothing there.", remedy)
        if name not in known:
            raise refuse(
                source.command, f"{what} names `{expression.text}`, which it does not have.", did_you_mean(name, known)
            )
        if kind == "inputs" and not expression.optional and not inputs[name].given:
            raise refuse(
                source.command,
                f"{what} needs input `{name}`, which is optional and not given.",
                f"Put it into `$[[ … ]]`, or give it under `inputs` of `{source.name}`.",
            )
    script = missing_script(command, source.code, source.includes)
    if script is not None:
        where = f"{source.code}" if source.code is not None else "the step, which has no `code`"
        raise refuse(
            source.command, f"{what} starts {script}, which is not in {where}.", "Correct `code` or `command`."
        )
    assert source.command.file is not None
    return Step(
        source.name,
        command,
        source.code,
        source.environment,
        source.command.file,
        source.command.line,
        inputs,
        outputs,
        source.variables,
        source.layout.distribution,
        source.layout.processes,
        source.layout.instances,
        source.layout.shm_size,
        tuple(dict.fromkeys(item.step for item in inputs.values() if item.step is not None)),
        source.includes,
        _compute(source.compute or compute),
    )


def _compute(value: Value | None) -> str:
    """A compute target's name; computes are named only where they matter, so any other shape is none."""
    text = value.data if value is not None else ""
    return text.strip().removeprefix("azureml:").partition("@")[0] if isinstance(text, str) else ""


def _name(root: Value, file: Path) -> str:
    """What the run is called, in letters fit for a file name."""
    generic = file.stem.lower() in ("pipeline", "pipeline-job", "job", "main")
    named = [root.get("name"), root.get("display_name")]
    candidates = [str(value.data) for value in named if value is not None]
    for text in (*candidates, *([file.parent.name] if generic else []), file.stem):
        cleaned = re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.")[:60].rstrip("-.")
        if cleaned:
            return cleaned
    return "pipeline"
