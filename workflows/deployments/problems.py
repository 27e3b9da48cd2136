"""Collects the errors in a deployment's file, and notes on it."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import UserError
from ..pipelines import problems


@dataclass
class Problems(problems.Problems):
    """The errors in a file, collected while it is read.

    Attributes:
        notes: Differences from how Azure ML runs the deployment, one line each.
    """

    columns: bool = True
    stops: tuple[type[UserError], ...] = ()
    notes: list[str] = field(default_factory=list)
