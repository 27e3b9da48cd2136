"""Tasks and flags that are cheap to copy. Invoke copies all tasks on loading, and their flags for each command line."""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

from invoke import Argument, Task


class Flag(Argument):
    """One flag. A deep copy shares everything except the typed values.

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
    """An argument that is given without its flag.

    Attributes:
        may_be_omitted: Whether it may be left out.
    """

    may_be_omitted: bool

    @property
    def value(self) -> Any:
        """The value, or "" to tell Invoke's parser that no value is needed.

        The parser reads this property for two purposes: to decide whether the next word is this argument's value, and
        to find out at the end which arguments are missing. The calling function tells which. A flag or the name of the
        next task is never this argument's value.
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
    """The frame of Invoke's parser that looks for missing arguments; None if it is not the caller."""
    frame = sys._getframe(2)
    # Before Python 3.12, a list comprehension has a frame of its own.
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
        """The help of each flag. That of settings is added on first use: a list of tasks does not need it."""
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
        """The arguments, as Invoke creates them; none for a list of tasks, which does not show them."""
        if sys.argv[1:2] in (["--list"], ["-l"]):
            return []
        explained = self.help
        # Invoke removes each flag's help from the dictionary.
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
