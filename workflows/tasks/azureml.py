"""The Azure ML workspace."""

from __future__ import annotations

from ._command import Command, command

WORKSPACE = ("subscription_id", "resource_group", "workspace", "auth", "sdk", "compute_target")


@command(settings=WORKSPACE, json=True, interrupted="Nothing was changed.")
def check(call: Command) -> None:
    """Check what works with the workspace, one line each."""
    from invoke import Exit

    from ..azureml.checks import findings
    from ..findings import show_findings

    with call.console.step("check") as step:
        step.hidden = True
        fine = show_findings(call.console, findings(call.settings, call.console.line))
    if not fine:
        raise Exit(code=1)
