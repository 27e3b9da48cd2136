"""Converts parallel jobs and components to commands that run the driver of :mod:`workflows.debuggee`.

https://learn.microsoft.com/azure/machine-learning/reference-yaml-job-parallel
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ..errors import UserError
from ..paths import exists
from .commands import PARALLEL_DRIVER
from .definition import Step
from .expressions import Malformed, parse_expression
from .job_kinds import not_runnable_here
from .literals import unknown_keys
from .local_paths import code_path
from .problems import Problems
from .yaml_file import Value, did_you_mean, refuse

#: The field with the input that is a batch deployment's model.
MODEL_INPUT = "model_input"
_ITSELF = "Give it an `entry_script` that loads the model, and `type: run_function`."
#: The field with the model's name, if its input cannot have that name.
MODEL_NAME = "model_called"
#: Fields that only parallel jobs have.
FIELDS = (
    *("task", "input_data", "mini_batch_size", "partition_keys", "mini_batch_error_threshold", "error_threshold"),
    *("max_concurrency_per_instance", "logging_level", "retry_settings", MODEL_INPUT, MODEL_NAME),
)
_TASK = (
    *("type", "code", "entry_script", "program_arguments", "environment", "append_row_to", "model", "model_name"),
    *("output_action", "append_row_file_name"),
)
_FUNCTIONS = ("run_function", "function")
#: Replaces a command that cannot be made, because of an error that has been reported.
REPORTED: Any = object()
_DRIVER = f'"${PARALLEL_DRIVER}"'
#: Fields that are numbers, and the driver's options for them.
_NUMBERS: Mapping[str, str] = {
    "max_concurrency_per_instance": "--processes",
    "mini_batch_error_threshold": "--mini-batch-error-threshold",
    "error_threshold": "--error-threshold",
}
#: Those of them for which -1 means any number.
_OPEN = ("mini_batch_error_threshold", "error_threshold")
_RETRIES: Mapping[str, str] = {"max_retries": "--max-retries", "timeout": "--timeout"}


def convert_to_command(
    job: Value,
    component: Value | None,
    what: str,
    resolve_value: Callable[[Value], Value],
    note: Callable[[str], None],
    problems: Problems,
) -> tuple[Value, Value | None]:
    """Replace the task of a parallel job and its component by a command, or :data:`REPORTED` if there are errors.

    Args:
        job: The job.
        component: Its component, or None.
        what: The step at the beginning of a message.
        resolve_value: Replaces ``${{parent.inputs.x}}`` by the pipeline's input.
        note: Gets the names of ignored fields.
        problems: Gets fields that do not follow the schema or cannot run here.
    """
    places = [job] if component is None else [job, component]

    def first(key: str) -> Value | None:
        value = next((found for found in (place.get(key) for place in places) if found is not None), None)
        if value is not None:
            with problems.collect_errors():
                return resolve_value(value)
        return None

    before, given = len(problems), any(place.get("task") is not None for place in places)
    task = first("task")
    if task is None and not given:
        problem = f"{what} is a parallel job without a `task`."
        problems.add(places[-1], problem, "Add `task:` with its `entry_script`.")
    fields, is_task = problems.mapping(task, f"`task` of {what.lower()}"), task is not None and task.is_mapping
    if task is None or not is_task:
        task = Value({}, places[-1].file, places[-1].line)
    keys = unknown_keys(fields, _TASK, f"The task of {what.lower()}", problems)
    task = keys.with_corrected_keys(task)
    for key in keys.others:
        note(f"task.{key}")
    named = task.get("type")
    if named is not None and str(named.data).lower() == "model":
        raise not_runnable_here(
            named, f"The task of {what.lower()} is of type `model`, which Azure itself serves.", _ITSELF
        )
    if named is not None and str(named.data).lower() not in _FUNCTIONS:
        problem = f"The task of {what.lower()} is of type `{named.data}`, which cannot run on this machine."
        problems.add(named, problem, "Write `type: run_function`.")
    script = Value("", task.file, task.line)
    if task.get("entry_script") is not None:
        with problems.collect_errors():
            script = _script(task, what)
    elif is_task:
        problems.add(task, f"The task of {what.lower()} has no `entry_script`.", "Name the script that has run().")
    words = ["exec", "python", _DRIVER, "--entry-script", shlex.quote(script.text("`entry_script`"))]
    with problems.collect_errors():
        words += _input(first("input_data"), places, what)
    words += _settings(first, resolve_value, what, problems)
    words += _rows(task, places, problems)
    model = job.get(MODEL_INPUT)
    words += ["--model", str(model.data)] if model is not None else []
    called = job.get(MODEL_NAME)
    words += ["--model-name", shlex.quote(str(called.data))] if called is not None else []
    arguments = problems.text(task.get("program_arguments"), "`program_arguments`")
    if arguments:
        words += ["--", re.sub(r"\\?\n", " ", arguments).strip()]
    command = Value(REPORTED if len(problems) > before else " ".join(words), script.file, script.line)
    made = {"command": command, **{key: task.data[key] for key in ("code", "environment") if task.get(key) is not None}}
    changed = [_without(place, note) for place in places]
    changed[-1] = Value({**changed[-1].data, **made}, places[-1].file, places[-1].line)
    return changed[0], None if component is None else changed[1]


def is_parallel(step: Step) -> bool:
    """Whether a step is a parallel job."""
    return _DRIVER in step.command


def with_mini_batch(step: Step, number: int) -> Step:
    """The parallel step with only one mini-batch, counted from 0."""
    return replace(step, command=step.command.replace(_DRIVER, f"{_DRIVER} --only {number}", 1))


def with_one_mini_batch(steps: tuple[Step, ...], number: int, wanted: tuple[str, ...]) -> tuple[Step, ...]:
    """The steps of a pipeline, of which the parallel one only runs one mini-batch.

    Args:
        steps: All steps.
        number: The mini-batch, from 0.
        wanted: Names of the debugged steps; empty for all. If none of them is parallel, a step that they need is meant.

    Raises:
        UserError: No step is parallel, or several are.
    """
    parallel = [step.name for step in steps if is_parallel(step)]
    named = [name for name in parallel if name in wanted] or parallel
    if not named:
        whose = f"the step {wanted[0]}" if len(wanted) == 1 else "a step of this pipeline"
        raise UserError(
            f"--mini-batch needs a parallel job, and {whose} is not one.", "Remove --mini-batch, or name one: --step"
        )
    if len(named) > 1:
        raise UserError(f"Several steps have mini-batches: {', '.join(named)}.", f"Name one: --step {named[0]}")
    return tuple(with_mini_batch(step, number) if step.name == named[0] else step for step in steps)


def _script(task: Value, what: str) -> Value:
    """The entry script, which is checked to exist if the code is known."""
    script, named_code = task.data["entry_script"], task.get("code")
    text = script.text(f"`entry_script` of {what.lower()}").strip().removeprefix("./")
    if named_code is not None:
        code = code_path(named_code, what[0].lower() + what[1:])
        there = exists(code / text) if code.is_dir() else code.name == text
        if not there:
            problem = f"The entry script of {what.lower()}, {text}, is not in {code}."
            raise refuse(script, problem, "Correct `code` or `entry_script`.")
    return Value(text, script.file, script.line)


def _input(named: Value | None, places: list[Value], what: str) -> list[str]:
    """The driver's options for the input that is divided into mini-batches, and for its declared type."""
    if named is None:
        raise refuse(places[-1], f"{what} has no `input_data`.", "Name an input: `input_data: ${{inputs.NAME}}`.")
    text = named.text("`input_data`").strip()
    try:
        expression = parse_expression(text)
    except Malformed as error:
        raise refuse(named, f"`input_data` of {what.lower()}: {error}.", "Write `${{inputs.NAME}}`.") from error
    path = expression.path if expression is not None else ()
    if path[:1] != ("inputs",) or len(path) < 2:
        raise refuse(
            named,
            f"`input_data` of {what.lower()} cannot be `{text}`.",
            "Name an input: `input_data: ${{inputs.NAME}}`.",
        )
    name = ".".join(path[1:])
    declared: dict[str, str] = {}
    for place in reversed(places):
        inputs = place.get("inputs")
        for key, value in (inputs.data if inputs is not None and inputs.is_mapping else {}).items():
            type_ = value.get("type")
            declared[key] = str(type_.data).lower() if type_ is not None else declared.get(key, "")
    if name not in declared:
        raise refuse(named, f"{what} has no input `{name}`.", did_you_mean(name, declared))
    found = declared[name]
    return ["--input", text, *(["--input-type", shlex.quote(found)] if found else [])]


def _settings(
    first: Callable[[str], Value | None], resolve_value: Callable[[Value], Value], what: str, problems: Problems
) -> list[str]:
    words = []
    size, keys, level, retries = (
        first(key) for key in ("mini_batch_size", "partition_keys", "logging_level", "retry_settings")
    )
    if size is not None:
        words += ["--mini-batch-size", shlex.quote(problems.text(size, f"`mini_batch_size` of {what.lower()}"))]
    if keys is not None:
        listed = keys.data if isinstance(keys.data, list) else [keys]
        names = [name for one in listed for name in problems.text(one, "`partition_keys`").split(",")]
        words += ["--partition-keys", shlex.quote(",".join(name.strip() for name in names))]
    words += _numbers(first, _NUMBERS, what, problems)
    if retries is not None:
        entries = problems.mapping(retries, f"`retry_settings` of {what.lower()}")
        settled = {}
        for key, value in entries.items():
            with problems.collect_errors():
                settled[key] = resolve_value(value)
        words += _numbers(settled.get, _RETRIES, what, problems)
    if level is not None:
        words += ["--logging-level", shlex.quote(problems.text(level, f"`logging_level` of {what.lower()}"))]
    return words


def _numbers(
    get: Callable[[str], Value | None], options: Mapping[str, str], what: str, problems: Problems
) -> list[str]:
    words = []
    for key, option in options.items():
        value = get(key)
        if value is None or value.data is None:
            if key == "max_concurrency_per_instance":
                words += [option, "1"]
            continue
        least = -1 if key in _OPEN else 0 if key == "max_retries" else 1
        text = str(value.data)
        if not text.removeprefix("-").isdecimal() or len(text) > 9 or int(text) < least:
            problem = f"`{key}` of {what.lower()} has to be a whole number from {least}, not `{text}`."
            problems.add(value, problem, "Correct it.")
        words += [option, text]
    return words


def _rows(task: Value, places: list[Value], problems: Problems) -> list[str]:
    """The driver's options for the file of appended rows, and for the folder that the entry script may write to."""
    rows = task.get("append_row_to")
    if rows is not None:
        text = problems.text(rows, "`append_row_to`")
        # An expression is always one word, and would not be replaced in quotes.
        text = text if "${{" in text else shlex.quote(text)
        return ["--append-row-to", text, "--output", text]
    outputs = [one for place in places if (one := place.get("outputs")) is not None and one.is_mapping]
    names = list(dict.fromkeys(name for one in reversed(outputs) for name in one.data))
    return ["--output", f"${{{{outputs.{names[0]}}}}}"] if names else []


def _without(place: Value, note: Callable[[str], None]) -> Value:
    """A job or component without the fields of parallel ones, and with one instance."""
    fields = {key: value for key, value in place.data.items() if key not in FIELDS}
    resources = fields.get("resources")
    if isinstance(resources, Value) and resources.is_mapping and "instance_count" in resources.data:
        if str(resources.data["instance_count"].data) != "1":
            note("resources.instance_count")
        kept = {key: value for key, value in resources.data.items() if key != "instance_count"}
        fields["resources"] = Value(kept, resources.file, resources.line)
    return Value(fields, place.file, place.line)
