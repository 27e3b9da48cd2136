"""YAML of a run configuration: how its keys are spelled, its data without places, and its text as the SDK writes it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..pipelines.yaml_file import Value

if TYPE_CHECKING:
    from yaml.nodes import MappingNode, Node

WHAT = "run configuration"
#: Keys whose entries have keys that the user chose. The SDK writes all others in camelCase, snake_case or TitleCase.
_NAMES_BELOW = ("environmentVariables", "data", "dataReferences", "outputData", "applicationEndpoints", "configuration")
#: Keys below which the user chose all keys, at any depth.
_NAMES_BELOW_ALL = ("condaDependencies", "properties", "options", "tags")
_DEEP = 1000
# Text that every version of YAML reads as text without quotes.
_SAFE = re.compile(r"(?:-{0,2}[A-Za-z_/]|\.{1,2}/)(?:[\w./=+,%~^@<>!*-]|:(?=[\w./-]))*", re.ASCII)
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
_PLAIN_LINES = re.compile(r"(?:[!-~][ -~]*)(?:\n(?:[ -~]*[!-~])?)*\n?")


class Plain(str):
    """A scalar that is written without quotes, such as ``true`` or ``2``."""

    __slots__ = ()


def camel_case(key: str) -> str:
    """A key as the SDK spells it when it reads a file: ``nodeCount`` of ``node_count`` and of ``NodeCount``."""
    first, *others = key.split("_")
    return first[:1].lower() + first[1:] + "".join(item.title() for item in others)


def own_key_levels_below(name: str, levels: int) -> int:
    """The number of levels below a key whose keys the user chose."""
    if levels > 1 or name in _NAMES_BELOW_ALL:
        return _DEEP
    return 1 if levels == 0 and name in _NAMES_BELOW else 0


def own_key_levels(path: tuple[str, ...]) -> int:
    """The number of levels below a path of keys whose keys the user chose."""
    levels = 0
    for name in path:
        levels = own_key_levels_below(name, levels)
    return levels


def find_entry(node: MappingNode, name: str, levels: int) -> tuple[Node, Node] | None:
    """Key and value of a mapping's entry, whose key may be spelled in another case; None without."""
    for key, item in reversed(node.value):
        if key.value == name or (not levels and camel_case(str(key.value)) == name):
            return key, item
    return None


def is_null(node: Node) -> bool:
    """Whether a node is null."""
    return str(node.tag).endswith(":null")


def read_values(node: Node, file: Path, levels: int, done: dict[tuple[int, int], Any]) -> Any:
    """A node's data for reading. A node that several aliases name is converted once."""
    import yaml

    place = (id(node), levels)
    if place in done:
        return done[place]
    data: Any
    if isinstance(node, yaml.MappingNode):
        own, merged = dict[str, Value](), dict[str, Value]()
        for key, item in node.value:
            if key.tag.endswith(":merge"):
                for source in item.value if isinstance(item, yaml.SequenceNode) else [item]:
                    for inherited, value in read_values(source, file, levels, done).items():
                        merged.setdefault(inherited, value)
                continue
            name = str(key.value) if levels else camel_case(str(key.value))
            own[name] = Value(
                read_values(item, file, own_key_levels_below(name, levels), done), file, key.start_mark.line + 1
            )
        data = {**merged, **own}
    elif isinstance(node, yaml.SequenceNode):
        below = levels if levels > 1 else 0
        data = [Value(read_values(item, file, below, done), file, item.start_mark.line + 1) for item in node.value]
    else:
        data = None if is_null(node) else str(node.value)
    done[place] = data
    return data


def plain_data(node: Node) -> Any:
    """A node's data with keys as they are written, for comparing and for writing again."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        return {str(key.value): plain_data(item) for key, item in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [plain_data(item) for item in node.value]
    if is_null(node):
        return None
    return str(node.value) if str(node.tag).endswith(":str") else Plain(node.value)


def as_scalars(value: Any) -> Any:
    """A value with numbers and booleans as :class:`Plain` scalars."""
    if isinstance(value, Mapping):
        return {str(key): as_scalars(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_scalars(item) for item in value]
    if isinstance(value, bool):
        return Plain("true" if value else "false")
    return Plain(value) if isinstance(value, (int, float)) else value


def on_one_line(value: Any) -> Any:
    """A value whose texts of several lines are quoted on one line."""
    if isinstance(value, dict):
        return {key: on_one_line(item) for key, item in value.items()}
    return Plain(quoted_text(value)) if isinstance(value, str) and "\n" in value else value


def nest(names: tuple[str, ...], value: Any) -> Any:
    """A value inside mappings, one for each name."""
    for name in reversed(names):
        value = {name: value}
    return value


def _find_key(data: dict[str, Any], name: str, root: tuple[str, ...]) -> str | None:
    exact = own_key_levels(root) > 0
    return next((key for key in reversed(data) if key == name or (not exact and camel_case(key) == name)), None)


def with_value(data: Any, names: tuple[str, ...], value: Any, root: tuple[str, ...]) -> Any:
    """Data without line numbers, with the same change."""
    if not names:
        return value
    data = data if isinstance(data, dict) else {}
    key = _find_key(data, names[0], root) or names[0]
    return {**data, key: with_value(data.get(key), names[1:], value, (*root, names[0]))}


def without_value(data: dict[str, Any], names: tuple[str, ...], root: tuple[str, ...]) -> dict[str, Any]:
    """Data without line numbers and without the value under a path of keys."""
    key = _find_key(data, names[0], root)
    assert key is not None
    if len(names) == 1:
        return {name: item for name, item in data.items() if name != key}
    return {**data, key: without_value(data[key], names[1:], (*root, names[0]))}


def entry_lines(value: Any, column: int) -> tuple[str, list[str]]:
    """What follows ``key:`` on its line, and the lines below it, indented as the SDK does."""
    if isinstance(value, dict):
        return ("", block_lines(value, column + 2)) if value else ("{}", [])
    if isinstance(value, list):
        return ("", block_lines(value, column)) if value else ("[]", [])
    if isinstance(value, str) and "\n" in value and _PLAIN_LINES.fullmatch(value):
        lines = [" " * (column + 2) + line if line else "" for line in value.removesuffix("\n").split("\n")]
        if lines[-1]:
            return "|" if value.endswith("\n") else "|-", lines
    return "" if value is None else scalar_text(value), []


def block_lines(value: Any, column: int) -> list[str]:
    """The lines of a list or mapping, indented by `column` spaces."""
    lines = list[str]()
    indent = " " * column
    if isinstance(value, dict):
        for key, item in value.items():
            first, more = entry_lines(item, column)
            lines += [f"{indent}{scalar_text(key)}:{' ' + first if first else ''}", *more]
        return lines
    for item in value:
        if isinstance(item, (dict, list)) and item:
            first, *more = block_lines(item, column + 2)
            lines += [f"{indent}- {first.lstrip()}", *more]
        else:
            empty = "null" if item is None else "{}" if item == {} else "[]" if item == [] else ""
            lines.append(f"{indent}- {empty or scalar_text(item)}")
    return lines


def scalar_text(text: str) -> str:
    """A scalar for every version of YAML: quoted unless it can only be read as text."""
    if _SAFE.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return quoted_text(text)


def quoted_text(text: str) -> str:
    """A scalar in quotes, unless it is :class:`Plain`."""
    if isinstance(text, Plain):
        return str(text)
    if all(" " <= letter <= "~" for letter in text):
        return "'" + text.replace("'", "''") + "'"
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise UserError(f"{text!r} cannot be levels in a {WHAT}: it is not UTF-8.", "Give it another value.")
    # Other characters are escaped, since the SDK opens the file in the machine's own encoding.
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(letter: str) -> str:
    if letter in '"\\\n\t':
        return "\\" + {"\n": "n", "\t": "t"}.get(letter, letter)
    if " " <= letter <= "~":
        return letter
    code = ord(letter)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
