"""YAML files, read into values that know where they are written."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..errors import BadValue, UserError
from ..paths import shown

#: libyaml reads a pipeline of thirty steps in milliseconds; Python's own reader is the fallback.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MERGE = "tag:yaml.org,2002:merge"
_NULL = "tag:yaml.org,2002:null"


@dataclass(frozen=True)
class Value:
    """A value and its place.

    Attributes:
        data: A scalar as YAML understands it, ``dict[str, Value]``, ``list[Value]``, or None.
        file: The file it is written in; None where it comes from the command line.
        line: The line of its key, or its own in a list, counted from 1.
    """

    data: Any
    file: Path | None
    line: int = 0

    @property
    def is_mapping(self) -> bool:
        """Whether it is a mapping."""
        return isinstance(self.data, dict)

    @property
    def folder(self) -> Path:
        """What relative paths in it are relative to."""
        return Path.cwd() if self.file is None else self.file.parent

    def get(self, key: str) -> Value | None:
        """An entry of a mapping; None where it is not there or null."""
        found = self.data.get(key) if isinstance(self.data, dict) else None
        return found if isinstance(found, Value) and found.data is not None else None

    def mapping(self, what: str) -> Mapping[str, Value]:
        """Its entries; none where it is null.

        Args:
            what: Its name in the message.

        Raises:
            UserError: It is something else.
        """
        if self.data is None:
            return {}
        if not isinstance(self.data, dict):
            raise refuse(self, f"{what} has to be a mapping, not {kind(self)}.", "Write `name: value` lines under it.")
        return self.data

    def text(self, what: str) -> str:
        """A scalar as text.

        Raises:
            UserError: It is a mapping, a list, or null.
        """
        if isinstance(self.data, (dict, list)) or self.data is None:
            raise refuse(self, f"{what} has to be a text, not {kind(self)}.", "Correct that line.")
        return str(self.data)

    def plain(self) -> Any:
        """The data without places."""
        if isinstance(self.data, dict):
            return {key: value.plain() for key, value in self.data.items()}
        if isinstance(self.data, list):
            return [value.plain() for value in self.data]
        return self.data


def kind(value: Value) -> str:
    """What a value is, in a message."""
    names = {
        dict: "a mapping",
        list: "a list",
        bool: "true or false",
        str: "a text",
        int: "a number",
        float: "a number",
    }
    return "nothing" if value.data is None else names.get(type(value.data), "a " + type(value.data).__name__)


def refuse(value: Value, problem: str, remedy: str) -> UserError:
    """An error at the place of a value; for one typed on the command line without a place."""
    if value.file is None:
        return BadValue(problem, remedy)
    return UserError(problem, remedy, file=shown(value.file), line=value.line)


def listed(names: Iterable[str]) -> str:
    """Names in a message, in backquotes; the first twenty of very many."""
    names = [f"`{name}`" for name in names]
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(names[:20]) + more if names else "none"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A remedy: the known name that is most like the wrong one, or all there are."""
    known = list(known)
    close = difflib.get_close_matches(name, known, 1, 0.7)
    return f"Did you mean `{close[0]}`? There are: {listed(known)}." if close else f"There are: {listed(known)}."


def read_yaml(file: Path, what: str, named: Value | None = None) -> Value:
    """Read a YAML file whose content is a mapping.

    Args:
        file: Its absolute path.
        what: What it is to be, such as ``pipeline file``.
        named: The value that names it, where another file does.

    Raises:
        UserError: It cannot be read, is not YAML, or not a mapping; with the line.
    """
    text = read_text(file, what, named)
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        value = Value(None, file, 1) if node is None else Value(_convert(node, loader, file, {}, ()), file, 1)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        position = getattr(error, "position", None)
        line = (
            mark.line + 1 if mark is not None else text.count("\n", 0, position) + 1 if position is not None else None
        )
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        remedy = "Correct that line."
        if line is not None and "\t" in re.match(r"\s*", _line(text, line)).group():  # type: ignore[union-attr]
            remedy = "YAML takes no tabs in front of a line: use spaces."
        raise UserError(f"{file.name} is not valid YAML: {problem}.", remedy, file=shown(file), line=line) from error
    except RecursionError as error:
        raise UserError(f"{file.name} is nested too deeply.", "Simplify it.", file=shown(file)) from error
    finally:
        loader.dispose()
    if value.data is None:
        raise refuse(value, f"{file.name} is empty.", f"Name a {what} with content.")
    if not value.is_mapping:
        raise refuse(value, f"{file.name} is not a {what}: it holds {kind(value)}.", "Name another file.")
    return value


def _line(text: str, line: int) -> str:
    lines = text.split("\n")
    return lines[line - 1] if line <= len(lines) else ""


def read_text(file: Path, what: str, named: Value | None = None) -> str:
    """A file's text; arguments and errors as of :func:`read_yaml`."""

    def wrong(problem: str, remedy: str) -> UserError:
        return refuse(named, problem, remedy) if named is not None else UserError(problem, remedy)

    path = shown(file)
    try:
        if file.is_dir():
            inside = sorted(item.name for pattern in ("*.yml", "*.yaml") for item in file.glob(pattern))
            hint = f"Name a file in it: {listed(inside)}." if inside else f"Name a {what}."
            raise wrong(f"{path} is a folder, not a {what}.", hint)
        raw = file.read_bytes()
    except FileNotFoundError as error:
        raise wrong(f"There is no {what} {path}.", "Check the path.") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise wrong(f"{path} cannot be read: {reason}.", "Name a file that can be read.") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path.name} is not UTF-8.", "Save it as UTF-8.", file=path, line=line) from error


def _convert(node: Any, loader: Any, file: Path, done: dict[int, Any], above: tuple[int, ...]) -> Any:
    """A node's data; a node that several aliases name is converted once."""
    if id(node) in done:
        return done[id(node)]
    if id(node) in above:
        line = node.start_mark.line + 1
        raise UserError("An anchor contains itself.", "Take that alias out.", file=shown(file), line=line)
    inner = (*above, id(node))
    result: Any
    if isinstance(node, yaml.MappingNode):
        result = _mapping(node, loader, file, done, inner)
    elif isinstance(node, yaml.SequenceNode):
        result = [
            Value(_convert(item, loader, file, done, inner), file, item.start_mark.line + 1) for item in node.value
        ]
    elif node.tag == _NULL:
        result = None
    else:
        try:
            result = loader.construct_object(node)
        except ValueError:
            # A text that only looks like a number or a date, such as 2021-02-30.
            result = node.value
    done[id(node)] = result
    return result


def _mapping(node: Any, loader: Any, file: Path, done: dict[int, Any], above: tuple[int, ...]) -> dict[str, Value]:
    own: dict[str, Value] = {}
    merged: dict[str, Value] = {}
    for key, item in node.value:
        line = key.start_mark.line + 1
        if key.tag == _MERGE:
            for source in item.value if isinstance(item, yaml.SequenceNode) else [item]:
                inherited = _convert(source, loader, file, done, above)
                if not isinstance(inherited, dict):
                    raise UserError(
                        "`<<` takes a mapping.", "Name an anchor of a mapping.", file=shown(file), line=line
                    )
                merged = {**inherited, **merged}
            continue
        if not isinstance(key, yaml.ScalarNode):
            raise UserError("A key has to be a text.", "Correct that line.", file=shown(file), line=line)
        name = str(key.value)
        if name in own:
            raise UserError(
                f"`{name}` is there twice: in line {own[name].line} and in line {line}.",
                "Take one of the two out.",
                file=shown(file),
                line=line,
            )
        own[name] = Value(_convert(item, loader, file, done, above), file, line)
    return {**merged, **own} if merged else own
