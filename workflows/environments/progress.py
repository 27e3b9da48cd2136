"""What people see of a build while it goes on: its steps, without uv's and pip's asides."""

from __future__ import annotations

import re
from collections.abc import Callable

_ASIDES = (
    "WARNING: Location ",
    "WARNING: Running pip as",
    "Looking in ",
    "Requirement already satisfied",
    "INFO: pip is looking at",
    "Using Python ",
    "Audited ",
    "Checked ",
    "warning: Requirements file ",
    # Where the user keeps uv's cache on another disk.
    "warning: Failed to hardlink ",
    "If the cache and target directories ",
    "If this is intentional, set `export UV_LINK_MODE",
    "Removing intermediate container",
    "---> ",
)
_ORIGIN = re.compile(r" \(from (?:-r )?[^()]*(?:\([^()]*\)[^()]*)*\)$")


def shorten_line(line: str) -> str | None:
    """A line of a build as people see it; None for one that tells them nothing."""
    text = line.strip()
    if not text or text.startswith(_ASIDES):
        return None
    return _ORIGIN.sub("", text)


def brief_reporter(report: Callable[[str], None]) -> Callable[[str], None]:
    """A reporter of brief lines. Failures are told from the whole output, not from these."""

    def relay(line: str) -> None:
        text = shorten_line(line)
        if text is not None:
            report(text)

    return relay
