"""The inputs of a pipeline, and of the pipelines nested in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..redaction import keep_inputs
from .definition import LITERAL_TYPES
from .expressions import Expression, Malformed, parse_expression
from .literals import DATA_TYPES, Declared, literal_text, read_declared, read_type
from .local_paths import scheme
from .notes import AddRemark, Notes
from .problems import Problems
from .yaml_file import Value, did_you_mean, refuse

if TYPE_CHECKING:
    from .scope import Scope


@dataclass(frozen=True)
class Given:
    """A value as it is written.

    Attributes:
        type: The type beside it; empty if there is none.
        value: Text, number, path or expression; None if nothing is given.
        data: Whether it is under ``path``.
        scope: If the value is another step's output, the pipeline in which that is looked up; otherwise None.
    """

    type: str = ""
    value: Value | None = None
    data: bool = False
    scope: Scope | None = None


@dataclass(frozen=True)
class PipelineInput:
    """An input of a pipeline.

    Attributes:
        name: Its name.
        declared: Its declaration.
        given: Its value.
        option: Its name for ``--input``.
    """

    name: str
    declared: Declared
    given: Given
    option: str


def read_given(name: str, value: Value) -> Given:
    """Read one entry of ``inputs``: a literal, a mapping with ``path``, ``value`` or ``default``, or nothing.

    Raises:
        UserError: It is a list, or a mapping of another shape; with the line.
    """
    if isinstance(value.data, list):
        raise refuse(value, f"Input `{name}` cannot be a list.", "Write a text, a number, or `type:` and `path:`.")
    if not value.is_mapping:
        return Given(value=value if value.data is not None else None)
    for key in ("dataset", "data"):  # as in files of the preview
        inner = value.get(key)
        if inner is not None:
            found = read_given(name, inner)
            return replace(found, data=True, type=read_type(value, f"Input `{name}`") or found.type)
    type_ = read_type(value, f"Input `{name}`")
    path = value.get("path") or value.get("local_path")
    if path is not None:
        return Given(type_, path, data=True)
    return Given(type_, value.get("value") or value.get("default"))


def read_pipeline_inputs(
    inputs: Mapping[str, Value], replaced: Mapping[str, str], notes: Notes, problems: Problems
) -> dict[str, PipelineInput]:
    """Read the pipeline's own inputs, with the values of the command line; ``problems`` gets what is wrong."""
    result = {}
    for name, value in inputs.items():
        declared = read_declared(name, value, problems, typed=False, add_remark=notes.add_remark)
        result[name] = _broken(name, value)
        if not declared.broken:
            with problems.collect_errors():
                given = read_given(name, value)
                result[name] = _checked(name, name, declared, given, replaced, notes, "the pipeline")
    return result


def _broken(name: str, value: Value) -> PipelineInput:
    """An input with an error that has been reported."""
    return PipelineInput(name, Declared(value, broken=True), Given(), name)


def read_nested_inputs(
    declared: Mapping[str, Value],
    given: Mapping[str, Value],
    job: Value,
    outer: Scope,
    name: str,
    replaced: Mapping[str, str],
    notes: Notes,
    problems: Problems,
) -> dict[str, PipelineInput]:
    """Read the inputs of a pipeline that is a job of another one.

    Args:
        declared: The inputs that its component declares.
        given: What the job binds them to, in the terms of the outer pipeline.
        job: The job, for a message.
        outer: The outer pipeline.
        name: The job's full name.
        replaced: Values of the command line by ``NAME.INPUT``.
        notes: Gets remarks.
        problems: Gets inputs that do not follow the schema, are bound to what does not exist, or have no value.
    """
    what = f"pipeline `{name}`"
    for key, value in given.items():
        if key not in declared:
            hint = did_you_mean(key, declared) if declared else "It has none."
            notes.add_remark(f"the {what} has no input `{key}`, which is not used. {hint}".rstrip("."), value, name)
    result = {}
    for key, value in declared.items():
        declaration = read_declared(key, value, problems, typed=False, add_remark=notes.remarks_for(name))
        result[key] = _broken(key, value)
        with problems.collect_errors():
            bound = _bound(key, given[key], outer, what, notes.remarks_for(name)) if key in given else None
            if declaration.broken:
                continue
            own = read_given(key, value)
            option = f"{name}.{key}"
            if bound is not None:
                option = bound.option or option
                type_ = declaration.type or bound.declared.type or bound.given.type
                declaration = replace(declaration, type=type_, optional=declaration.optional or bound.declared.optional)
                if bound.given.value is not None:
                    own = replace(bound.given, type=type_)
            one = _checked(key, option, declaration, own, replaced, notes, f"the {what}", f"{name}.{key}")
            if one.given.value is None and not one.declared.optional:
                place = given.get(key, job)
                remedy = f"Give it under `inputs` of `{name}`, or: `--input {option}=…`."
                raise refuse(place, f"Input `{key}` of the {what} is required and has no value.", remedy)
            result[key] = one
    return result


def _bound(name: str, value: Value, outer: Scope, what: str, add_remark: AddRemark) -> PipelineInput | None:
    """A job's input, looked up in the outer pipeline; None if nothing is written."""
    given = read_given(name, value)
    if given.value is None:
        return None
    declared = Declared(value, given.type)
    expression = as_expression(given.value, f"Input `{name}` of the {what}", add_remark)
    if expression is None:
        return PipelineInput(name, declared, given, "")
    path = expression.path[1:] if expression.path[0] == "parent" else expression.path
    if path[:1] == ("inputs",) and len(path) > 1:
        return outer.input(".".join(path[1:]), given.value)
    if path[:1] == ("jobs",) and len(path) == 4 and path[2] == "outputs":
        # That step may not have been read yet.
        return PipelineInput(name, declared, replace(given, data=True, scope=outer), "")
    raise wrong_binding(given.value, expression, f"Input `{name}` of the {what}")


def as_expression(value: Value, what: str, add_remark: AddRemark) -> Expression | None:
    """The expression that a value of a file consists of; None for any other value.

    Args:
        value: The value.
        what: The input in a remark.
        add_remark: Gets a remark if the value begins an expression without an end, or mixes one with other text.
            Azure's own check takes such a value as a text.
    """
    if value.file is None or not isinstance(value.data, str) or scheme(value.data):
        return None
    try:
        return parse_expression(value.data)
    except Malformed as error:
        add_remark(f"{what}: {error}: it is taken as a text", value)
        return None


def wrong_binding(value: Value, expression: Expression, what: str) -> Exception:
    """An error for an expression that an input cannot have."""
    return refuse(
        value,
        f"{what} cannot be `{expression.text}`.",
        "Write `${{parent.inputs.NAME}}` or `${{parent.jobs.STEP.outputs.NAME}}`.",
    )


def _checked(
    name: str,
    option: str,
    declared: Declared,
    given: Given,
    replaced: Mapping[str, str],
    notes: Notes,
    whose: str,
    typed: str = "",
) -> PipelineInput:
    """The input with its value from the command line, if there is one; literals of a known type are checked."""
    if (typed or option) in replaced:
        text = replaced[typed or option]
        # A literal without a declared type keeps the type that it has in the file.
        was = given.value.data if given.value is not None and not given.data else None
        hint = "boolean" if isinstance(was, bool) else "number" if isinstance(was, (int, float)) else ""
        declared = replace(declared, type=declared.type or hint)
        given = Given(declared.type, Value(text, None), given.data or declared.type in DATA_TYPES)
    if given.value is not None and declared.type in LITERAL_TYPES and not given.data:
        literal_text(given.value, declared, f"Input `{name}` of {whose}", notes.add_remark)
    for one in (given.value, declared.default) if not given.data else ():
        if one is not None and isinstance(one.data, (str, int)):
            keep_inputs({name: str(one.data)})
    return PipelineInput(name, declared, given, option)
