"""The task ``doctor``: checks everything that the program needs."""

from __future__ import annotations

from ._command import Command, command


@command(json=True)
def doctor(call: Command) -> None:
    """Check what works here, one line each, and say what to do about the rest."""
    from invoke import Exit

    from ..doctor import findings
    from ..findings import show_findings

    if not show_findings(call.console, findings(call.settings)):
        raise Exit(code=1)
