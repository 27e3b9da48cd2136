"""How a debugged step on a node is configured, for both SDKs."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from ..backends.base import DebugRequest
from ..engines.snapshots import snapshot_variables, summary_variables
from ..engines.step_variables import rank_settings
from ..models import Snapshots
from ..pipelines.commands import names_own_script, published_port
from ..pipelines.definition import Step
from ..runs.plan import PlannedDebug
from ..settings import Settings

#: The published port, which is used unless another one is set.
DEFAULT_PORT = 5678
#: Number of ports that a step tries on a node, which it may share with others.
TRIES = 20


def debuggee_variables(
    step: Step,
    ports: Mapping[int, int],
    debug: DebugRequest,
    settings: Settings,
    digest: str,
    story: str = "pipeline",
) -> dict[str, str]:
    """The environment variables of the step's debuggee.

    Args:
        step: The step.
        ports: Its debug ports on this machine, by rank.
        debug: How it is debugged.
        settings: The settings.
        digest: SHA-256 in hex of the token that its gates require; empty where they require none.
        story: ``pipeline`` or ``experiment``.
    """
    return {
        "AZUREML_DEBUGGEE_PORT": str(published_port(step.command) or settings.debug_port or DEFAULT_PORT),
        "AZUREML_DEBUGGEE_PORTS": str(TRIES),
        **rank_settings(step.ranks, ports, debug.launched),
        "AZUREML_DEBUGGEE_WAIT": "1" if debug.wait else "0",
        "AZUREML_DEBUGGEE_TIMEOUT": str(settings.debug_timeout),
        "AZUREML_DEBUGGEE_ON_ERROR": "1" if debug.on_error else "0",
        "AZUREML_DEBUGGEE_CHILDREN": "1" if debug.children else "0",
        "AZUREML_DEBUGGEE_ANY": "0" if names_own_script(step.command, step.code, step.includes) else "1",
        "AZUREML_DEBUGGEE_TOKEN": digest,
        **_snapshot_variables(step, settings, story),
        **summary_variables(settings.describes_values),
    }


def _snapshot_variables(step: Step, settings: Settings, story: str) -> dict[str, str]:
    """The variables that make a failing step write a snapshot; node.py adds the folder."""
    if not settings.leaves_snapshots:
        return {}
    found = snapshot_variables(Snapshots(story, settings.snapshot_redact or ""), "")
    return {**{name: value for name, value in found.items() if value}, "AZUREML_DEBUGGEE_STEP": step.name}


def planned_debug(
    ports: Mapping[int, int] | None, debug: DebugRequest | None, settings: Settings
) -> PlannedDebug | None:
    """How a step is debugged, for the plan in the run's folder; None where it is not debugged."""
    if debug is None or ports is None:
        return None
    return PlannedDebug(
        ports=dict(ports),
        wait=debug.wait,
        timeout=settings.debug_timeout,
        on_error=debug.on_error,
        any_program=False,
        children=debug.children,
        launched=debug.launched,
        summaries=settings.describes_values,
    )


def address_towards(service: str) -> str | None:
    """This machine's address on the route to a service, from which a node finds its route back; nothing is sent."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((urlsplit(service).hostname or "", 443))
            return str(probe.getsockname()[0])
    except OSError:
        # Without it, the node uses its default route.
        return None
