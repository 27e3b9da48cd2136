"""Types of inputs and outputs, and literals: checks them against declarations, and makes their text in a command."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ..errors import UserError
from .definition import FILE_TYPES, FOLDER_TYPES, LITERAL_TYPES
from .notes import AddRemark
from .problems import Problems
from .yaml_file import Value, close_matches, did_you_mean, kind, listed, refuse

DATA_TYPES = (*FILE_TYPES, *FOLDER_TYPES)
#: The name of a folder's type in files of the preview.
_EARLIER = {"path": "uri_folder"}
#: If a mapping has more unknown keys than this, none of them is taken for a misspelling.
_MOST_OTHERS = 100
#: The texts that Azure's own reader accepts.
_TRUE, _FALSE = ("true", "t", "yes", "y", "on", "1"), ("false", "f", "no", "n", "off", "0")
_KEYS = (
    *("type", "description", "optional", "default", "min", "max", "enum", "mode", "path", "value"),
    *("datastore", "path_on_compute", "dataset", "data", "local_path", "properties", "name", "version"),
)


@dataclass(frozen=True)
class Declared:
    """An input as a component, or the pipeline itself, declares it.

    Attributes:
        place: Where it is declared.
        type: Its type; empty if only the value determines it.
        optional: Whether it may be left out.
        default: Its value if none is given.
        min: Smallest value of a number.
        max: Largest value of a number.
        enum: The permitted texts; empty for all.
        broken: Whether it has an error, which has been reported.
    """

    place: Value
    type: str = ""
    optional: bool = False
    default: Value | None = None
    min: float | None = None
    max: float | None = None
    enum: tuple[str, ...] = ()
    broken: bool = False


def read_type(value: Value, what: str, *, output: bool = False, control: bool = False) -> str:
    """Read the type of an input or output; empty if it has none.

    Args:
        value: The entry.
        what: Its name in a message.
        output: Whether it is an output, which is always data.
        control: Whether it may be a component's control output: a value that controls a pipeline, and here a file.

    Raises:
        UserError: The schema has no such type.
    """
    named = value.get("type")
    if named is None:
        return ""
    text = named.text(f"The type of {what}")
    # Earlier files write UriFolder.
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", text).lower()
    name = _EARLIER.get(name, name)
    if control and name in LITERAL_TYPES:
        return "uri_file"
    known = DATA_TYPES if output else (*DATA_TYPES, *LITERAL_TYPES)
    if name not in known:
        raise refuse(named, f"{what} has the type `{text}`, which is unknown.", did_you_mean(name, known))
    return name


def read_declared(
    name: str, value: Value, problems: Problems, *, typed: bool, add_remark: AddRemark | None = None
) -> Declared:
    """Read the declaration in an entry of ``inputs``; it is ``broken`` if it does not follow the schema.

    Args:
        name: Its name.
        value: The entry; outside of components it may just be a value.
        problems: Gets its errors.
        typed: Whether it must have a type, as in a component.
        add_remark: Gets remarks, as in :func:`literal_text`.
    """
    if not typed and not value.is_mapping:
        return Declared(value)
    before = len(problems)
    what = f"Input `{name}`"
    value = unknown_keys(problems.mapping(value, what), _KEYS, what, problems).with_corrected_keys(value)
    type_ = ""
    with problems.collect_errors():
        type_ = read_type(value, what)
    if value.get("type") is None and typed and value.is_mapping:
        problems.add(
            value, f"{what} has no type.", f"Give it a `type`, one of {listed((*LITERAL_TYPES, *DATA_TYPES))}."
        )
    optional, least, most = False, None, None
    with problems.collect_errors():
        optional = _parse_boolean(value.get("optional"), f"`optional` of {what.lower()}")
    with problems.collect_errors():
        least = _bound(value.get("min"), f"`min` of {what.lower()}")
    with problems.collect_errors():
        most = _bound(value.get("max"), f"`max` of {what.lower()}")
    enum = value.get("enum")
    if enum is not None and not isinstance(enum.data, list):
        problems.add(enum, f"`enum` of {what.lower()} has to be a list.", "Write `[a, b]`.")
        enum = None
    texts = tuple(str(item.data) for item in enum.data) if enum is not None else ()
    declared = Declared(value, type_, optional, value.get("default"), least, most, texts)
    if declared.default is not None and type_ in LITERAL_TYPES:
        with problems.collect_errors():
            literal_text(declared.default, declared, f"The default of input `{name}`", add_remark)
    return replace(declared, broken=True) if len(problems) > before else declared


def literal_type(data: Any) -> str:
    """The type of a literal without a declared type."""
    if isinstance(data, bool):
        return "boolean"
    return "integer" if isinstance(data, int) else "number" if isinstance(data, float) else "string"


def literal_text(value: Value, declared: Declared, what: str, add_remark: AddRemark | None = None) -> str:
    """A literal's text as Azure inserts it into the command: ``True``, ``0.1``, ``5``, other texts unchanged.

    Args:
        value: The literal.
        declared: Type and bounds.
        what: The input's name in a message.
        add_remark: Gets a remark if a value of a file is not permitted. Azure's own check accepts such a value, so the
            script gets it unchanged. A typed value that is not permitted is always an error.

    Raises:
        UserError: It does not have the type, or is not permitted; with the line.
    """
    data = value.data
    if isinstance(data, (dict, list)) or data is None:
        raise _type_error(value, what, declared.type)
    try:
        return _check_permitted(value, declared, what)
    except UserError as error:
        if add_remark is None or value.file is None:
            raise
        add_remark(f"{error.problem.rstrip('.')}: it is handed over as it is", value)
        return str(data)


def _check_permitted(value: Value, declared: Declared, what: str) -> str:
    text = str(value.data)
    if declared.type == "boolean":
        if text.lower() not in ("true", "false"):
            raise _type_error(value, what, declared.type)
        text = text.capitalize()
    elif declared.type in ("integer", "number"):
        text = _number(value, declared, what)
    if declared.enum and text not in declared.enum:
        raise refuse(value, f"{what} is `{text}`, which is not permitted.", did_you_mean(text, declared.enum))
    return text


def _number(value: Value, declared: Declared, what: str) -> str:
    try:
        if isinstance(value.data, bool):
            raise ValueError
        number = float(value.data)
        if declared.type == "integer" and not number.is_integer():
            raise ValueError
    except (ValueError, TypeError, OverflowError) as error:
        raise _type_error(value, what, declared.type) from error
    if declared.min is not None and number < declared.min:
        raise refuse(
            value, f"{what} is {value.data}, less than {declared.min:g}.", f"Give it at least {declared.min:g}."
        )
    if declared.max is not None and number > declared.max:
        raise refuse(
            value, f"{what} is {value.data}, more than {declared.max:g}.", f"Give it at most {declared.max:g}."
        )
    # An integer must not be written as 5.0: int("5.0") would fail in the script.
    if declared.type == "integer" and not isinstance(value.data, int) and not str(value.data).lstrip("+-").isdigit():
        return str(int(number)) if math.isfinite(number) else str(value.data)
    return str(value.data)


def _type_error(value: Value, what: str, type_: str) -> Exception:
    article = "an" if type_[:1] in "aeiou" else "a"
    given = kind(value) if isinstance(value.data, (dict, list)) or value.data is None else f"`{value.data}`"
    remedy = "Write true or false." if type_ == "boolean" else f"Give it {article} {type_}."
    return refuse(value, f"{what} has to be {article} {type_}, not {given}.", remedy)


def _parse_boolean(value: Value | None, what: str) -> bool:
    if value is None:
        return False
    text = str(value.data).lower()
    if text not in (*_TRUE, *_FALSE):
        raise refuse(value, f"{what} has to be true or false.", "Correct that line.")
    return text in _TRUE


def _bound(value: Value | None, what: str) -> float | None:
    if value is None:
        return None
    try:
        return float(value.text(what))
    except ValueError as error:
        raise refuse(value, f"{what} has to be a number, not `{value.data}`.", "Correct that line.") from error


def read_boolean(settings: Value | None, key: str, default: bool) -> bool:
    """Read a boolean entry of a mapping that may be missing."""
    value = settings.get(key) if settings is not None else None
    return default if value is None else _parse_boolean(value, f"`{key}`")


class Unknown(NamedTuple):
    """Keys that the schema does not have.

    Attributes:
        others: Keys that do not look like misspelt ones.
        meant: The values of misspelt keys, by the keys that were meant.
    """

    others: list[str]
    meant: dict[str, Value]

    def with_corrected_keys(self, value: Value) -> Value:
        """The mapping with the misspelt keys corrected, so that reading can go on."""
        return Value({**self.meant, **value.data}, value.file, value.line, value.column) if self.meant else value


def unknown_keys(
    mapping: Mapping[str, Value],
    known: tuple[str, ...],
    what: str,
    problems: Problems,
    add_remark: AddRemark | None = None,
) -> Unknown:
    """Find keys that the schema does not have.

    Args:
        mapping: The entries.
        known: The keys of the schema.
        what: The mapping in a message.
        problems: Gets an error for each key that looks misspelt.
        add_remark: Gets a remark instead of an error, for mappings in which Azure's own check accepts such a key.
    """
    others, meant = list[str](), dict[str, Value]()
    for key, value in mapping.items():
        if key in known or key.startswith((".", "x-", "_")):
            continue  # keys for anchors
        # A file with hundreds of its own keys has not misspelt them.
        close = close_matches(key, known, 0.75) if len(others) < _MOST_OTHERS else []
        if close and close[0] not in mapping:
            if add_remark is None:
                meant[close[0]] = value
                problems.add(value, f"{what} has a key `{key}`, which is unknown.", f"Did you mean `{close[0]}`?")
            else:
                add_remark(f"{what} has a key `{key}`, which is unknown (did you mean `{close[0]}`?)", value)
            continue
        others.append(key)
    return Unknown(others, meant)
