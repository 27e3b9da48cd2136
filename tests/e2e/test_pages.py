"""The pages of the stories, followed by somebody who begins with an empty folder."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import ROOT, blocks

#: What every story page has to bring a reader to.
STORIES = {
    "deployment": ("deploy.debug", "deploy.inspect", "deploy.reload", "container.stop"),
    "pipeline": ("pipeline.debug", "pipeline.inspect", "pipeline.tail-log", "pipeline.status"),
    "parallel": ("pipeline.debug", "pipeline.inspect"),
    "experiment": ("experiment.debug", "experiment.inspect", "experiment.logs", "experiment.run"),
}
ENDS = ("container.stop", "pipeline.cancel", "experiment.cancel")


class Reader:
    """Somebody with an empty folder, who types what a page says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.environ = {**os.environ, "AML_ENGINE": "process", "AML_SCORING_PORT": "0", "AML_DEBUG_PORT": "0"}
        self.typed: list[str] = []

    def write(self, name: str, text: str) -> None:
        """Make a file of the page."""
        if name == "tasks.py":
            # In place of an installed program, this one.
            text = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{text}"
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text(text, encoding="utf-8")

    def type(self, line: str) -> str:
        """Type a command of the page, which has to work; all that it shows."""
        program, *words = shlex.split(line)
        assert program == "inv", line
        self.typed.append(words[0])
        done = self.run(words)
        assert done.returncode == 0, f"{line}\n{done.stdout}"
        return done.stdout

    def run(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "invoke", *words],
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
        )


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    made = Reader(tmp_path / "a project")
    yield made
    for task in ENDS:
        made.run([task])


@pytest.mark.parametrize("story", STORIES)
def test_a_page_followed_from_top_to_bottom_does_what_it_says(reader: Reader, story: str) -> None:
    shown = ""
    for block in blocks(ROOT / "docs" / f"{story}.md"):
        if block.file:
            reader.write(block.file, block.text)
        elif block.language == "sh":
            shown = "".join(reader.type(line) for line in block.text.splitlines())
        elif block.language == "text":
            for line in block.text.splitlines():
                assert line in shown
    assert set(STORIES[story]) <= set(reader.typed)
