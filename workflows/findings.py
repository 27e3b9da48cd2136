"""The results of checks (of this machine, another machine, a workspace), one line each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .console import Console


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        name: What was checked.
        ok: True if it works; False if nothing works without it; None if only some things do not.
        text: What was found.
        remedy: What to do about it; empty if nothing has to be done.
    """

    name: str
    ok: bool | None
    text: str
    remedy: str = ""

    def as_json(self) -> dict[str, Any]:
        """The object under ``findings``."""
        return dict(vars(self))


def show_findings(console: Console, findings: Iterable[Finding]) -> bool:
    """Show each finding as it comes, and all as the result; returns whether none has failed."""
    found: list[Finding] = []
    for one in findings:
        found.append(one)
        console.line(f"{'ok' if one.ok else 'warning' if one.ok is None else 'FAILED':<8} {one.name:<12} {one.text}")
        if one.remedy:
            console.line(f"{'':<21} {one.remedy}")
    fine = all(one.ok is not False for one in found)
    console.result({"ok": fine, "findings": [one.as_json() for one in found]})
    return fine
