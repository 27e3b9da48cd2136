"""Durations, sizes and long texts formatted for messages."""

from __future__ import annotations


def format_duration(seconds: float) -> str:
    """Format a duration in seconds, such as ``3.2 s``, ``2 min 05 s`` or ``1 h 30 min``."""
    seconds = max(0.0, seconds)
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def format_size(size: float) -> str:
    """Format a size in bytes, such as ``1.2 MB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def shorten(text: str, most: int = 60) -> str:
    """Cut a text after ``most`` characters, with an ellipsis."""
    return text if len(text) <= most else text[:most] + "…"
