"""Shows the debug sessions of coding agents, and takes them over."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..console import Console

TAKE_OVER_HELP = "End the debug session that an agent (inv mcp.serve) has, at its next stop; the program goes on."


def show_sessions(
    console: Console, project: Path, story: str, run_id: str, number: object = None
) -> list[dict[str, Any]]:
    """Show which agents are attached, one line each, and return what ``--json`` shows.

    Args:
        console: Where to show them.
        project: The project's folder.
        story: ``deploy``, ``pipeline`` or ``experiment``.
        run_id: The run; empty for the service.
        number: The run's number.
    """
    from ..runs import agent_sessions

    found = agent_sessions.list_sessions(project, run_id)
    for one in found:
        console.line(one.description(agent_sessions.take_over_command(story, number)))
    return [one.as_json() for one in found]


def take_over(console: Console, project: Path, run_id: str) -> list[dict[str, Any]]:
    """End agents' sessions with a run or with the service, and return what ``--json`` shows.

    Raises:
        UserError: A session does not end.
    """
    from ..runs import agent_sessions

    found = agent_sessions.list_sessions(project, run_id)
    if not found:
        console.line("No agent is attached.")
        return []
    with console.step("take over") as step:
        step.report_wait(f"the next stop of {', '.join(one.target for one in found)}")
        agent_sessions.take_over(found)
        step.text = f"{', '.join(one.client for one in found)}: ended; the program goes on"
    return [one.as_json() for one in found]
