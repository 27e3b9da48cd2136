"""The tasks of those who work on the program itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from workflows.tasks import development
from workflows.tasks._command import Command

ROOT = Path(__file__).resolve().parents[2]


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


def test_what_failed_in_one_process_or_in_several_is_known_by_name_to_the_second_run(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(
        "import pytest\n@pytest.mark.parametrize('word', ['good', 'bad [1] word'])\n"
        "def test_a_word(word): assert word == 'good'\ndef test_other(): pass\n"
    )
    record = tmp_path / "notes"
    run = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(tmp_path)]
    for name, several in {"first": [], "second": ["-n", "2"]}.items():
        noting = [*development._cache_option(record / name), *several, "test_some.py"]
        assert subprocess.run([*run, *noting], cwd=tmp_path, check=False, timeout=120).returncode == 1
    failed = development.read_failures(record)
    assert failed == ["test_some.py::test_a_word[bad [1] word]"] * 2
    once_more = subprocess.run([*run, failed[0]], cwd=tmp_path, check=False, timeout=120, stdout=subprocess.PIPE)
    assert once_more.returncode == 1 and b"1 failed" in once_more.stdout and b"passed" not in once_more.stdout


@pytest.mark.parametrize(
    ("word", "code"), [("good", 0), ("unlucky", 0), ("bad", 1), ("broken", 2)], ids=lambda value: str(value)
)
def test_a_test_that_fails_beside_others_alone_decides(
    word: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("EDITOR", "OTHERS"):
        (tmp_path / f"test_{name.lower()}.py").write_text("def test_good(): pass\n")
        monkeypatch.setattr(development, name, (f"test_{name.lower()}.py",))
    # Workers of pytest's note failures as it does itself, which the test above tries.
    monkeypatch.setattr(development, "_parallel_options", list)
    source = {
        "good": "def test_it(): pass",
        "unlucky": "import pathlib\ndef test_it():\n    seen = pathlib.Path('seen')\n"
        "    again = seen.exists()\n    seen.touch()\n    assert again",
        "bad": "def test_it(): assert False",
        "broken": "import nothing_of_this_name",
    }
    (tmp_path / "test_others.py").write_text(source[word] + "\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    said: list[str] = []
    run = SimpleNamespace(project=tmp_path, console=SimpleNamespace(line=said.append))
    assert development._run_all(cast("Command", run)) == code
    assert any("passed alone" in line for line in said) == (word == "unlucky")
    assert any("test_others.py::test_it" in line for line in said) == (word == "unlucky")
