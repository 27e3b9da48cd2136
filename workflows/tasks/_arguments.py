"""Tasks that cost little: Invoke copies all tasks when it loads them, and their flags when it reads a command line."""

from __future__ import annotations

import copy
from typing import Any

from invoke import Argument, Task


class Flag(Argument):
    """One flag, of which a deep copy has everything in common but the values that are typed."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Flag:
        copied = Flag.__new__(Flag)
        copied.__dict__.update(self.__dict__)
        # Lists are added to in place.
        for name in ("raw_value", "_value"):
            if isinstance(value := getattr(self, name), list):
                setattr(copied, name, [*value])
        memo[id(self)] = copied
        return copied


class FlagTask(Task[Any]):
    """A task whose arguments are :class:`Flag`."""

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
            argument.__class__ = Flag
        return arguments
