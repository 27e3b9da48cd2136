"""Every tool that a server has."""

from __future__ import annotations

from . import debugging, looking, starting
from .state import State
from .tools import Tool


def tools(state: State) -> list[Tool]:
    """The tools; with ``--read-only`` without those that run, begin or change code."""
    every = [*looking.made(state), *starting.made(state), *debugging.made(state)]
    return [one for one in every if not (state.read_only and one.runs_code)]
