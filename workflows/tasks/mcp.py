"""The debugger for coding agents, by the Model Context Protocol."""

from __future__ import annotations

import sys

from ..errors import BadValue, UserError
from ..paths import absolute
from ..version import __version__
from ._command import Command, command


@command(
    help={
        "project": "The project's folder, where the agent's program starts this in another one.",
        "read_only": "Run and change nothing of the project's code: no starting or ending, no evaluating, no setting, "
        "no conditions, no logpoints, no requests.",
    },
    interrupted="What was debugged goes on.",
)
def serve(call: Command, project: str | None = None, read_only: bool = False) -> None:
    """Serve the debugger to a coding agent over standard input and output; the agent's program starts it."""
    from ..background import log
    from ..mcp_server import serving
    from ..mcp_server.all_tools import all_tools
    from ..mcp_server.state import State
    from ..settings import resolve

    if sys.stdin.isatty():
        raise UserError(
            "mcp.serve speaks the Model Context Protocol, which a terminal does not.",
            "Have an agent start it: docs/agents.md; for VS Code: inv vscode.setup --mcp",
        )
    serving.require_sdk()
    folder = call.project if project is None else absolute(project).resolve()
    if not folder.is_dir():
        raise BadValue(f"--project must be a folder, and {folder} is not one.", "Correct it.")
    state = State(folder, lambda: resolve(folder, {}), read_only, log)
    serving.serve(state, all_tools(state), __version__)
