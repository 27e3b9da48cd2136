"""A failure in somebody else's code: the innermost line of the person's own is what is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from workflows.logs.own_line import find_own_line

OTHERS = "/usr/lib/python3/site-packages/sklearn/tree/_tree.pyx"


def traceback(*frames: tuple[str, int]) -> str:
    places = "".join(f'  File "{file}", line {line}, in here\n    call()\n' for file, line in frames)
    return f"Traceback (most recent call last):\n{places}ValueError: no\n"


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    folder.mkdir()
    for name in ("train.py", "model.py"):
        (folder / name).touch()
    return folder


def said(code: Path, text: str) -> tuple[Path, int] | None:
    log = code.parent / "std_log.txt"
    log.write_text(text)
    return find_own_line(log, [(str(code), "/mnt/azureml/code")])


def test_the_innermost_own_line_behind_another_ones(code: Path) -> None:
    seen = traceback(("/mnt/azureml/code/train.py", 9), ("/mnt/azureml/code/model.py", 4), (OTHERS, 12))
    assert said(code, f"epoch 1\n{seen}") == (code / "model.py", 4)


def test_nothing_is_named_where_the_innermost_line_is_ones_own_or_none_is(code: Path) -> None:
    assert said(code, traceback((OTHERS, 3), ("/mnt/azureml/code/train.py", 9))) is None
    assert said(code, traceback((OTHERS, 3))) is None
    assert said(code, "it ended\n") is None
    assert said(code, traceback(("/mnt/azureml/code/gone.py", 9), (OTHERS, 3))) is None


def test_of_several_tracebacks_the_last_counts(code: Path) -> None:
    first = traceback(("/mnt/azureml/code/model.py", 4), (OTHERS, 12))
    last = traceback(("/mnt/azureml/code/train.py", 7), (OTHERS, 1))
    text = f"{first}\nDuring handling of the above exception, another exception occurred:\n\n{last}"
    assert said(code, text) == (code / "train.py", 7)


def test_a_line_that_is_reached_by_a_link_is_that_of_the_file_behind_it(code: Path) -> None:
    work = code / "runs" / "work"
    work.mkdir(parents=True)
    (work / "train.py").symlink_to("../../train.py")
    text = traceback(("/mnt/azureml/code/runs/work/train.py", 9), (OTHERS, 12))
    assert said(code, text) == (code / "train.py", 9)
