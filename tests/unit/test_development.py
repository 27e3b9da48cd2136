"""The tasks of those who work on the program itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from workflows.tasks import development
from workflows.tasks._command import Command

ROOT = Path(__file__).resolve().parents[2]
#: A test that fails and would pass if it was tried again.
FAILS_ONCE = """import pathlib
def test_it():
    seen = pathlib.Path("seen")
    again = seen.exists()
    seen.touch()
    assert again"""


@pytest.mark.parametrize("path", [*development.EDITOR, *development.OTHERS, *development.QUICK])
def test_what_is_to_run_is_there(path: str) -> None:
    # pytest ignores nothing, and says nothing, where the name of what is to run apart is wrong.
    assert (ROOT / path).exists()


def test_tasks_for_developing_are_listed_in_a_collection_of_their_own_and_known_by_short_names() -> None:
    def inv(*words: str) -> str:
        command = [sys.executable, "-m", "invoke", *words]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout

    listed = set(inv("--list").split())
    assert {"dev.test", "dev.lint", "dev.docs", "dev.bench.pipeline"} <= listed
    assert not {"test", "lint", "docs", "bench.pipeline"} & listed
    for name in ("test", "dev.test", "bench.pipeline"):
        assert inv("--help", name).startswith("Usage: ")


@pytest.mark.parametrize("file", ["editor", "others"])
@pytest.mark.parametrize(
    ("source", "code"),
    [("def test_it(): pass", 0), (FAILS_ONCE, 1), ("def test_it(): assert False", 1), ("import no_such_module", 2)],
    ids=["passes", "fails once", "fails", "is broken"],
)
def test_one_failed_test_fails_the_run_and_is_not_tried_again(
    source: str, code: int, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("EDITOR", "OTHERS"):
        (tmp_path / f"test_{name.lower()}.py").write_text("def test_good(): pass\n")
        monkeypatch.setattr(development, name, (f"test_{name.lower()}.py",))
    # With one process, which is how the editor's tests run anyway.
    monkeypatch.setattr(development, "_parallel_options", list)
    (tmp_path / f"test_{file}.py").write_text(source + "\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    shown: list[str] = []
    run = SimpleNamespace(project=tmp_path, console=SimpleNamespace(line=shown.append))
    assert development._run_all(cast("Command", run)) == code
    # The output of the editor's tests is shown at the end, whole.
    assert (f"test_{file}.py" if file == "editor" else "test_editor.py") in "".join(shown)
