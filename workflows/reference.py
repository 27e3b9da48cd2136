"""The text of docs/reference.md: every setting and every task, generated from the code."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING

from .settings import DEFAULT_PLACES, SERVICE_PRINCIPAL
from .settings_table import SETTINGS, Setting

if TYPE_CHECKING:
    from invoke.parser import ParserContext

HEAD = """\
# Reference

Every setting, and every task that a project gets. `inv docs` writes this page from the code; do not edit it.

## Settings

A flag goes before the environment variable, that before `.env`, that before the default. Relative paths are relative to
the folder of tasks.py, on the command line to the current folder. A setting without a flag is set by its variable.
"""
TASKS = """\

## Tasks

`inv --help TASK` shows the same. A name in brackets is given without its flag, as the first word. A flag that names a
setting may be left out where that setting is set.
"""


def reference() -> str:
    """The complete page as Markdown."""
    from .tasks.all_tasks import collect_tasks

    namespace = collect_tasks()
    contexts = sorted(namespace.to_contexts(), key=lambda context: str(context.name))
    flags = {flag.partition("=")[0] for context in contexts for flag, _ in context.help_tuples()}
    lines = [HEAD, "| variable | flag | default | meaning |", "|---|---|---|---|"]
    lines += [_setting(setting, flags) for setting in SETTINGS]
    lines += [f"| `{name}` | | | for `AML_AUTH=service-principal` |" for name in SERVICE_PRINCIPAL]
    lines.append(TASKS)
    for name in sorted(namespace.collections):
        lines += [f"### {name}", ""]
        for context in contexts:
            if str(context.name).startswith(f"{name}."):
                lines += _task(context, inspect.getdoc(namespace[context.name]) or "")
    for context in contexts:
        if "." not in str(context.name):
            lines += ["### At the top", "", *_task(context, inspect.getdoc(namespace[context.name]) or "")]
    return "\n".join(lines)


def _setting(setting: Setting, flags: Iterable[str]) -> str:
    flag = f"`{setting.flag}`" if setting.flag in flags else ""
    default = setting.default or DEFAULT_PLACES.get(setting.field, "")
    return f"| `{setting.variable}` | {flag} | {f'`{default}`' if default else ''} | {_cell(setting.help)} |"


def _task(context: ParserContext, text: str) -> list[str]:
    typed = "".join(f" [{argument.name}]" for argument in context.positional_args)
    lines = [f"#### `inv {context.name}{typed}`", "", text, "", "| flag | meaning |", "|---|---|"]
    return [*lines, *(f"| `{flag}` | {_cell(meaning or '')} |" for flag, meaning in context.help_tuples()), ""]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
