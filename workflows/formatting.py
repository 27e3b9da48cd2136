"""Quantities and texts as people read them."""

from __future__ import annotations


def format_duration(seconds: float) -> str:
    """A duration as people read it."""
    seconds = max(0.0, seconds)
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def format_size(size: float) -> str:
    """A size as people read it."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def shorten(text: str, most: int = 60) -> str:
    """A text for a message: its beginning, where it is long."""
    return text if len(text) <= most else text[:most] + "…"
