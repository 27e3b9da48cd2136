"""Every tool that a server has."""

from __future__ import annotations

from . import read_tools, session_tools, start_tools
from .state import State
from .tools import Tool


def all_tools(state: State) -> list[Tool]:
    """The tools; with ``--read-only`` without those that run, begin or change code."""
    every = [*read_tools.read_tools(state), *start_tools.start_tools(state), *session_tools.session_tools(state)]
    return [one for one in every if not (state.read_only and one.runs_code)]
