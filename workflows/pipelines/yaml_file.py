"""Reads YAML files into values that have their place in the file."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from ..errors import BadValue, UserError
from ..formatting import shorten
from ..paths import shown
from ..reading import line_at, read_bytes
from ..yaml_nodes import compose

#: A longer scalar, in letters, is taken as a text without parsing it as a number, date or boolean.
_LONGEST_LITERAL = 200
#: How many names, and of how many letters, are searched for one that may have been meant.
_MOST_NAMES, _LONGEST_NAME = 1000, 100
_MERGE = "tag:yaml.org,2002:merge"
_NULL = "tag:yaml.org,2002:null"
_TEXT = "tag:yaml.org,2002:str"
#: Makes Python values of scalars.
_CONSTRUCTOR: Any = yaml.constructor.SafeConstructor()
#: Finds the type of a scalar without quotes and without a tag.
_RESOLVER: Any = yaml.resolver.Resolver()


@dataclass(frozen=True)
class Value:
    """A value and its place.

    Attributes:
        data: A scalar as YAML parses it, ``dict[str, Value]``, ``list[Value]``, or None.
        file: The file it is written in; None if it comes from the command line.
        line: The line of its key, or its own in a list, counted from 1.
        column: The column in that line, counted from 1; 0 if it is not known.
    """

    data: Any
    file: Path | None
    line: int = 0
    column: int = 0

    @property
    def is_mapping(self) -> bool:
        """Whether it is a mapping."""
        return isinstance(self.data, dict)

    @property
    def folder(self) -> Path:
        """The folder that relative paths in it are relative to."""
        return Path.cwd() if self.file is None else self.file.parent

    def get(self, key: str) -> Value | None:
        """An entry of a mapping; None if it does not exist or is null."""
        found = self.data.get(key) if isinstance(self.data, dict) else None
        return found if isinstance(found, Value) and found.data is not None else None

    def mapping(self, what: str) -> Mapping[str, Value]:
        """Its entries; none if it is null.

        Args:
            what: Its name in the message.

        Raises:
            UserError: It is neither a mapping nor null.
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
            raise refuse(self, f"{what} must be a string, not {kind(self)}.", "Correct that line.")
        return str(self.data)

    def plain(self) -> Any:
        """The data without places, as plain Python values."""
        if isinstance(self.data, dict):
            return {key: value.plain() for key, value in self.data.items()}
        if isinstance(self.data, list):
            return [value.plain() for value in self.data]
        return self.data


def kind(value: Value) -> str:
    """The kind of a value for a message, such as ``a list``."""
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
    """Make an error at the place of a value; a value of the command line has no place."""
    if value.file is None:
        return BadValue(problem, remedy)
    return UserError(problem, remedy, file=shown(value.file), line=value.line)


def listed(names: Iterable[str]) -> str:
    """Format names for a message, in backquotes; at most twenty."""
    names = [f"`{shorten(name)}`" for name in names]
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(names[:20]) + more if names else "none"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A remedy with the known name that is most like the wrong one, or with all known names."""
    known = list(known)
    close = close_matches(name, known, 0.7)
    return f"Did you mean `{close[0]}`? There are: {listed(known)}." if close else f"There are: {listed(known)}."


def close_matches(name: str, known: Iterable[str], cutoff: float) -> list[str]:
    """The known name that is most like another one, if any is; only the first names of a long list are searched."""
    if len(name) > _LONGEST_NAME:
        return []
    short = (one for one in itertools.islice(known, _MOST_NAMES) if len(one) <= _LONGEST_NAME)
    return difflib.get_close_matches(name, short, 1, cutoff)


#: Gets an error at one place of a file. Reading goes on after it.
OnError = Callable[[UserError], None]


def _refuse(error: UserError) -> NoReturn:
    raise error


def read_yaml(file: Path, what: str, named: Value | None = None, on_error: OnError = _refuse) -> Value:
    """Read a YAML file whose content is a mapping.

    Args:
        file: Its absolute path.
        what: What it should be, such as ``pipeline file``.
        named: The value that names it, if another file does.
        on_error: Takes what is wrong with single keys and scalars, which else is refused.

    Raises:
        UserError: It cannot be read, is not YAML, or not a mapping; with the line.
    """
    return read_node(compose(read_text(file, what, named), shown(file)), file, what, on_error)


def read_node(node: yaml.Node | None, file: Path, what: str, on_error: OnError = _refuse) -> Value:
    """Read a file's content from its parsed tree; arguments and errors as of :func:`read_yaml`."""
    value = Value(None, file, 1) if node is None else Value(_convert(node, file, {}, on_error), file, 1)
    if value.data is None:
        raise refuse(value, f"{file.name} is empty.", f"Name a {what} with content.")
    if not value.is_mapping:
        raise refuse(value, f"{file.name} is not a {what}: it holds {kind(value)}.", "Name another file.")
    return value


def read_text(file: Path, what: str, named: Value | None = None) -> str:
    """Read a file's text; arguments and errors as of :func:`read_yaml`."""

    def wrong(problem: str, remedy: str) -> UserError:
        return refuse(named, problem, remedy) if named is not None else UserError(problem, remedy)

    path = shown(file)
    try:
        if file.is_dir():
            inside = sorted(item.name for pattern in ("*.yml", "*.yaml") for item in file.glob(pattern))
            hint = f"Name a file in it: {listed(inside)}." if inside else f"Name a {what}."
            raise wrong(f"{path} is a folder, not a {what}.", hint)
        raw = read_bytes(file)
    except FileNotFoundError as error:
        raise wrong(f"There is no {what} {path}.", "Check the path.") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise wrong(f"{path} cannot be read: {reason}.", "Name a file that can be read.") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = line_at(raw, error.start)
        raise UserError(f"{path.name} is not UTF-8.", "Save it as UTF-8.", file=path, line=line) from error


def _convert(node: Any, file: Path, done: dict[int, Any], on_error: OnError) -> Any:
    """Convert a node to data; a node with several aliases is converted once."""
    if id(node) in done:
        return done[id(node)]
    result: Any
    if isinstance(node, yaml.MappingNode):
        result = _mapping(node, file, done, on_error)
    elif isinstance(node, yaml.SequenceNode):
        result = [
            Value(_convert(item, file, done, on_error), file, item.start_mark.line + 1, item.start_mark.column + 1)
            for item in node.value
        ]
    else:
        result = _scalar(node, file, on_error)
    done[id(node)] = result
    return result


def _scalar(node: Any, file: Path, on_error: OnError) -> Any:
    if node.tag == _TEXT:
        return node.value
    if node.tag == _NULL:
        return None
    if len(node.value) <= _LONGEST_LITERAL:
        try:
            return _CONSTRUCTOR.construct_object(node)
        except yaml.constructor.ConstructorError as error:
            line = node.start_mark.line + 1
            problem = f"{file.name} is not valid YAML: {error.problem}."
            on_error(UserError(problem, "Correct that line.", file=shown(file), line=line))
            return node.value
        except (ValueError, LookupError, AttributeError, TypeError, ArithmeticError):
            pass  # PyYAML does not check whether a tag fits the text after it.
        finally:
            # The constructor keeps all that it has made, and the node at which it failed.
            _CONSTRUCTOR.constructed_objects.clear()
            _CONSTRUCTOR.recursive_objects.clear()
    if _RESOLVER.resolve(yaml.ScalarNode, node.value, (True, False)) != node.tag:
        what = str(node.tag).rpartition(":")[2]
        problem = f"What is marked `!!{what}` is not one: `{shorten(node.value)}`."
        on_error(UserError(problem, "Correct that line.", file=shown(file), line=node.start_mark.line + 1))
    # A text that only looks like a number or a date, such as 2021-02-30.
    return node.value


def _mapping(node: Any, file: Path, done: dict[int, Any], on_error: OnError) -> dict[str, Value]:
    own: dict[str, Value] = {}
    merged: dict[str, Value] = {}
    for key, item in node.value:
        line = key.start_mark.line + 1
        if key.tag == _MERGE:
            for source in item.value if isinstance(item, yaml.SequenceNode) else [item]:
                inherited = _convert(source, file, done, on_error)
                if not isinstance(inherited, dict):
                    remedy = "Name an anchor of a mapping."
                    on_error(UserError("`<<` takes a mapping.", remedy, file=shown(file), line=line))
                    continue
                # The first value of a name counts.
                for name, value in inherited.items():
                    merged.setdefault(name, value)
            continue
        if not isinstance(key, yaml.ScalarNode):
            on_error(UserError("A key must be a string.", "Correct that line.", file=shown(file), line=line))
            continue
        name = str(key.value)
        if name in own:
            problem = f"`{shorten(name)}` is there twice: in line {own[name].line} and in line {line}."
            on_error(UserError(problem, "Take one of the two out.", file=shown(file), line=line))
            continue
        own[name] = Value(_convert(item, file, done, on_error), file, line, key.start_mark.column + 1)
    return {**merged, **own} if merged else own
