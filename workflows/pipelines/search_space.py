"""Search spaces of sweeps: the values of the first trial.

The distributions are those of
https://learn.microsoft.com/azure/machine-learning/reference-yaml-job-sweep#attributes-of-search-space
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from .problems import Problems
from .yaml_file import Value, did_you_mean, refuse

#: The field with the first trial's value: the lowest one of a range, the mean of a normal distribution.
_FIRST: Mapping[str, str] = {
    "choice": "values",
    "uniform": "min_value",
    "loguniform": "min_value",
    "quniform": "min_value",
    "qloguniform": "min_value",
    "normal": "mu",
    "lognormal": "mu",
    "qnormal": "mu",
    "qlognormal": "mu",
    "randint": "upper",
}


def first_values(space: Value | None, what: str, problems: Problems) -> dict[str, Value]:
    """The values of one trial: the first of a choice, the lowest of a range, the mean of a normal distribution.

    Args:
        space: The ``search_space``, or None.
        what: The step in a message.
        problems: Gets distributions that do not exist or have no values; their value is an empty text.
    """
    found = {}
    for name, entry in problems.mapping(space, f"`search_space` of {what.lower()}").items():
        found[name] = Value("", entry.file, entry.line)
        with problems.collect_errors():
            found[name] = Value(_first(entry, name, what), entry.file, entry.line)
    return found


def _first(entry: Value, name: str, what: str) -> Any:
    where = f"`{name}` in the search space of {what.lower()}"
    if not entry.is_mapping:
        raise refuse(entry, f"{where} has to be a mapping.", "Write `type: choice` and `values: [a, b]` under it.")
    named = entry.get("type")
    type_ = named.text(f"The type of {where}").lower() if named is not None else "choice"
    if type_ not in _FIRST:
        raise refuse(named or entry, f"{where} is of type `{type_}`, which is unknown.", did_you_mean(type_, _FIRST))
    key = _FIRST[type_]
    value = entry.get(key)
    if value is None:
        raise refuse(entry, f"{where} has no `{key}`.", f"Give it a `{key}`: a trial needs a value.")
    if type_ == "choice":
        if not isinstance(value.data, list) or not value.data:
            raise refuse(value, f"{where} has no values.", "Write `values: [a, b]`.")
        found = value.data[0].plain()
        return json.dumps(found) if isinstance(found, (dict, list)) else found
    if isinstance(value.data, bool) or not isinstance(value.data, (int, float)):
        raise refuse(value, f"`{key}` of {where} has to be a number, not `{value.plain()}`.", "Correct that line.")
    return _lowest(type_, float(value.data), entry, value)


def _lowest(type_: str, number: float, entry: Value, value: Value) -> Any:
    if type_ == "randint":
        return 0
    if "log" in type_:
        try:
            number = math.exp(number)
        except OverflowError as error:
            raise refuse(value, f"e to the power of {number:g} is too large a number.", "Correct that line.") from error
    elif not type_.startswith("q"):
        return value.data
    step = entry.get("q")
    if type_.startswith("q") and step is not None and isinstance(step.data, (int, float)) and step.data > 0:
        number = round(number / step.data) * step.data
    return int(number) if number.is_integer() else number
