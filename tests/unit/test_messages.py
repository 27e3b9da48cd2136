"""One rule for the first line of every message: it begins as a sentence does, and ends with a full stop."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import ROOT

from workflows.errors import UserError

#: The errors whose first argument is the first line. Others make it of their arguments.
ERRORS = ("UserError", "BadValue", "Ended", "Lost", "NotRunnableHere", "NoStep")
#: Names that are spelled with a small letter at the begin of a sentence, too.
SMALL = ("azureml-core", "azure-identity", "azure-ai-ml", "mmdebstrap", "pip's", "launch.json", "mcp.serve")


def beginnings() -> Iterator[tuple[str, str]]:
    """The text with which each message begins, as far as the code spells it out, by its place."""
    for path in sorted((ROOT / "workflows").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS):
                continue
            first = next(iter(node.args), None)
            if isinstance(first, ast.JoinedStr) and first.values:
                first = first.values[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str) and first.value:
                yield f"{path.relative_to(ROOT)}:{node.lineno}", first.value


def test_a_message_begins_with_a_capital_or_with_a_name() -> None:
    found = list(beginnings())
    assert len(found) > 300
    assert [one for one in found if one[1][0].islower() and not one[1].startswith(SMALL)] == []


@pytest.mark.parametrize("text", ["It is gone", "It is gone.", "pip says: no such file"])
def test_a_message_ends_with_one_full_stop(text: str) -> None:
    assert UserError(text, "Make it again.").problem == f"{text.rstrip('.')}."


def test_a_question_keeps_its_mark() -> None:
    assert UserError("Which run is to be ended?", "Name it: --run RUN").problem.endswith("ended?")


def test_the_files_of_messages_are_found(tmp_path: Path) -> None:
    assert str(UserError("It is gone", "Make it again.", file=tmp_path / "a.py", line=2)).endswith(
        "a.py:2: error: It is gone.\nMake it again."
    )
