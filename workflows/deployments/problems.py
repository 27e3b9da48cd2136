"""All that is wrong with a deployment's file, and what there is to say of the rest."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import UserError
from ..pipelines import problems


@dataclass
class Problems(problems.Problems):
    """What is wrong with a file, gathered while it is read.

    Attributes:
        notes: What is not done here as in Azure ML, one line each.
    """

    columns: bool = True
    stops: tuple[type[UserError], ...] = ()
    notes: list[str] = field(default_factory=list)
