"""The command that was typed: ``inv``, or ``azureml-debug``, which needs no tasks.py.

Messages are written with ``inv``; :func:`with_typed_command` replaces it with the command that you typed.
"""

from __future__ import annotations

import re
from typing import Any

#: The two commands, and the module that Python runs for each.
INVOKE, OWN = "inv", "azureml-debug"
MODULES = {INVOKE: "invoke", OWN: "workflows"}
#: Labels of editor tasks that this program wrote begin with one of these.
TASK_LABEL_PREFIXES = tuple(f"{name} " for name in MODULES)
_COLLECTIONS = "deploy|pipeline|experiment|container|remote|vscode|azureml|mcp"
_NAMED = re.compile(rf"\binv (?=(?:{_COLLECTIONS})\.[a-z]|doctor\b|--(?:help|list)\b)")

_typed = INVOKE


def set_command(name: str) -> None:
    """Set the command that messages name: a key of :data:`MODULES`."""
    global _typed
    _typed = name


def typed() -> str:
    """The command that was typed: ``inv`` or ``azureml-debug``."""
    return _typed


def is_own() -> bool:
    """Whether it is the program's own command, which works without a tasks.py."""
    return _typed == OWN


def module_name() -> str:
    """What follows ``python -m`` to run the same command."""
    return MODULES[_typed]


def with_typed_command(text: str) -> str:
    """A message with ``inv`` replaced by the command that was typed."""
    return text if _typed == INVOKE else _NAMED.sub(f"{_typed} ", text)


def with_typed_command_in(value: Any) -> Any:
    """A JSON value with :func:`with_typed_command` applied to every text in it."""
    if isinstance(value, dict):
        return {name: with_typed_command_in(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [with_typed_command_in(one) for one in value]
    return with_typed_command(value) if isinstance(value, str) else value
