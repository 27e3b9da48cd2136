"""Reads the environment variables of a deployment's file."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..pipelines.yaml_file import Value, kind
from ..redaction import keep_variables
from .problems import Problems

#: Values that Azure ML replaces by a secret: https://learn.microsoft.com/azure/machine-learning/how-to-deploy-online-endpoint-with-secret-injection
_SECRET = re.compile(r"^\$\{\{.*\}\}$|^(?:azureml|keyref|secret)(?::|\()", re.DOTALL)


def read_variables(problems: Problems, value: Value | None) -> dict[str, str]:
    """Read ``environment_variables``.

    Args:
        problems: Gets the errors and notes.
        value: The field.
    """
    from ..flows.service_variables import name_problem

    if value is None:
        return {}
    if not value.is_mapping:
        what = f"`environment_variables` has to be a mapping, not {kind(value)}."
        problems.add(value, what, "Write `NAME: value` lines under it.")
        return {}
    found: dict[str, str] = {}
    for name, one in value.data.items():
        wrong = name_problem(name)
        if wrong:
            problems.add(one, f"`{name}` of `environment_variables`: {wrong}.", "Rename it, or take it out.")
        elif isinstance(one.data, (dict, list)):
            # Azure ML's SDK accepts it, and sends its text.
            problems.notes.append(f"the variable `{name}` is {kind(one)}: the service gets what Python writes for it")
            found[name] = str(one.plain())
        else:
            found[name] = "" if one.data is None else str(one.data)
    keep_variables(found)
    return found


def notes_on_secrets(values: Mapping[str, str]) -> list[str]:
    """Notes on values that only Azure ML can replace by secrets."""
    names = sorted(name for name, text in values.items() if _SECRET.match(text.strip()))
    return [f"{name} refers to a secret of the workspace: give it here by --env {name}" for name in names]
