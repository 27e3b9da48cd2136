"""The pages for people: the reference is the code's, and every command in them is one that exists."""

from __future__ import annotations

from pathlib import Path

from workflows.reference import reference

ROOT = Path(__file__).resolve().parents[2]


def test_the_reference_is_what_the_code_says() -> None:
    assert (ROOT / "docs" / "reference.md").read_text(encoding="utf-8") == reference(), "stale: run `inv docs`"
