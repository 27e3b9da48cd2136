"""The list of all tools."""

from __future__ import annotations

from . import read_tools, session_tools, start_tools
from .state import State
from .tools import Tool


def all_tools(state: State) -> list[Tool]:
    """All tools; with ``--read-only`` without those that run, start or change code."""
    every = [*read_tools.read_tools(state), *start_tools.start_tools(state), *session_tools.session_tools(state)]
    return [one for one in every if not (state.read_only and one.runs_code)]
