"""Reads, checks and resolves a pipeline file and all files that it names, before anything runs."""

from __future__ import annotations

import functools
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..assets.kinds import BATCH_DEPLOYMENT, kind_of
from ..assets.names import LocalAssets
from ..errors import BadValue, UserError
from . import python_file
from .batch import DATA, pipeline_of_deployment
from .bindings import Bindings
from .component import Components, Source
from .definition import Pipeline, Skipped, Step
from .expressions import Malformed, expressions
from .graph import find_cycle, sort_by_dependency
from .job_kinds import PARALLEL
from .literals import read_boolean
from .nesting import NestingReader
from .notes import Notes
from .parallel_data import check_data
from .problems import Problems, combine_errors
from .root import as_pipeline, run_name
from .scope import Broken, LeftOut, Scope
from .scripts import missing_script
from .selection import select_steps
from .yaml_file import Value, did_you_mean, listed, read_yaml, refuse


def load_pipeline(
    file: Path,
    inputs: Mapping[str, str] | None = None,
    cloud: bool = False,
    *,
    project: Path | None = None,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    fetch_data: bool = False,
) -> Pipeline:
    """Read a file of Azure ML's job schema, version 2, and the files that it names.

    It may hold a pipeline, a component, a single job, or a schedule; see :mod:`workflows.pipelines.root`.

    Args:
        file: The file; relative to the current folder. Or one of Python and the function that gives the pipeline,
            ``make_pipeline.py:FUNCTION``, see :mod:`.python_file`.
        inputs: Values for inputs of the pipeline by name, for those of a step by ``step.name``, and for the outputs
            of a step that does not run here by ``step.output``: a literal's text, or a path relative to the current
            folder.
        cloud: Whether it runs in a workspace, whose data and compute targets it may name.
        project: A further folder that is searched for the files of registered names.
        only: Steps, or nested pipelines, to run; only these and the steps that they need are included. A name may be
            the last part of a step's name if only one step has it. Empty for all steps.
        skip: Steps to leave out.
        fetch_data: Whether a workspace's data is fetched to this machine.

    Raises:
        UserError: It cannot be read, contradicts itself or the schema, or cannot run on this machine; with the line.
            If there are several errors, it has all of them, in the order of the files.
        BadValue: ``inputs``, ``only`` or ``skip`` has an unknown name or a wrong value.
    """
    pipeline, error = survey(file, inputs, cloud, project=project, only=only, skip=skip, fetch_data=fetch_data)
    if error is not None:
        raise error
    return pipeline


def survey(
    file: Path,
    inputs: Mapping[str, str] | None = None,
    cloud: bool = False,
    *,
    project: Path | None = None,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    fetch_data: bool = False,
) -> tuple[Pipeline, UserError | None]:
    """As :func:`load_pipeline`, but return the pipeline as far as it can be read, and the errors beside it.

    Raises:
        UserError: The file has no pipeline, or a requested step does not exist.
    """
    replaced = dict(inputs or {})
    file = Path(os.path.abspath(file))
    notes, problems = Notes(), Problems()
    assets = LocalAssets(tuple(dict.fromkeys(one for one in (file.parent, project) if one is not None)))
    try:
        if (in_python := python_file.parse_place(file)) is not None:
            root, replaced = python_file.build(in_python, replaced)
        else:
            problems.files[file] = None
            root = read_yaml(file, "pipeline file", on_error=problems.add_error)
        if kind_of(root) is BATCH_DEPLOYMENT:
            root = pipeline_of_deployment(root, notes, problems, assets, Path(replaced.get(DATA, "")).is_file())
        root = as_pipeline(root, notes, problems)
    except UserError as last:
        problems.add_error(last)
        raise problems.combined_error() or last from last
    scope = NestingReader(Components(notes, problems, assets, cloud), replaced, skip, problems).read(root)
    replaced = _qualify_single_step_inputs(replaced, scope)
    _check_replaced(replaced, scope, problems)
    reading = _StepResolver(root, scope, Bindings(replaced, notes, problems, assets, cloud, fetch_data), problems)
    asked = select_steps(scope, only, problems)
    steps = reading.steps(asked)
    _check_cycles(steps, problems)
    with problems.collect_errors():
        reading.bindings.check_local()
    continue_on_failure = True
    with problems.collect_errors():
        continue_on_failure = read_boolean(root.get("settings"), "continue_on_step_failure", True)
    left = [entry for entry in scope.entries() if isinstance(entry, LeftOut)]
    error = problems.combined_error([*steps, *asked, *reading.bindings.broken] if only else None)
    if not steps and error is None:
        error = _explain_no_steps(left, root)
    for one in left:
        if not only:
            notes.add_remark(f"`{one.name}` is left out: {one.reason}")
    after = {name: [one for one in step.after if one in steps] for name, step in steps.items()}
    pipeline = Pipeline(
        run_name(root, file),
        file,
        tuple(steps[name] for name in (steps if find_cycle(after) else sort_by_dependency(after))),
        {name: place for name, place in reading.outputs.items() if place[0] in steps},
        continue_on_failure,
        (*notes.lines(steps), *assets.notes),
        tuple(Skipped(one.name, one.reason) for one in left),
        tuple(name for name in asked if name in steps) if only else (),
        tuple(problems.files),
    )
    return pipeline, error


@dataclass
class _StepResolver:
    """Resolves the steps that run."""

    root: Value
    scope: Scope
    bindings: Bindings
    problems: Problems

    def __post_init__(self) -> None:
        self.sources = {one.name: one for one in self.scope.entries() if isinstance(one, Source)}
        self._broken = {
            one.name: one.source for one in self.scope.entries() if isinstance(one, Broken) and one.source is not None
        }
        self.outputs = _outputs(self.scope, self.problems)
        # Steps of the same component start the same script, so the result is cached.
        self._missing = functools.cache(missing_script)
        self._find_output_types = _find_output_types(self.scope)
        settings = self.root.get("settings")
        self._compute = (settings.get("default_compute") if settings is not None else None) or self.root.get("compute")

    def steps(self, asked: Sequence[str]) -> dict[str, Step]:
        """Resolve the steps of these names and the steps that they need, in the order of the file.

        Steps with errors are not included, but their inputs are checked.
        """
        found: dict[str, Step] = {}
        waiting, seen = deque(asked), set[str]()
        while waiting:
            name = waiting.popleft()
            if name in seen:
                continue
            seen.add(name)
            if name in self._broken:
                inputs = self.bindings.resolve(self._broken[name])
                waiting.extend(item.step for item in inputs.values() if item.step is not None)
            elif name in self.sources:
                step = self._step(self.sources[name])
                found[name] = step
                waiting.extend(step.after)
            waiting.extend(one for one in self.bindings.broken if one not in seen)
        return {name: found[name] for name in self.sources if name in found}

    def _step(self, source: Source) -> Step:
        inputs = self.bindings.resolve(source)
        outputs = {
            name: type_ or self._find_output_types.get((source.name, name)) or "uri_folder"
            for name, type_ in source.outputs.items()
        }
        command = source.command.text("command")
        _check_command(source, command, inputs, outputs, self._missing, self.problems.for_step(source.name))
        assert source.command.file is not None
        step = Step(
            source.name,
            command,
            source.code,
            source.environment,
            source.command.file,
            source.command.line,
            inputs,
            outputs,
            source.variables,
            distribution=source.layout.distribution,
            processes=source.layout.processes,
            instances=source.layout.instances,
            shm_size=source.layout.shm_size,
            after=tuple(dict.fromkeys(item.step for item in inputs.values() if item.step is not None)),
            includes=source.includes,
            compute=self._compute_of(source),
            kind=source.kind,
            sweep=source.sweep,
        )
        if step.kind == PARALLEL:
            with self.problems.for_step(source.name).collect_errors():
                check_data(step)
        return step

    def _compute_of(self, source: Source) -> str:
        """The name of a compute target. It only matters in a workspace; elsewhere a wrong value is ignored."""
        own = source.compute
        value = own if own is not None else self._compute
        if value is None:
            return ""
        try:
            settled = (source.scope if own is not None else self.scope).resolve_value(value)
        except UserError as error:
            if self.bindings.cloud:
                self.problems.for_step(source.name).add_error(error)
            return ""
        text = settled.data
        return text.strip().removeprefix("azureml:").partition("@")[0] if isinstance(text, str) else ""


def _outputs(scope: Scope, problems: Problems) -> dict[str, tuple[str, str]]:
    """The step and the output that each output of a pipeline comes from."""
    found = {}
    for name, (job, _) in scope.writers.items():
        with problems.for_step(scope.full_name(job)).collect_errors():
            writer, output = scope.output_writer(name, scope.place)
            if isinstance(writer, Source):
                found[name] = (writer.name, output)
    return found


def _find_output_types(scope: Scope) -> dict[tuple[str, str], str]:
    """The types that outputs of pipelines give to those of their steps; the innermost pipeline counts."""
    found: dict[tuple[str, str], str] = {}
    scopes = [scope, *(one for one in scope.entries() if isinstance(one, Scope))]
    for one in reversed(scopes):
        for name, place in _outputs(one, Problems()).items():
            if one.types[name]:
                found.setdefault(place, one.types[name])
    return found


def _check_command(
    source: Source,
    command: str,
    inputs: Mapping[str, object],
    outputs: Mapping[str, object],
    missing: Callable[[str, Path | None, tuple[Path, ...]], str | None],
    problems: Problems,
) -> None:
    """Check that a command's expressions are valid, and that the script that it starts exists."""
    what = f"The command of step `{source.name}`"
    try:
        found = expressions(command)
    except Malformed as error:
        problems.add(source.command, f"{what} cannot be read: {error}.", "Correct the command.")
        found = []
    for expression in found:
        kind, name = expression.path[0], ".".join(expression.path[1:])
        known = inputs if kind == "inputs" else outputs
        if kind not in ("inputs", "outputs") or not name:
            remedy = "A command takes `${{inputs.NAME}}` and `${{outputs.NAME}}`."
            if kind == "search_space":
                remedy = "Only the trial of a sweep has a search space, and only what stands in `search_space`."
            problems.add(source.command, f"{what} names `{expression.text}`, which means nothing there.", remedy)
        elif name not in known:
            if kind not in source.unreadable:
                problem = f"{what} names `{expression.text}`, which it does not have."
                problems.add(source.command, problem, did_you_mean(name, known))
        elif kind == "inputs" and not expression.optional and not getattr(inputs[name], "given", True):
            problems.add(
                source.command,
                f"{what} needs input `{name}`, which is optional and not given.",
                f"Put it into `$[[ … ]]`, or give it under `inputs` of `{source.name}`.",
            )
    script = missing(command, source.code, source.includes) if source.is_complete else None
    if script is not None:
        where = f"{source.code}" if source.code is not None else "the step, which has no `code`"
        problem = f"{what} starts {script}, which is not in {where}."
        problems.add(source.command, problem, "Correct `code` or `command`.")


def _check_cycles(steps: Mapping[str, Step], problems: Problems) -> None:
    """Check that no jobs wait for each other; each step is reported once."""
    after = {name: list(step.after) for name, step in steps.items()}
    while cycle := find_cycle(after):
        link = next(item for item in steps[cycle[1]].inputs.values() if item.step == cycle[0])
        place = Value(None, link.file, link.line)
        problem = f"The jobs wait for each other: {' → '.join(cycle)}."
        problems.add(place, problem, "Take one of these bindings out.")
        for name in cycle:
            after[name] = []


def _explain_no_steps(left: Sequence[LeftOut], root: Value) -> UserError:
    """The error if there is no step to run, with the reason."""
    errors = [one.error for one in left if one.error is not None]
    if errors:
        return combine_errors(errors)
    return refuse(root, "No step is left to run: all of them are left out.", "Leave out fewer: --skip NAME")


def _qualify_single_step_inputs(replaced: Mapping[str, str], scope: Scope) -> dict[str, str]:
    """Add the step's name to its inputs if there is only one step, so that it need not be typed."""
    entries = list(scope.entries())
    only = entries[0] if len(entries) == 1 else None
    if not isinstance(only, Source):
        return dict(replaced)
    own = {name for name in replaced if name not in scope.inputs and name in only.declared}
    return {f"{only.name}.{name}" if name in own else name: text for name, text in replaced.items()}


def _check_replaced(replaced: Mapping[str, str], scope: Scope, problems: Problems) -> None:
    entries = list(scope.entries())
    sources = [one for one in entries if isinstance(one, Source)]
    nested = [one for one in entries if isinstance(one, Scope)]
    of_steps = [f"{one.name}.{name}" for one in sources for name in one.declared]
    of_steps += [f"{one.name}.{name}" for one in nested for name in one.inputs]
    outputs = [f"{one.name}.{name}" for one in sources for name in one.outputs]
    outputs += [f"{one.name}.{name}" for one in nested for name in one.types]
    # The outputs of these are not known.
    unknown = tuple(f"{one.name}." for one in entries if isinstance(one, (LeftOut, Broken)))
    known = {*scope.inputs, *of_steps, *outputs}
    if scope.unreadable:
        return
    for name in replaced:
        if name not in known and not name.startswith(unknown):
            remedy = f"Inputs of the pipeline: {listed(scope.inputs)}; of its steps: {listed(of_steps)}."
            problems.add_error(BadValue(f"There is no input `{name}`.", remedy))
