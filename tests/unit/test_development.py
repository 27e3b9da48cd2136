"""The tasks of those who work on the program itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from workflows.tasks import development

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("path", [*development.EDITOR, *development.WHOLE_ENGINE])
def test_what_is_to_run_apart_is_there(path: str) -> None:
    # pytest ignores nothing, and says nothing, where the name is wrong.
    assert (ROOT / path).is_file()


def test_no_file_of_tests_is_left_out() -> None:
    folders = [ROOT / folder for folder in (*development.WITH_ENGINE, *development.WITHOUT_ENGINE)]
    for path in (ROOT / "tests").rglob("test_*.py"):
        assert any(path.is_relative_to(folder) for folder in folders), path
