"""The lines of a build that are shown as progress: without minor messages of uv and pip."""

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
    # If uv's cache is on another disk.
    "warning: Failed to hardlink ",
    "If the cache and target directories ",
    "If this is intentional, set `export UV_LINK_MODE",
    "Removing intermediate container",
    "---> ",
)
_ORIGIN = re.compile(r" \(from (?:-r )?[^()]*(?:\([^()]*\)[^()]*)*\)$")


def shorten_line(line: str) -> str | None:
    """A line of a build as it is shown; None for one that is not."""
    text = line.strip()
    if not text or text.startswith(_ASIDES):
        return None
    return _ORIGIN.sub("", text)


def brief_reporter(report: Callable[[str], None]) -> Callable[[str], None]:
    """A reporter that passes on shortened lines. Errors are made from the complete output, not from these."""

    def relay(line: str) -> None:
        text = shorten_line(line)
        if text is not None:
            report(text)

    return relay
