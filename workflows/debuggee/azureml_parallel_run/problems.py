"""What keeps a parallel step from being done: what is wrong, and what to do."""

from __future__ import annotations


class Problem(Exception):
    """An error that a person can mend.

    Args:
        problem: What is wrong.
        remedy: What to do about it.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem, self.remedy = problem, remedy
