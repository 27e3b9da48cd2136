"""Which steps are wanted: by full name, by the last part of one, or all of a nested pipeline."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import UserError
from .component import Source
from .problems import Problems
from .scope import Broken, LeftOut, Scope
from .yaml_file import listed


class NoStep(UserError):
    """A step that there is not.

    Attributes:
        name: What was asked for.
        names: The steps there are.
    """

    def __init__(self, name: str, names: Sequence[str]) -> None:
        super().__init__(f"There is no step {name}.", f"The steps there are: {', '.join(names)}")
        self.name, self.names = name, tuple(names)


def chosen(scope: Scope, only: Sequence[str], problems: Problems) -> tuple[str, ...]:
    """The full names of the steps that are wanted, also of those in which something is wrong.

    What they need is not among them.

    Args:
        scope: The pipeline.
        only: What was asked for; empty for all.
        problems: What is wrong with single steps: such a one may be what was asked for.

    Raises:
        NoStep: There is none of that name.
        UserError: Several have it; or it cannot run on this machine.
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
            # It may be in one that could not be read.
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
