"""Checks everything that can be wrong with a workspace, one thing after the other, without changing anything."""

from __future__ import annotations

from collections.abc import Iterator

from ...errors import UserError
from ...findings import Finding
from ...settings import Settings
from ..errors import Report
from ..sdk_choice import chosen_sdk


def findings(settings: Settings, report: Report) -> Iterator[Finding]:
    """Run the checks in order, as long as the next one makes sense.

    Args:
        settings: Which workspace, who signs in, and which SDK is asked for.
        report: Called with what is being waited for.
    """
    try:
        chosen = chosen_sdk(settings)
    except UserError as error:
        yield Finding("SDK", False, error.problem, error.remedy)
        return
    if chosen == "v2":
        from .v2 import findings as checks
    else:
        from .v1 import findings as checks
    yield from checks(settings, report)
