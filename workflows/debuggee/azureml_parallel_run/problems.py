"""The error that ends a parallel step."""

from __future__ import annotations


class Problem(Exception):
    """An error that the user can fix.

    Args:
        problem: What is wrong.
        remedy: What to do about it.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem, self.remedy = problem, remedy
