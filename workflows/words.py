"""Quantities as people read them."""

from __future__ import annotations


def in_words(seconds: float) -> str:
    """A duration as people read it."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
