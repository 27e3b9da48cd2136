"""All that is wrong with a file, said in one message."""

from __future__ import annotations

from pathlib import Path

from ..errors import UserError
from ..paths import shown
from ..pipelines.problems import together
from ..pipelines.yaml_file import Value


class Problems:
    """What is wrong with a file, gathered while it is read, and what there is to say of the rest.

    Args:
        file: The file.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._found: list[UserError] = []
        self.notes: list[str] = []

    def __bool__(self) -> bool:
        return bool(self._found)

    @property
    def errors(self) -> tuple[UserError, ...]:
        """What is wrong, in the order of its places."""
        return tuple(sorted(self._found, key=lambda one: (str(one.file), one.line or 0, one.column or 0)))

    def add(self, value: Value, problem: str, remedy: str) -> None:
        """Note what is wrong with a value."""
        self._found.append(
            UserError(
                problem,
                remedy,
                file=shown(value.file or self._file),
                line=value.line or None,
                column=value.column or None,
            )
        )

    def gathered(self, value: Value | None = None) -> _Gathering:
        """A context that gathers what its block refuses, with the column of a value where it is on the value's line."""
        return _Gathering(self._found, value)

    def settle(self) -> None:
        """Go on only where nothing is wrong.

        Raises:
            UserError: Something is; one error with all of it.
        """
        if self._found:
            raise together(self.errors)


class _Gathering:
    def __init__(self, found: list[UserError], value: Value | None) -> None:
        self._found, self._value = found, value

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, UserError):
            return False
        if self._value is not None and error.line == self._value.line and not error.column:
            error.column = self._value.column or None
        self._found.append(error)
        return True
