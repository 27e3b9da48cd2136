"""Tasks that cost little: Invoke copies all tasks when it loads them, and their flags when it reads a command line."""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from typing import Any

from invoke import Argument, Task


class Flag(Argument):
    """One flag, of which a deep copy has everything in common but the values that are typed."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Flag:
        copied = type(self).__new__(type(self))
        copied.__dict__.update(self.__dict__)
        # Lists are added to in place.
        for name in ("raw_value", "_value"):
            if isinstance(value := getattr(self, name), list):
                setattr(copied, name, [*value])
        memo[id(self)] = copied
        return copied


class OptionalFlag(Flag):
    """An argument without a flag that may be left out."""

    @property
    def value(self) -> Any:
        """As of any argument.

        Invoke asks by it both whether a word may still be this argument's and whether that is missing in the end: who
        asks tells which.
        """
        found = self._value if self._value is not None else self.default
        return "" if found is None and _is_asked_by("complete_context", "check_ambiguity") else found

    @value.setter
    def value(self, text: str) -> None:
        self.set_value(text, cast=True)


def _is_asked_by(*names: str) -> bool:
    frame = sys._getframe(2)
    # Between the two are a property and, before Python 3.12, a list comprehension.
    for _ in range(3):
        if frame is None or frame.f_code.co_name in names:
            return frame is not None
        frame = frame.f_back  # type: ignore[assignment]
    return False


class FlagTask(Task[Any]):
    """A task whose arguments are :class:`Flag`.

    Attributes:
        may_lack: Arguments without a flag that may be left out.
    """

    may_lack: Sequence[str] = ()

    def __deepcopy__(self, memo: dict[int, Any]) -> FlagTask:
        copied = copy.copy(self)
        # The help is taken out of it, one flag after the other.
        copied.help, copied.pre, copied.post = {**self.help}, [*self.pre], [*self.post]
        memo[id(self)] = copied
        return copied

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """Its arguments, as Invoke makes them."""
        arguments = super().get_arguments(ignore_unknown_help)
        for argument in arguments:
            argument.__class__ = OptionalFlag if argument.name in self.may_lack else Flag
        return arguments
