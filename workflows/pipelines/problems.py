"""Everything that is wrong with a file and the files that it names, told at once and in their order.

Who reads a file is handed a :class:`Problems`. It notes there what is wrong with one field, and goes on with the next.
What only follows from a thing that has been told is not told as well: see :class:`Told`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import BadValue, UserError
from ..paths import shown
from .job_kinds import NotHere
from .yaml_file import Value, refuse

#: Errors that one message tells of; a generated file may have thousands.
_MOST = 50


class SeveralErrors(UserError):
    """Several things that are wrong; the first is its own problem, remedy, file and line.

    Args:
        errors: All of them, in order; at least one.
    """

    def __init__(self, errors: Sequence[UserError]) -> None:
        first = errors[0]
        super().__init__(first.problem, first.remedy, file=first.file, line=first.line, details=first.details)
        self.errors = tuple(errors)
        self.exit_code = BadValue.exit_code if all(isinstance(one, BadValue) for one in errors) else 1

    def __str__(self) -> str:
        """Two lines of each, with its place in front in the form that editors recognise."""
        more = len(self.errors) - _MOST
        lines = [str(one) for one in self.errors[:_MOST]]
        return "\n".join([*lines, *([f"… and {more} more."] if more > 0 else [])])


class Told(UserError):
    """Something cannot be read for a reason that has been told of at its own place already."""

    def __init__(self) -> None:
        super().__init__("This follows from something else that is wrong.", "Mend that first.")


def single(error: UserError | None) -> tuple[UserError, ...]:
    """The errors that one stands for; none for None."""
    if error is None:
        return ()
    return error.errors if isinstance(error, SeveralErrors) else (error,)


def together(errors: Iterable[UserError], files: Iterable[Path] = ()) -> UserError:
    """One error for all of them; what several tell in the same words is told once.

    Args:
        errors: The errors; at least one.
        files: Files in the order in which they are told of; others come behind them, and what was typed comes first.
    """
    distinct = {str(one): one for error in errors for one in single(error)}
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
    """What has been found wrong so far, each with the step or nested pipeline that it concerns.

    Attributes:
        owner: The step or nested pipeline that is being read; empty for the whole.
        columns: Whether places are told with their column.
        found: Owner and error of each.
        files: The files that are read, in the order in which they are named.
        stops: Errors that are not for here: those by which a step is left out, which is nothing wrong.
    """

    owner: str = ""
    columns: bool = False
    found: list[tuple[str, UserError]] = field(default_factory=list)
    files: dict[Path, None] = field(default_factory=dict)
    stops: tuple[type[UserError], ...] = (NotHere,)

    def __len__(self) -> int:
        return len(self.found)

    def __bool__(self) -> bool:
        return bool(self.found)

    def of(self, owner: str) -> Problems:
        """The same, for what concerns a step or a nested pipeline."""
        return Problems(owner, self.columns, self.found, self.files)

    def add(self, value: Value, problem: str, remedy: str) -> None:
        """Note what is wrong with a value."""
        error = refuse(value, problem, remedy)
        if self.columns:
            error.column = value.column or None
        self.take(error)

    def take(self, error: UserError) -> None:
        """Note an error."""
        if not isinstance(error, Told):
            self.found.append((self.owner, error))

    def take_all(self, others: Problems) -> None:
        """Note what has been found in a file that several steps name."""
        self.found += [(self.owner, error) for _, error in others.found]

    def kept(self, value: Value | None = None) -> _Kept:
        """A context that notes what its block refuses, and goes on behind it.

        Args:
            value: Whose column is told where an error is on its line, as far as columns are told.
        """
        return _Kept(self, value)

    def mapping(self, value: Value | None, what: str) -> Mapping[str, Value]:
        """A value's entries; none of what is no mapping, which is noted.

        Args:
            value: The value; None where there is none.
            what: Its name in the message.
        """
        if value is None:
            return {}
        with self.kept(value):
            return value.mapping(what)
        return {}

    def text(self, value: Value | None, what: str) -> str:
        """A scalar as text; empty where there is none, or none that could be one, which is noted.

        Arguments as of :meth:`mapping`.
        """
        if value is not None:
            with self.kept(value):
                return value.text(what).strip()
        return ""

    def error(self, steps: Collection[str] | None = None) -> UserError | None:
        """All that is wrong; None where nothing is.

        Args:
            steps: The steps that count, with the nested pipelines that they are in; None for all.
        """
        counted = [error for owner, error in self.found if not owner or steps is None or _concerns(owner, steps)]
        return together(counted, self.files) if counted else None

    def check(self) -> None:
        """See that nothing is wrong.

        Raises:
            UserError: Something is; all of it is told.
        """
        error = self.error()
        if error is not None:
            raise error


class _Kept:
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
        self._problems.take(error)
        return True


def _concerns(owner: str, steps: Collection[str]) -> bool:
    return owner in steps or any(step.startswith(f"{owner}.") for step in steps)
