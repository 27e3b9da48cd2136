"""What a step's inputs are: a literal, data on this machine, or another step's output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..paths import exists
from ..redaction import keep_address, keep_inputs
from .component import Source
from .definition import LITERAL_TYPES, Input
from .expressions import Malformed, whole
from .literals import DATA_TYPES, Declared, literal_text, literal_type, read_declared, read_type
from .local_paths import Elsewhere, all_elsewhere, data_path, local_path, scheme
from .yaml_file import Value, did_you_mean, refuse


@dataclass(frozen=True)
class Given:
    """A value as it is written.

    Attributes:
        type: The type that stands beside it; empty where there is none.
        value: Text, number, path or expression; None where nothing is given.
        data: Whether it stands under ``path``.
    """

    type: str = ""
    value: Value | None = None
    data: bool = False


@dataclass(frozen=True)
class PipelineInput:
    """An input of the pipeline itself."""

    name: str
    declared: Declared
    given: Given


def read_given(name: str, value: Value) -> Given:
    """One entry of ``inputs``: a literal, a mapping with ``path``, ``value`` or ``default``, or nothing.

    Raises:
        UserError: A list, or a mapping of another shape; with the line.
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


def read_pipeline_inputs(inputs: Mapping[str, Value], replaced: Mapping[str, str]) -> dict[str, PipelineInput]:
    """The pipeline's own inputs, with those that the command line replaces.

    Raises:
        UserError: One is not of the schema's shape; with the line.
    """
    result = {}
    for name, value in inputs.items():
        declared, given = read_declared(name, value, typed=False), read_given(name, value)
        if name in replaced:
            # A literal that names no type keeps the one that it has in the file.
            was = given.value.data if given.value is not None and not given.data else None
            hint = "boolean" if isinstance(was, bool) else "number" if isinstance(was, (int, float)) else ""
            declared = replace(declared, type=declared.type or hint)
            given = Given(declared.type, Value(replaced[name], None), given.data or declared.type in DATA_TYPES)
        if given.value is not None and declared.type in LITERAL_TYPES and not given.data:
            literal_text(given.value, declared, f"Input `{name}` of the pipeline")
        for one in (given.value, declared.default) if not given.data else ():
            if one is not None and isinstance(one.data, (str, int)):
                keep_inputs({name: str(one.data)})
        result[name] = PipelineInput(name, declared, given)
    return result


@dataclass
class Bindings:
    """Resolves the inputs of steps.

    Attributes:
        pipeline: The pipeline's inputs.
        sources: All steps by name.
        replaced: Values of the command line by ``step.input``.
        cloud: Whether data of the workspace can be had where the steps run.
    """

    pipeline: Mapping[str, PipelineInput]
    sources: Mapping[str, Source]
    replaced: Mapping[str, str]
    cloud: bool = False
    _elsewhere: list[Elsewhere] = field(default_factory=list)

    def resolve(self, source: Source) -> dict[str, Input]:
        """All inputs of a step; those that are not on this machine are refused by :meth:`check_here`.

        Raises:
            UserError: One is missing, of the wrong type, or names what does not exist.
        """
        found = {name: self._here(source, name, declared) for name, declared in source.declared.items()}
        keep_inputs({name: entry.text for name, entry in found.items() if entry.text is not None})
        return found

    def check_here(self) -> None:
        """See that all data of the steps is on this machine.

        Raises:
            UserError: Some is not; all of it is named, so that one more command will do.
        """
        if self._elsewhere:
            raise all_elsewhere(self._elsewhere)

    def _here(self, source: Source, name: str, declared: Declared) -> Input:
        try:
            return self._input(source, name, declared)
        except Elsewhere as error:
            self._elsewhere.append(error)
            return Input(declared.type, path=Path())

    def _input(self, source: Source, name: str, declared: Declared) -> Input:
        what = f"Input `{name}` of step `{source.name}`"
        option = f"{source.name}.{name}"
        given = read_given(name, source.given[name]) if name in source.given else Given()
        if option in self.replaced:
            given = Given(given.type, Value(self.replaced[option], None), given.data)
        declared = _as_given(declared, given.type)
        value, data = given.value, given.data
        if value is None:
            value, data = declared.default, False
        if value is None or _is_left_out(declared, value, data):
            return self._nothing(declared, source.job, what, f"Give it under `inputs` of `{source.name}`.")
        text = value.data if isinstance(value.data, str) else ""
        if value.file is None or scheme(text):
            return _value(declared, value, data, what, option, self.cloud)
        try:
            expression = whole(text)
        except Malformed as error:
            raise refuse(value, f"{what}: {error}.", "Write one expression, or a text without.") from error
        if expression is None:
            return _value(declared, value, data, what, option, self.cloud)
        path = expression.path[1:] if expression.path[0] == "parent" else expression.path
        if path[:1] == ("inputs",) and len(path) > 1:
            return self._from_pipeline(declared, ".".join(path[1:]), value, source, what)
        if path[:1] == ("jobs",) and len(path) == 4 and path[2] == "outputs":
            return self._from_step(declared, path[1], path[3], value, what)
        raise refuse(
            value,
            f"{what} cannot be `{expression.text}`.",
            "Write `${{parent.inputs.NAME}}` or `${{parent.jobs.STEP.outputs.NAME}}`.",
        )

    def _nothing(self, declared: Declared, place: Value, what: str, remedy: str) -> Input:
        if declared.optional:
            return Input(declared.type or "string", file=declared.place.file, line=declared.place.line)
        raise refuse(place, f"{what} is required and has no value.", remedy)

    def _from_pipeline(self, declared: Declared, name: str, value: Value, source: Source, what: str) -> Input:
        if name not in self.pipeline:
            raise refuse(value, f"The pipeline has no input `{name}`.", did_you_mean(name, self.pipeline))
        own = self.pipeline[name]
        declared = _as_given(declared, own.declared.type)
        given = own.given.value
        if given is not None and not _is_left_out(declared, given, own.given.data):
            return _value(declared, given, own.given.data, what, name, self.cloud)
        if given is None and declared.default is not None and not _is_left_out(declared, declared.default, False):
            return _value(declared, declared.default, False, what, f"{source.name}.{name}", self.cloud)
        declared = replace(declared, optional=declared.optional or own.declared.optional)
        return self._nothing(
            declared, own.declared.place, what, f"Give input `{name}` of the pipeline: `--input {name}=…`."
        )

    def _from_step(self, declared: Declared, step: str, output: str, value: Value, what: str) -> Input:
        if step not in self.sources:
            raise refuse(value, f"There is no job `{step}`.", did_you_mean(step, self.sources))
        outputs = self.sources[step].outputs
        if output not in outputs:
            raise refuse(value, f"Job `{step}` has no output `{output}`.", did_you_mean(output, outputs))
        if declared.type in LITERAL_TYPES:
            raise refuse(
                value,
                f"{what} has to be a literal ({declared.type}), but an output is data.",
                "Declare it as `uri_folder`, or give it a literal.",
            )
        type_ = declared.type or outputs[output] or "uri_folder"
        return Input(type_, step=step, output=output, file=value.file, line=value.line)


def _is_left_out(declared: Declared, value: Value, data: bool) -> bool:
    """Whether an optional input is given as the empty text, which leaves it out: a flag needs its value."""
    return declared.optional and not data and value.data == ""


def _as_given(declared: Declared, type_: str) -> Declared:
    """With the type of what is given where none is declared; of data also where another one is.

    Azure ML lets a file be given where a component says folder: whoever gives it knows what it is.
    """
    if declared.type and not (declared.type in DATA_TYPES and type_ in DATA_TYPES):
        return declared
    return replace(declared, type=type_)


def _value(declared: Declared, value: Value, data: bool, what: str, option: str, cloud: bool) -> Input:
    """A literal, or data that no step makes."""
    type_ = declared.type
    text = value.data if isinstance(value.data, str) else ""
    if type_ in LITERAL_TYPES:
        if data:
            raise refuse(value, f"{what} has to be a literal ({type_}), but is data.", f"Give it a {type_}.")
        return Input(type_, text=literal_text(value, declared, what), file=value.file, line=value.line)
    # An asset's name is data in Azure wherever it stands; any other text is a text.
    if type_ in DATA_TYPES or data or scheme(text) == "azureml":
        if not text.strip():
            raise refuse(value, f"{what} has to be a path, not `{value.data}`.", "Name a file or a folder.")
        if not type_:
            file = scheme(text) in ("http", "https") or (
                not scheme(text) and exists(local_path(value, text)) and local_path(value, text).is_file()
            )
            type_ = "uri_file" if file else "uri_folder"
        if cloud and scheme(text) == "azureml":
            return Input(type_, asset=text.strip(), file=value.file, line=value.line, option=option)
        path, url = data_path(value, text, type_, what, option)
        if url is not None:
            keep_address(url)
        return Input(type_, path=path, url=url, file=value.file, line=value.line, option=option)
    type_ = literal_type(value.data)
    return Input(type_, text=literal_text(value, replace(declared, type=type_), what), file=value.file, line=value.line)
