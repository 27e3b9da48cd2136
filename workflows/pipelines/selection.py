"""Selects steps by full name, by the last part of a name, or all steps of a nested pipeline."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import UserError
from .component import Source
from .problems import Problems
from .scope import Broken, LeftOut, Scope
from .yaml_file import listed


class NoStep(UserError):
    """There is no step of that name.

    Attributes:
        name: The requested name.
        names: The existing steps.
    """

    def __init__(self, name: str, names: Sequence[str]) -> None:
        super().__init__(f"There is no step {name}.", f"Existing steps: {', '.join(names)}")
        self.name, self.names = name, tuple(names)


def select_steps(scope: Scope, only: Sequence[str], problems: Problems) -> tuple[str, ...]:
    """The full names of the selected steps, including steps with errors, but not the steps that they need.

    Args:
        scope: The pipeline.
        only: The requested names; empty for all steps.
        problems: The errors so far. They are raised if a name is not found, since its step may not have been read.

    Raises:
        NoStep: No step has that name.
        UserError: Several steps have it, or the step cannot run on this machine.
    """
    entries = list(scope.entries())
    names = [entry.name for entry in entries if isinstance(entry, Source)]
    all_names = [entry.name for entry in entries if isinstance(entry, (Source, Broken))]
    if not only:
        return tuple(all_names)
    found: dict[str, None] = {}
    for text in only:
        exact = [entry for entry in entries if entry.name == text]
        fitting = exact or [entry for entry in entries if entry.name.endswith(f".{text}")]
        if not fitting:
            # It may be in a nested pipeline that could not be read.
            problems.check()
            raise NoStep(text, names)
        if len(fitting) > 1:
            called = listed(entry.name for entry in fitting)
            raise UserError(f"Several steps are called {text}: {called}.", "Name one of them in full: --step NAME")
        entry = fitting[0]
        if isinstance(entry, LeftOut):
            if entry.error is not None:
                raise entry.error
            raise UserError(
                f"{entry.name} is both to be debugged and to be left out.", "Remove it from --step or from --skip."
            )
        if isinstance(entry, Scope):
            found |= dict.fromkeys(name for name in all_names if name.startswith(f"{entry.name}."))
        else:
            found[entry.name] = None
    return tuple(name for name in all_names if name in found)
