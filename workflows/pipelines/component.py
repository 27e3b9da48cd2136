"""A job under ``jobs`` and its component, put together."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..paths import exists
from ..redaction import keep_variables
from .definition import EnvironmentReference
from .distribution import Layout, read_layout
from .environment_field import read_environment
from .includes import read_includes
from .literals import Declared, read_declared, read_type, unknown_keys
from .local_paths import code_path, local_path, scheme
from .yaml_file import Value, did_you_mean, read_yaml, refuse

_COMMAND_TYPES = ("command", "component", "command_component")
#: What cannot run on a machine of one's own, and what to put in its place.
_ELSEWHERE = {
    "sweep": "Put a command job in its place: its trial, with values for the search space.",
    "spark": "Put a command job in its place.",
    "automl": "Put a command job in its place that trains one model.",
    "parallel": "Put a command job in its place that takes all data at once.",
    "pipeline": "Put its jobs into this file.",
}
_OTHERS = ("import", "data_transfer", "do_while", "if_else", "parallel_for", "finetuning", "promptflow_parallel")
_SHARED = (
    *("$schema", "type", "name", "version", "display_name", "description", "tags", "properties", "command", "code"),
    *("environment", "inputs", "outputs", "resources", "distribution", "is_deterministic", "additional_includes"),
    *("id", "creation_context", "queue_settings", "identity", "services", "limits", "intellectual_property"),
)
_JOB = (*_SHARED, "component", "trial", "compute", "environment_variables", "experiment_name", "comment", "status")
#: MAX_ARG_STRLEN of Linux, for `bash -c COMMAND`.
_LONGEST_COMMAND = 128 * 1024 - 1
#: Inputs, outputs and variables of all steps together.
_MOST_ENTRIES = 100_000
#: Fields that change what a step does, and that nothing here acts on.
_NOT_ACTED_ON = ("limits", "identity", "services")


@dataclass
class Notes:
    """What is done differently here: each field once, with the steps that have it."""

    fields: dict[str, list[str]] = field(default_factory=dict)

    def add(self, name: str, step: str = "") -> None:
        """Note a field that is not acted on."""
        steps = self.fields.setdefault(name, [])
        if step and step not in steps:
            steps.append(step)

    def lines(self) -> tuple[str, ...]:
        """One line each."""
        return tuple(
            f"`{name}` is not acted on here" + (f" ({', '.join(steps)})" if steps else "")
            for name, steps in self.fields.items()
        )


@dataclass(frozen=True)
class Source:
    """A step before its inputs are resolved.

    Attributes:
        name: Its key under ``jobs``.
        job: Its place.
        command: The command.
        code: Absolute path of its source folder or file.
        environment: What it wants to run in.
        declared: Inputs: of the component, or of the job itself.
        given: The job's ``inputs``.
        outputs: Type of each output; empty where the pipeline's output decides.
        bound: The job's ``outputs``.
        variables: Environment variables.
        layout: Processes and instances.
        includes: Absolute paths of what lies beside the code.
        compute: As written; None where neither job nor component says.
    """

    name: str
    job: Value
    command: Value
    code: Path | None
    environment: EnvironmentReference | None
    declared: Mapping[str, Declared]
    given: Mapping[str, Value]
    outputs: Mapping[str, str]
    bound: Mapping[str, Value]
    variables: Mapping[str, str]
    layout: Layout
    includes: tuple[Path, ...]
    compute: Value | None


@dataclass
class Components:
    """Reads jobs; component files that several of them name are read once.

    Attributes:
        notes: Where notes go.
        settle: Puts the pipeline's input in the place of ``${{parent.inputs.x}}`` in a field.
    """

    notes: Notes
    settle: Callable[[Value], Value]
    files: dict[Path, Value] = field(default_factory=dict)
    #: Entries of all steps so far: each of a thousand steps may name a component with a thousand inputs.
    entries: int = 0

    def read(self, name: str, job: Value) -> Source:
        """Put a job and its component together.

        Raises:
            UserError: What cannot run here, or is not of the schema's shape; with the line.
        """
        what = f"Step `{name}`"
        fields = job.mapping(what)
        _check_type(job, what)
        self._note_unknown(fields, _JOB, what, name)
        named = job.get("component")
        component = self._component(named, what) if named is not None else None
        if component is not None:
            self._note_unknown(component.mapping(what), (*_SHARED, "compute"), f"The component of {what.lower()}", name)
            if "command" in fields:
                raise refuse(fields["command"], f"{what} has a command and a component.", "Take one of the two out.")
        places = [job] if component is None else [job, component]

        def first(key: str) -> Value | None:
            """What the job says before what its component says."""
            return next((value for value in (place.get(key) for place in places) if value is not None), None)

        parts = ("inputs", "outputs", "environment_variables")
        found_parts = [place.get(key) for place in places for key in parts]
        self.entries += sum(len(one.data) for one in found_parts if one is not None and one.is_mapping)
        self.entries += sum(len(place.data or ()) for place in places)
        if self.entries > _MOST_ENTRIES:
            raise refuse(job, f"Up to step `{name}` there are more than {_MOST_ENTRIES} entries.", "Simplify them.")
        command = places[-1].get("command")
        if command is None:
            raise refuse(
                places[-1], f"{what} has neither a command nor a component.", "Add `command:` or `component: ./x.yml`."
            )
        if not isinstance(command.data, str) or not command.data.strip():
            raise refuse(command, f"The command of step `{name}` has to be a text.", "Write it after `command: >-`.")
        if len(command.data.encode()) > _LONGEST_COMMAND:
            problem = (
                f"The command of step `{name}` is longer than {_LONGEST_COMMAND} bytes, the most that a shell takes."
            )
            raise refuse(command, problem, "Put it into a script.")
        for key in _NOT_ACTED_ON:
            if (found := first(key)) is not None:
                inner = f"{key}.timeout" if key == "limits" and found.get("timeout") else key
                self.notes.add(inner, name)
        named_code, environment = first("code"), first("environment")
        code = code_path(named_code, f"step `{name}`") if named_code is not None else None
        beside = component.file if component is not None and named is not None and not named.is_mapping else None
        given, bound = _entries(job, "inputs", what), _entries(job, "outputs", what)
        return Source(
            name,
            job,
            command,
            code,
            read_environment(environment, f"step `{name}`") if environment is not None else None,
            _declared(component, given, what),
            given,
            self._outputs(component, bound, what, name),
            bound,
            self._variables(job, component, what),
            read_layout(first("distribution"), first("resources"), what, name, self.notes.add, self.settle),
            read_includes(first("additional_includes"), beside, code, what),
            first("compute"),
        )

    def _note_unknown(self, fields: Mapping[str, Value], known: tuple[str, ...], what: str, name: str) -> None:
        for key in unknown_keys(fields, known, what):
            self.notes.add(key, name)

    def _component(self, value: Value, what: str) -> Value:
        if value.is_mapping:
            component = value
        else:
            text = value.text(f"`component` of {what.lower()}").strip()
            file = local_path(value, text)
            versioned = re.fullmatch(r"[\w.-]+(:[\w.-]+|@\w+)", text) and not exists(file)
            if scheme(text) or versioned:
                raise refuse(
                    value,
                    f"{what} uses the registered component `{text}`, which is not on this machine.",
                    "Name its file: `component: ./component.yml`.",
                )
            if file not in self.files:
                self.files[file] = read_yaml(file, "component file", value)
            component = self.files[file]
        _check_type(component, f"The component of {what.lower()}")
        return component

    def _outputs(self, component: Value | None, bound: Mapping[str, Value], what: str, name: str) -> dict[str, str]:
        outputs: dict[str, str] = {}
        if component is not None:
            for key, value in _entries(component, "outputs", f"The component of {what.lower()}").items():
                outputs[key] = read_type(value, f"Output `{key}`", output=True) or "uri_folder"
        for key, value in bound.items():
            if component is not None and key not in outputs:
                raise refuse(
                    value, f"The component of {what.lower()} has no output `{key}`.", did_you_mean(key, outputs)
                )
            type_ = read_type(value, f"Output `{key}`", output=True)
            outputs[key] = type_ or outputs.get(key, "")
            path = value.get("path")
            if path is not None and not str(path.data).strip().startswith("${{parent."):
                self.notes.add(f"outputs.{key}.path", name)
        return outputs

    def _variables(self, job: Value, component: Value | None, what: str) -> dict[str, str]:
        variables: dict[str, str] = {}
        for place in (component, job):
            for key, value in _entries(place, "environment_variables", what).items() if place is not None else ():
                settled = self.settle(value)
                variables[key] = "" if settled.data is None else settled.text(f"Environment variable `{key}`")
                keep_variables({key: variables[key]})
        return variables


def _check_type(value: Value, what: str) -> None:
    """Refuse what is not a command."""
    named = value.get("type")
    if named is None:
        if value.is_mapping and "trial" in value.data:
            raise refuse(value, f"{what} is a sweep job, which cannot run here.", _ELSEWHERE["sweep"])
        return
    text = named.text(f"The type of {what.lower()}")
    type_ = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", text).lower()
    if type_ in _COMMAND_TYPES:
        return
    if type_ in _ELSEWHERE or type_ in _OTHERS:
        raise refuse(
            named,
            f"{what} is of type `{text}`, which cannot run on this machine.",
            _ELSEWHERE.get(type_, "Put a command job in its place, or take it out."),
        )
    raise refuse(named, f"{what} is of type `{text}`, which is none.", did_you_mean(type_, ("command", *_ELSEWHERE)))


def _entries(place: Value, key: str, what: str) -> Mapping[str, Value]:
    value = place.get(key)
    return value.mapping(f"`{key}` of {what[0].lower()}{what[1:]}") if value is not None else {}


def _declared(component: Value | None, given: Mapping[str, Value], what: str) -> dict[str, Declared]:
    if component is None:
        return {name: read_declared(name, value, typed=False) for name, value in given.items()}
    where = f"The component of {what.lower()}"
    declared = {
        name: read_declared(name, value, typed=True) for name, value in _entries(component, "inputs", where).items()
    }
    for name, value in given.items():
        if name not in declared:
            raise refuse(value, f"{where} has no input `{name}`.", did_you_mean(name, declared))
    return declared
