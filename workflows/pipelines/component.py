"""Reads a job under ``jobs`` together with its component."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..assets.kinds import COMPONENTS
from ..assets.names import LocalAssets, parse_name
from ..paths import exists
from ..redaction import keep_variables
from .definition import LITERAL_TYPES, EnvironmentReference
from .distribution import Layout, read_layout
from .environment_field import read_environment
from .expressions import Malformed, expressions, replace_expressions
from .includes import read_includes
from .job_kinds import COMMAND, PARALLEL, SWEEP, kind_of_job, not_runnable_here
from .literals import Declared, Unknown, read_declared, read_type, unknown_keys
from .local_paths import code_path, local_path, scheme
from .notes import AddRemark, Notes
from .parallel import REPORTED, convert_to_command
from .problems import Problems
from .search_space import first_values
from .trials import Sweep, read_sweep
from .yaml_file import Value, did_you_mean, read_yaml, refuse

if TYPE_CHECKING:
    from .scope import Scope

_SHARED = (
    *("$schema", "type", "name", "version", "display_name", "description", "tags", "properties", "command", "code"),
    *("environment", "inputs", "outputs", "resources", "distribution", "is_deterministic", "additional_includes"),
    *("id", "creation_context", "queue_settings", "identity", "services", "limits", "intellectual_property"),
)
_JOB = (
    *(*_SHARED, "component", "trial", "compute", "environment_variables", "experiment_name", "comment", "status"),
    *("parent_job_name", "log_files", "sampling_algorithm", "search_space", "objective", "early_termination"),
)
#: MAX_ARG_STRLEN of Linux, for `bash -c COMMAND`.
_LONGEST_COMMAND = 128 * 1024 - 1
#: Inputs, outputs and variables of all steps together.
_MOST_ENTRIES = 100_000
#: Fields that change what a step does in Azure, and that are ignored here.
_NOT_ACTED_ON = ("limits", "identity", "services")


@dataclass(frozen=True)
class Source:
    """A step before its inputs are resolved.

    Attributes:
        name: Its full name: the keys under ``jobs`` that lead to it, joined by dots.
        kind: ``command`` or ``sweep``; for a sweep it is one trial.
        scope: The pipeline that has the job.
        job: Its place.
        command: The command.
        code: Absolute path of its source folder or file.
        environment: The environment that it names.
        declared: The declared inputs, of the component or of the job itself.
        given: The job's ``inputs``; for a sweep also the trial's values.
        outputs: Type of each output; empty if the pipeline's output decides.
        bound: The job's ``outputs``.
        variables: Environment variables.
        layout: Processes and instances.
        includes: Absolute paths of files and folders beside the code.
        compute: As written; None if neither the job nor the component has one.
        whole: Whether all of its code could be found.
        unreadable: Those of ``inputs`` and ``outputs`` that could not be read: nobody knows what is in them.
        sweep: What its further trials are; None of what is no sweep.
    """

    name: str
    kind: str
    scope: Scope
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
    is_complete: bool = True
    sweep: Sweep | None = None
    unreadable: frozenset[str] = frozenset()


@dataclass(frozen=True)
class ResolvedJob:
    """A job with the component that it names.

    Attributes:
        name: Its full name.
        kind: See :mod:`workflows.pipelines.job_kinds`.
        job: The job.
        component: The component's mapping; None if the job has none.
        named: The value that names it; None if the job has none.
        broken: Whether its kind, or its component, cannot be read.
    """

    name: str
    kind: str
    job: Value
    component: Value | None
    named: Value | None
    broken: bool = False

    @property
    def what(self) -> str:
        """The job, for the beginning of a message."""
        return f"Step `{self.name}`"

    @property
    def declares(self) -> Value | None:
        """The component, if it declares inputs and outputs: a sweep's trial may only have a command."""
        trial = self.kind == SWEEP and self.named is not None and self.named.is_mapping
        if trial and self.component is not None and not {"inputs", "outputs"} & set(self.component.data):
            return None
        return self.component


@dataclass
class Components:
    """Reads jobs; a component file that several of them name is read once.

    Attributes:
        notes: Gets notes.
        problems: Gets the errors of single fields.
        assets: Finds the files of registered components.
        cloud: Whether the steps run in a workspace, which resolves the names of environments.
    """

    notes: Notes
    problems: Problems
    assets: LocalAssets
    cloud: bool = False
    files: dict[Path, tuple[Value, Problems]] = field(default_factory=dict)
    _declarations: dict[int, tuple[Value, dict[str, Declared], Problems]] = field(default_factory=dict)
    #: The number of entries of all steps so far: each of a thousand steps may name a component with a thousand inputs.
    entries: int = 0

    def read_job(self, name: str, job: Value) -> ResolvedJob:
        """Read a job's kind and its component.

        Raises:
            NotRunnableHere: It cannot run on this machine.
            UserError: It is not a mapping, or has too many entries; with the line.
        """
        what, problems = f"Step `{name}`", self.problems.for_step(name)
        job.mapping(what)
        trial = job.get("trial")
        # A component may also have a trial, but no job has both.
        named = trial if trial is not None else job.get("component")
        component, kind = None, ""
        if named is not None:
            with problems.collect_errors():
                component = self._component(named, what, trial is not None, problems)
        with problems.collect_errors():
            kind = kind_of_job(job, component, what)
        self._check_size(name, job, component)
        broken = not kind or (named is not None and component is None)
        return ResolvedJob(name, kind or COMMAND, job, component, named, broken)

    def _check_size(self, name: str, job: Value, component: Value | None) -> None:
        """Check that all steps together do not have too many entries."""
        places = [job] if component is None else [job, component]
        parts = ("inputs", "outputs", "environment_variables")
        found_parts = [place.get(key) for place in places for key in parts]
        self.entries += sum(len(one.data) for one in found_parts if one is not None and one.is_mapping)
        self.entries += sum(len(place.data or ()) for place in places)
        if self.entries > _MOST_ENTRIES:
            raise refuse(job, f"Up to step `{name}` there are more than {_MOST_ENTRIES} entries.", "Simplify them.")

    def read_step(self, opened: ResolvedJob, scope: Scope) -> Source:
        """Read a command, or a trial of a sweep, with its component. Errors are added to ``problems``.

        Raises:
            NotRunnableHere: It cannot run on this machine.
        """
        problems = self.problems.for_step(opened.name)
        if opened.kind == PARALLEL:
            opened = self._parallel(opened, scope, problems)
        name, job, component, what = opened.name, opened.job, opened.component, opened.what
        fields = job.mapping(what)
        if not opened.broken:
            job = self._note_unknown(fields, _JOB, what, name, problems).with_corrected_keys(job)
            opened = replace(opened, job=job)
        if component is not None:
            known, whose = (*_SHARED, "compute", "environment_variables"), f"The component of step `{name}`"
            self._note_unknown(component.mapping(what), known, whose, name, problems, self.notes.remarks_for(name))
            if "command" in fields:
                text = f"{what} has a command and a component: the component's counts"
                self.notes.add_remark(text, fields["command"], name)
        places = [job] if component is None else [job, component]

        def first(key: str) -> Value | None:
            """A field of the job, otherwise of its component."""
            return next((value for value in (place.get(key) for place in places) if value is not None), None)

        self._note_ignored(opened, first)
        named_code, environment = first("code"), first("environment")
        code, runs_in, is_complete = None, None, False
        of_file = component is not None and opened.named is not None and not opened.named.is_mapping
        beside = component.file if of_file and component is not None else None
        given, bound = _entries(job, "inputs", what, problems), _entries(job, "outputs", what, problems)
        chosen = first_values(first("search_space"), what, problems) if opened.kind == SWEEP else {}
        sweep = read_sweep(first, chosen, what, scope.resolve_value, problems) if opened.kind == SWEEP else None
        assets = None if self.cloud else self.assets
        before = len(problems)
        with problems.collect_errors():
            code = code_path(named_code, f"step `{name}`") if named_code is not None else None
        includes = read_includes(first("additional_includes"), beside, code, what, problems)
        is_complete = len(problems) == before and not opened.broken
        with problems.collect_errors():
            if environment is not None:
                runs_in = read_environment(environment, f"step `{name}`", problems, assets)
        return Source(
            name,
            opened.kind,
            scope,
            job,
            _command(opened, chosen, problems),
            code,
            runs_in,
            {**self._declared(opened, given, problems), **_trial_inputs(opened, chosen)},
            {**given, **chosen},
            self._outputs(opened, bound, problems),
            bound,
            self._variables(job, component, scope, problems),
            read_layout(
                first("distribution"), first("resources"), what, name, self.notes, problems, scope.resolve_value
            ),
            includes,
            first("compute"),
            is_complete,
            sweep,
            _unreadable_fields(opened),
        )

    def _note_ignored(self, opened: ResolvedJob, first: Callable[[str], Value | None]) -> None:
        """Note fields that change what a step does in Azure, and are ignored here."""
        for key in _NOT_ACTED_ON:
            if (found := first(key)) is not None and not (key == "limits" and opened.kind == SWEEP):
                inner = f"{key}.timeout" if key == "limits" and found.get("timeout") else key
                self.notes.add_field(inner, opened.name)

    def _parallel(self, opened: ResolvedJob, scope: Scope, problems: Problems) -> ResolvedJob:
        """Convert a parallel job to a command."""
        name, what = opened.name, opened.what
        if self.cloud:
            problem = f"{what} is a parallel job, which runs on this machine only."
            raise not_runnable_here(opened.job, problem, "Submit it here: --backend local")
        job, component = convert_to_command(
            opened.job,
            opened.component,
            what,
            scope.resolve_value,
            lambda field: self.notes.add_field(field, name),
            problems,
        )
        return replace(opened, job=job, component=component)

    def _note_unknown(
        self,
        fields: Mapping[str, Value],
        known: tuple[str, ...],
        what: str,
        name: str,
        problems: Problems,
        add_remark: AddRemark | None = None,
    ) -> Unknown:
        """Note keys that the schema does not have."""
        keys = unknown_keys(fields, known, what, problems, add_remark)
        for key in keys.others:
            self.notes.add_field(key, name)
        return keys

    def _component(self, value: Value, what: str, trial: bool, problems: Problems) -> Value:
        if value.is_mapping:
            return value
        text = value.text(f"`{'trial' if trial else 'component'}` of {what.lower()}").strip()
        file = local_path(value, text)
        # With `file:` it is a file; if that is missing, reading it fails with a message.
        named = not text.startswith("file:") and parse_name(text) is not None
        if scheme(text) or (named and not exists(file)):
            found = self.assets.find(text, COMPONENTS, value)
            if found is None:
                raise not_runnable_here(
                    value,
                    f"{what} uses the registered component `{text}`, which is not on this machine.",
                    "Name its file: `component: ./component.yml`.",
                )
            file = found
        problems.files.setdefault(file)
        if file not in self.files:
            wrong = Problems()
            self.files[file] = read_yaml(file, "component file", value, wrong.add_error), wrong
        root, wrong = self.files[file]
        problems.add_all(wrong)
        return root

    def _declared(self, opened: ResolvedJob, given: Mapping[str, Value], problems: Problems) -> dict[str, Declared]:
        component, add_remark = opened.declares, self.notes.remarks_for(opened.name)
        if component is None:
            return {
                name: read_declared(name, value, problems, typed=False, add_remark=add_remark)
                for name, value in given.items()
            }
        where = f"The component of step `{opened.name}`"
        if id(component) not in self._declarations:
            wrong = Problems()
            read = {
                name: read_declared(name, value, wrong, typed=True, add_remark=add_remark)
                for name, value in _entries(component, "inputs", where, problems).items()
            }
            # The component itself is kept, so that no other one gets its id.
            self._declarations[id(component)] = component, read, wrong
        _, declared, wrong = self._declarations[id(component)]
        problems.add_all(wrong)
        for name, value in given.items():
            if name not in declared:
                add_remark(f"{where} has no input `{name}`, which is not used. {did_you_mean(name, declared)}", value)
        return declared

    def _output_type(self, value: Value, key: str, step: str) -> str:
        type_ = value.get("type")
        if type_ is not None and str(type_.data) in LITERAL_TYPES:
            text = f"output `{key}` of step `{step}` is a value ({type_.data}), which steers a pipeline in Azure only"
            self.notes.add_remark(f"{text}: it is handed over as a file", type_, step)
        return read_type(value, f"Output `{key}`", output=True, control=True) or "uri_folder"

    def _outputs(self, opened: ResolvedJob, bound: Mapping[str, Value], problems: Problems) -> dict[str, str]:
        component, name = opened.declares, opened.name
        outputs: dict[str, str] = {}
        if component is not None:
            for key, value in _entries(component, "outputs", f"The component of step `{name}`", problems).items():
                outputs[key] = "uri_folder"
                with problems.collect_errors():
                    outputs[key] = self._output_type(value, key, name)
        for key, value in bound.items():
            if component is not None and key not in outputs:
                text = f"The component of step `{name}` has no output `{key}`. {did_you_mean(key, outputs)}"
                self.notes.add_remark(text, value, name)
            outputs.setdefault(key, "")
            with problems.collect_errors():
                outputs[key] = read_type(value, f"Output `{key}`", output=True) or outputs[key]
            path = value.get("path")
            if path is not None and not str(path.data).strip().startswith("${{parent."):
                self.notes.add_field(f"outputs.{key}.path", name)
        return outputs

    def _variables(self, job: Value, component: Value | None, scope: Scope, problems: Problems) -> dict[str, str]:
        name = problems.owner
        variables: dict[str, str] = {}
        for place in (component, job):
            if place is None:
                continue
            for key, value in _entries(place, "environment_variables", f"Step `{name}`", problems).items():
                with problems.collect_errors():
                    settled = scope.resolve_value(value)
                    if isinstance(settled.data, (dict, list)):
                        text = f"environment variable `{key}` of step `{name}` is not text: it is written as JSON"
                        self.notes.add_remark(text, value, name)
                        settled = Value(json.dumps(settled.plain(), default=str), settled.file, settled.line)
                    variables[key] = "" if settled.data is None else settled.text(f"Environment variable `{key}`")
                    keep_variables({key: variables[key]})
        return variables


def _command(opened: ResolvedJob, chosen: Mapping[str, Value], problems: Problems) -> Value:
    """The command's text, in which a trial's values are inputs; an empty text if there is no valid command."""
    name, place = opened.name, opened.component if opened.component is not None else opened.job
    command = place.get("command")
    nothing = Value("", place.file, place.line)
    if command is None:
        if not opened.broken and (opened.component is not None or opened.job.get("component") is None):
            remedy = "Add `command:` or `component: ./x.yml`."
            problems.add(place, f"{opened.what} has neither a command nor a component.", remedy)
        return nothing
    if not isinstance(command.data, str) or not command.data.strip():
        if command.data is not REPORTED:
            problems.add(command, f"The command of step `{name}` must be a string.", "Write it after `command: >-`.")
        return nothing
    if len(command.data.encode()) > _LONGEST_COMMAND:
        problem = f"The command of step `{name}` is longer than {_LONGEST_COMMAND} bytes, the most that a shell takes."
        problems.add(command, problem, "Put it into a script.")
        return nothing
    if opened.kind != SWEEP:
        return command

    def as_input(text: str) -> str:
        path = expressions(text)[0].path
        return "${{inputs." + path[1] + "}}" if path[0] == "search_space" and path[1:2] and path[1] in chosen else text

    try:
        return Value(replace_expressions(command.data, as_input), command.file, command.line)
    except Malformed:  # reported with the step's name when the command is checked
        return command


def _trial_inputs(opened: ResolvedJob, chosen: Mapping[str, Value]) -> dict[str, Declared]:
    """The inputs of a trial without a component, which come from its search space."""
    return {name: Declared(value) for name, value in chosen.items()} if opened.declares is None else {}


def _unreadable_fields(opened: ResolvedJob) -> frozenset[str]:
    """The fields that could not be read, so their entries are unknown."""
    places = [opened.job, *([opened.component] if opened.component is not None else [])]
    if opened.broken:
        return frozenset(("inputs", "outputs"))
    found = ((key, place.get(key)) for key in ("inputs", "outputs") for place in places)
    return frozenset(key for key, value in found if value is not None and not value.is_mapping)


def _entries(place: Value, key: str, what: str, problems: Problems) -> Mapping[str, Value]:
    return problems.mapping(place.get(key), f"`{key}` of {what[0].lower()}{what[1:]}")
