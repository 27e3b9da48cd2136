"""The pages for people as the tests read them: their blocks of code, and the commands in them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: Those whose commands are looked at; the reference is written from the code.
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(page for page in (ROOT / "docs").glob("*.md") if page.name != "reference.md"),
]
_FENCE = re.compile(r"^```(\w*)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: A command inside a line of a block: behind a prompt, a description, `&&`, or at the line's begin.
_IN_BLOCK = re.compile(r"(?:^|\s)inv ((?:[a-z]|-).*)$")
_IN_TEXT = re.compile(r"`inv ([^`]+)`")


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        language: What stands behind its fence; empty for none.
        file: The file that it is the content of, as the second word there; empty for none.
        text: What is in it.
    """

    language: str
    file: str
    text: str


def blocks(page: Path) -> list[Block]:
    """The blocks of a page in their order."""
    return [Block(*found) for found in _FENCE.findall(page.read_text(encoding="utf-8"))]


def commands(page: Path) -> list[list[str]]:
    """What is typed after `inv`, of every command of a page, in blocks and in the text."""
    text = page.read_text(encoding="utf-8")
    shown = [block for block in blocks(page) if block.language != "mermaid"]
    lines = [line for block in shown for line in block.text.splitlines() if "error: " not in line]
    found = [typed for line in lines for typed in _IN_BLOCK.findall(line)]
    found += _IN_TEXT.findall(_FENCE.sub("", text).replace("\n  ", " "))
    return [shlex.split(typed, comments=True) for typed in found]
