"""Everything that is wrong with a pipeline, told at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from ..errors import BadValue, UserError
from .job_kinds import NotHere

#: Errors that one message tells of; a generated file may have thousands.
_MOST = 20


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


def together(errors: Sequence[UserError]) -> UserError:
    """One error for all of them; what several tell in the same words is told once."""
    distinct = list({str(error): error for error in errors}.values())
    return distinct[0] if len(distinct) == 1 else SeveralErrors(distinct)


@dataclass
class Problems:
    """What has been found wrong so far, each with the step or nested pipeline that it concerns.

    Attributes:
        found: Name of the step, empty for the whole, and the error.
    """

    found: list[tuple[str, UserError]] = field(default_factory=list)

    @contextmanager
    def of(self, owner: str) -> Iterator[None]:
        """Keep what is raised inside for later; but for a step that is left out, which is nothing wrong."""
        try:
            yield
        except NotHere:
            raise
        except UserError as error:
            self.found.append((owner, error))

    def error(self, steps: Collection[str] | None = None) -> UserError | None:
        """All that is wrong; None where nothing is.

        Args:
            steps: The steps that count, with the nested pipelines that they are in; None for all.
        """
        counted = [error for owner, error in self.found if not owner or steps is None or _concerns(owner, steps)]
        return together(counted) if counted else None

    def check(self, steps: Collection[str] | None = None) -> None:
        """See that nothing is wrong; argument as of :meth:`error`.

        Raises:
            UserError: Something is; all of it is told.
        """
        error = self.error(steps)
        if error is not None:
            raise error


def _concerns(owner: str, steps: Collection[str]) -> bool:
    return owner in steps or any(step.startswith(f"{owner}.") for step in steps)
