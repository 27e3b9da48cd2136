"""What a look at another machine or service has found, one line each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .console import Console


@dataclass(frozen=True)
class Finding:
    """What one look has found.

    Attributes:
        name: What was looked at.
        ok: True; False where nothing works without it; None where some things do not.
        text: What was seen.
        remedy: What to do about it; empty where nothing has to be done.
    """

    name: str
    ok: bool | None
    text: str
    remedy: str = ""

    def as_json(self) -> dict[str, Any]:
        """The object under ``findings``."""
        return dict(vars(self))


def show_findings(console: Console, findings: Iterable[Finding]) -> bool:
    """Show each as it is found, and give them as the result; whether none of them has failed."""
    found: list[Finding] = []
    for one in findings:
        found.append(one)
        console.line(f"{'ok' if one.ok else 'warning' if one.ok is None else 'FAILED':<8} {one.name:<12} {one.text}")
        if one.remedy:
            console.line(f"{'':<21} {one.remedy}")
    fine = all(one.ok is not False for one in found)
    console.result({"ok": fine, "findings": [one.as_json() for one in found]})
    return fine
