"""Tasks that cost little: Invoke copies all tasks when it loads them, and their flags when it reads a command line."""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

from invoke import Argument, Task


class Flag(Argument):
    """One flag, of which a deep copy has everything in common but the values that are typed.

    Attributes:
        task: The task that it belongs to.
    """

    task: FlagTask

    def __deepcopy__(self, memo: dict[int, Any]) -> Flag:
        copied = type(self).__new__(type(self))
        copied.__dict__.update(self.__dict__)
        # Lists are added to in place.
        for name in ("raw_value", "_value"):
            if isinstance(value := getattr(self, name), list):
                setattr(copied, name, [*value])
        memo[id(self)] = copied
        return copied


class PositionalArgument(Flag):
    """An argument that is given as a word, without its flag.

    Attributes:
        may_be_omitted: Whether it may be left out.
    """

    may_be_omitted: bool

    @property
    def value(self) -> Any:
        """As of any argument.

        Invoke asks by it both whether the next word is this argument's and whether it is missing in the end: who asks
        tells which. A flag, and the task that comes next, are no such word.
        """
        found = self._value if self._value is not None else self.default
        if found is not None or (caller := _parser_frame()) is None:
            return found
        if caller.f_code.co_name != "handle":
            return "" if self.may_be_omitted else None
        word, tasks = caller.f_locals["token"], caller.f_locals["self"].contexts
        return "" if word.startswith("-") or ("." in word and word in tasks) else None

    @value.setter
    def value(self, text: str) -> None:
        self.set_value(text, cast=True)


class _Count(int):
    """How often a flag was typed. The help that Invoke prints shows a value behind every flag whose kind is `int`."""


def _parser_frame() -> FrameType | None:
    """The function of Invoke's parser that looks which arguments are missing; None where nobody does."""
    frame = sys._getframe(2)
    # In front of it is, before Python 3.12, a list comprehension.
    for _ in range(2):
        if frame.f_code.co_name == "missing_positional_args":
            return frame.f_back
        frame = frame.f_back  # type: ignore[assignment]
    return None


class FlagTask(Task[Any]):
    """A task whose arguments are :class:`Flag`.

    Attributes:
        may_be_omitted: Arguments without a flag that may be left out.
        takes_remainder: Whether something may follow ``--``.
        settings: Fields of settings that have a flag.
    """

    may_be_omitted: Sequence[str] = ()
    takes_remainder: bool = False
    settings: Sequence[str] = ()
    _own_help: dict[str, str]
    _complete_help: dict[str, str] | None = None

    @property
    def help(self) -> dict[str, str]:
        """What is said of each flag; of settings only where somebody asks, since a list of tasks does not."""
        if self._complete_help is None:
            self._complete_help = {**self._own_help, **_settings_help(self.settings)}
        return self._complete_help

    @help.setter  # noqa: A003 (the name is Invoke's)
    def help(self, explained: dict[str, str]) -> None:
        self._own_help, self._complete_help = explained, None

    def __deepcopy__(self, memo: dict[int, Any]) -> FlagTask:
        copied = copy.copy(self)
        copied.pre, copied.post = [*self.pre], [*self.post]
        memo[id(self)] = copied
        return copied

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """Its arguments, as Invoke makes them; none where tasks are listed, which shows their names and help alone."""
        if sys.argv[1:2] in (["--list"], ["-l"]):
            return []
        explained = self.help
        # Invoke takes the help out of it, one flag after the other.
        self._complete_help = {**explained}
        try:
            arguments = super().get_arguments(ignore_unknown_help)
        finally:
            self._complete_help = explained
        for argument in arguments:
            if argument.name == "verbose":
                argument.names, argument.kind = ("verbose", "v"), _Count
            argument.__class__ = PositionalArgument if argument.positional else Flag
            argument.__dict__ |= {"task": self, "may_be_omitted": argument.name in self.may_be_omitted}
        return arguments


def _settings_help(fields: Sequence[str]) -> dict[str, str]:
    if not fields:
        return {}
    from ..settings_table import BY_FIELD

    explained = {}
    for field in fields:
        setting = BY_FIELD[field]
        default = f", default {setting.default}" if setting.default else ""
        explained[field] = f"{setting.help[0].upper()}{setting.help[1:]} ({setting.variable}{default})."
    return explained
