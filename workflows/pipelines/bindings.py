"""Resolves a step's inputs to a literal, data, or another step's output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..assets.kinds import DATA, MODEL
from ..assets.names import LocalAssets
from ..paths import exists
from ..redaction import keep_address, keep_inputs
from .component import Source
from .definition import LITERAL_TYPES, Input
from .literals import DATA_TYPES, Declared, literal_text, literal_type
from .local_paths import NotLocal, combine_not_local, data_path, local_path, scheme
from .notes import Notes
from .pipeline_inputs import Given, as_expression, read_given, wrong_binding
from .problems import AlreadyReported, Problems
from .scope import Broken, LeftOut, Scope
from .yaml_file import Value, read_yaml, refuse


@dataclass
class Bindings:
    """Resolves the inputs of steps.

    Attributes:
        replaced: Values of the command line by ``step.input``, and by ``step.output`` for steps that are left out.
        notes: Gets remarks.
        problems: Gets the errors of single inputs.
        assets: Finds the files of registered data.
        cloud: Whether the steps run where they can use the workspace's data.
        fetch_data: Whether the workspace's data is fetched to this machine.
        elsewhere: Errors for data that is not on this machine.
        broken: Jobs with errors whose outputs a step uses.
    """

    replaced: Mapping[str, str]
    notes: Notes
    problems: Problems
    assets: LocalAssets
    cloud: bool = False
    fetch_data: bool = False
    elsewhere: list[NotLocal] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)

    def resolve(self, source: Source) -> dict[str, Input]:
        """Resolve all inputs of a step. Errors are added to ``problems``.

        :meth:`check_local` reports inputs that are not on this machine.
        """
        problems = self.problems.for_step(source.name)
        found = {
            name: self._resolve_input(source, name, declared, problems) for name, declared in source.declared.items()
        }
        keep_inputs({name: entry.text for name, entry in found.items() if entry.text is not None})
        return found

    def check_local(self) -> None:
        """Check that all data of the steps is on this machine.

        Raises:
            UserError: Some is not. The error names all of it, so that one more command is enough.
        """
        if self.elsewhere:
            raise combine_not_local(self.elsewhere)

    def _resolve_input(self, source: Source, name: str, declared: Declared, problems: Problems) -> Input:
        with problems.collect_errors():
            try:
                return self._bind_input(source, name, declared)
            except NotLocal as error:
                self.elsewhere.append(error)
        # A placeholder that counts as given: one error for each input is enough.
        return Input(declared.type, path=Path())

    def _bind_input(self, source: Source, name: str, declared: Declared) -> Input:
        what = f"Input `{name}` of step `{source.name}`"
        option = f"{source.name}.{name}"
        if declared.broken:
            raise AlreadyReported
        given = read_given(name, source.given[name]) if name in source.given else Given()
        if option in self.replaced:
            given = Given(given.type, Value(self.replaced[option], None), given.data)
        declared = _with_given_type(declared, given.type)
        value, data = given.value, given.data
        if value is None:
            value, data = declared.default, False
        if value is None or _is_left_out(declared, value, data):
            return self._missing_value(declared, source.job, what, f"Give it under `inputs` of `{source.name}`.")
        expression = as_expression(value, what, self.notes.remarks_for(source.name))
        if expression is None:
            return self._literal_or_data(declared, value, data, what, option, source)
        path = expression.path[1:] if expression.path[0] == "parent" else expression.path
        if path[:1] == ("inputs",) and len(path) > 1:
            return self._bind_pipeline_input(declared, ".".join(path[1:]), value, source, what)
        if path[:1] == ("jobs",) and len(path) == 4 and path[2] == "outputs":
            return self._bind_step_output(declared, source.scope, path[1], path[3], value, what, source)
        raise wrong_binding(value, expression, what)

    def _missing_value(self, declared: Declared, place: Value, what: str, remedy: str) -> Input:
        if declared.optional:
            return Input(declared.type or "string", file=declared.place.file, line=declared.place.line)
        raise refuse(place, f"{what} is required and has no value.", remedy)

    def _bind_pipeline_input(self, declared: Declared, name: str, value: Value, source: Source, what: str) -> Input:
        own = source.scope.input(name, value)
        declared = _with_given_type(declared, own.declared.type)
        given = own.given.value
        if given is not None and own.given.scope is not None:
            expression = as_expression(given, what, self.notes.remarks_for(source.name))
            assert expression is not None  # only an expression has a scope
            job, output = expression.path[-3], expression.path[-1]
            return self._bind_step_output(declared, own.given.scope, job, output, given, what, source)
        if given is not None and not _is_left_out(declared, given, own.given.data):
            return self._literal_or_data(declared, given, own.given.data, what, own.option or name, source)
        if given is None and declared.default is not None and not _is_left_out(declared, declared.default, False):
            return self._literal_or_data(declared, declared.default, False, what, f"{source.name}.{name}", source)
        declared = replace(declared, optional=declared.optional or own.declared.optional)
        return self._missing_value(
            declared, own.declared.place, what, f"Give input `{own.option}` of the pipeline: `--input {own.option}=…`."
        )

    def _bind_step_output(
        self, declared: Declared, scope: Scope, job: str, output: str, value: Value, what: str, source: Source
    ) -> Input:
        writer, name = scope.writer(job, output, value)
        options = dict.fromkeys((f"{writer.name}.{name}", f"{scope.full_name(job)}.{output}"))
        typed = next((one for one in options if one in self.replaced), None)
        if typed is not None and not (isinstance(writer, Source) and name in writer.declared):
            path = Value(self.replaced[typed], None)
            return self._literal_or_data(
                _with_given_type(declared, declared.type or ""), path, True, what, typed, source
            )
        if isinstance(writer, Broken):
            self.broken.add(writer.name)
            return Input(declared.type or "uri_folder", path=Path())
        if isinstance(writer, LeftOut):
            raise _missing_output(writer, name, value, what, source.name)
        if declared.type in LITERAL_TYPES:
            raise refuse(
                value,
                f"{what} has to be a literal ({declared.type}), but an output is data.",
                "Declare it as `uri_folder`, or give it a literal.",
            )
        type_ = declared.type or writer.outputs[name] or "uri_folder"
        return Input(type_, step=writer.name, output=name, file=value.file, line=value.line)

    def _literal_or_data(
        self, declared: Declared, value: Value, data: bool, what: str, option: str, source: Source
    ) -> Input:
        """An input that is a literal, or data that no step makes."""
        add_remark = self.notes.remarks_for(source.name)
        type_ = declared.type
        text = value.data if isinstance(value.data, str) else ""
        if type_ in LITERAL_TYPES and data:
            if value.file is None:
                raise refuse(value, f"{what} has to be a literal ({type_}), but is data.", f"Give it a {type_}.")
            add_remark(f"{what} has to be a literal ({type_}), but is data: it is handed the path", value)
            type_ = ""
        if type_ in LITERAL_TYPES:
            return Input(type_, text=literal_text(value, declared, what, add_remark), file=value.file, line=value.line)
        # In Azure the name of an asset is always data; any other text is a literal.
        if type_ not in DATA_TYPES and not data and scheme(text) != "azureml":
            type_ = literal_type(value.data)
            text = literal_text(value, replace(declared, type=type_), what, add_remark)
            return Input(type_, text=text, file=value.file, line=value.line)
        if not text.strip():
            raise refuse(value, f"{what} has to be a path, not `{value.data}`.", "Name a file or a folder.")
        if self.cloud and scheme(text) == "azureml":
            return Input(type_ or "uri_folder", asset=text.strip(), file=value.file, line=value.line, option=option)
        value, text, named = self._find_asset(value, text)
        type_ = type_ or named
        if self.fetch_data and scheme(text) == "azureml":
            return Input(type_ or "uri_folder", asset=text.strip(), file=value.file, line=value.line, option=option)
        if not type_:
            file = scheme(text) in ("http", "https") or (
                not scheme(text) and exists(local_path(value, text)) and local_path(value, text).is_file()
            )
            type_ = "uri_file" if file else "uri_folder"
        path, url = data_path(value, text, type_, what, option, add_remark)
        if url is not None:
            keep_address(url)
        return Input(type_, path=path, url=url, file=value.file, line=value.line, option=option)

    def _find_asset(self, value: Value, text: str) -> tuple[Value, str, str]:
        """The path, its place and its type for a registered name that a local file defines; otherwise unchanged."""
        file = self.assets.find(text, (DATA, MODEL), value) if scheme(text) == "azureml" else None
        if file is None:
            return value, text, ""
        root = read_yaml(file, "data file", value)
        path, type_ = root.get("path"), root.get("type")
        if path is None or not isinstance(path.data, str):
            raise refuse(root, f"{file.name} names no `path`.", "Write `path: ./data` in it.")
        named = str(type_.data).lower() if type_ is not None else ""
        return path, path.data, named if named in DATA_TYPES else ""


def _missing_output(left: LeftOut, output: str, value: Value, what: str, step: str) -> NotLocal:
    option = f"{left.name}.{output}"
    problem = f"{what} is output `{output}` of step `{left.name}`, which does not run here. {left.reason}."
    error = NotLocal(
        problem,
        f"Give it here: `--input {option}=PATH`, or leave out what takes it: `--skip {step}`.",
        file=refuse(value, "", "").file,
        line=value.line,
    )
    error.option, error.skip = option, step
    return error


def _is_left_out(declared: Declared, value: Value, data: bool) -> bool:
    """Whether an optional input is given as an empty text, which leaves it out."""
    return declared.optional and not data and value.data == ""


def _with_given_type(declared: Declared, type_: str) -> Declared:
    """The declaration with the given type, if none is declared, or both are types of data.

    Azure ML accepts a file for an input that a component declares as a folder: the given type is the right one.
    """
    if declared.type and not (declared.type in DATA_TYPES and type_ in DATA_TYPES):
        return declared
    return replace(declared, type=type_)
