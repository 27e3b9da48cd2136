"""Collects the errors of a file and the files that it names, to report all of them at once and in order.

A function that reads a file gets a :class:`Problems`, adds the errors of one field to it, and goes on with the next
field. Errors that only follow from a reported one are not reported: see :class:`AlreadyReported`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import BadValue, UserError
from ..paths import shown
from .job_kinds import NotRunnableHere
from .yaml_file import Value, refuse

#: Errors in one message; a generated file may have thousands.
_MOST = 50


class SeveralErrors(UserError):
    """Several errors; it has the problem, remedy, file and line of the first.

    Args:
        errors: The errors in order; at least one.
    """

    def __init__(self, errors: Sequence[UserError]) -> None:
        first = errors[0]
        super().__init__(first.problem, first.remedy, file=first.file, line=first.line, details=first.details)
        self.errors = tuple(errors)
        self.exit_code = BadValue.exit_code if all(isinstance(one, BadValue) for one in errors) else 1

    def __str__(self) -> str:
        """Two lines for each error, with its place in front in the form that editors recognise."""
        more = len(self.errors) - _MOST
        lines = [str(one) for one in self.errors[:_MOST]]
        return "\n".join([*lines, *([f"… and {more} more."] if more > 0 else [])])


class AlreadyReported(UserError):
    """Something cannot be read because of an error that has been reported at its own place."""

    def __init__(self) -> None:
        super().__init__("This follows from another error.", "Correct that first.")


def split_errors(error: UserError | None) -> tuple[UserError, ...]:
    """The single errors of one that may be several; none for None."""
    if error is None:
        return ()
    return error.errors if isinstance(error, SeveralErrors) else (error,)


def combine_errors(errors: Iterable[UserError], files: Iterable[Path] = ()) -> UserError:
    """Combine errors into one; duplicates are dropped.

    Args:
        errors: The errors; at least one.
        files: Files in the order in which their errors are reported. Errors of the command line come before them, and
            those of other files after them.
    """
    distinct = {str(one): one for error in errors for one in split_errors(error)}
    if len(distinct) == 1:
        return next(iter(distinct.values()))
    places = {"": -1, **{str(shown(file)): number for number, file in enumerate(files)}}
    for one in distinct.values():
        places.setdefault(_file(one), len(places))
    return SeveralErrors(
        sorted(distinct.values(), key=lambda one: (places[_file(one)], one.line or 0, one.column or 0))
    )


def _file(error: UserError) -> str:
    return str(shown(Path(error.file))) if error.file is not None else ""


@dataclass
class Problems:
    """The errors found so far, each with the step or nested pipeline that it concerns.

    Attributes:
        owner: The step or nested pipeline that is being read; empty for the whole pipeline.
        columns: Whether places have a column.
        found: Pairs of owner and error.
        files: The files that are read, in the order in which they are named.
        stops: Errors that are not collected, because they only leave a step out.
    """

    owner: str = ""
    columns: bool = False
    found: list[tuple[str, UserError]] = field(default_factory=list)
    files: dict[Path, None] = field(default_factory=dict)
    stops: tuple[type[UserError], ...] = (NotRunnableHere,)

    def __len__(self) -> int:
        return len(self.found)

    def __bool__(self) -> bool:
        return bool(self.found)

    def for_step(self, owner: str) -> Problems:
        """A view of this collection that adds errors of a step or a nested pipeline."""
        return Problems(owner, self.columns, self.found, self.files)

    def add(self, value: Value, problem: str, remedy: str) -> None:
        """Add an error at the place of a value."""
        error = refuse(value, problem, remedy)
        if self.columns:
            error.column = value.column or None
        self.add_error(error)

    def add_error(self, error: UserError) -> None:
        """Add an error."""
        if not isinstance(error, AlreadyReported):
            self.found.append((self.owner, error))

    def add_all(self, others: Problems) -> None:
        """Add the errors of a file that several steps name."""
        self.found += [(self.owner, error) for _, error in others.found]

    def collect_errors(self, value: Value | None = None) -> _ErrorCollector:
        """A context manager that adds an error raised in its block, and continues after the block.

        Args:
            value: An error on the line of this value gets its column, if places have a column.
        """
        return _ErrorCollector(self, value)

    def mapping(self, value: Value | None, what: str) -> Mapping[str, Value]:
        """A value's entries. If it is not a mapping, that is added as an error, and there are none.

        Args:
            value: The value, or None.
            what: Its name in the message.
        """
        if value is None:
            return {}
        with self.collect_errors(value):
            return value.mapping(what)
        return {}

    def text(self, value: Value | None, what: str) -> str:
        """A scalar as text; empty for None. If it is not a scalar, that is added as an error, and the text is empty.

        The arguments are those of :meth:`mapping`.
        """
        if value is not None:
            with self.collect_errors(value):
                return value.text(what).strip()
        return ""

    def combined_error(self, steps: Collection[str] | None = None) -> UserError | None:
        """All errors as one; None if there are none.

        Args:
            steps: Only include errors of these steps and of the nested pipelines around them; None for all.
        """
        counted = [error for owner, error in self.found if not owner or steps is None or _concerns(owner, steps)]
        return combine_errors(counted, self.files) if counted else None

    def check(self) -> None:
        """Raise the errors, if there are any.

        Raises:
            UserError: All of them.
        """
        error = self.combined_error()
        if error is not None:
            raise error


class _ErrorCollector:
    """See :meth:`Problems.kept`; a class, since a file of many steps makes thousands of them."""

    __slots__ = ("_problems", "_value")

    def __init__(self, problems: Problems, value: Value | None) -> None:
        self._problems, self._value = problems, value

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, UserError) or isinstance(error, self._problems.stops):
            return False
        value = self._value
        if self._problems.columns and value is not None and error.line == value.line and not error.column:
            error.column = value.column or None
        self._problems.add_error(error)
        return True


def _concerns(owner: str, steps: Collection[str]) -> bool:
    return owner in steps or any(step.startswith(f"{owner}.") for step in steps)
