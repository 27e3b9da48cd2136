"""The pages for people: the reference is the code's, and every command in them is one that exists."""

from __future__ import annotations

import ast
import builtins
import functools
import re
from pathlib import Path

import pytest
from invoke.exceptions import ParseError
from invoke.program import Program
from pages import PAGES, ROOT, blocks, commands

from workflows import namespace
from workflows.reference import reference
from workflows.server_variables import SERVER_VARIABLES
from workflows.settings import SERVICE_PRINCIPAL
from workflows.settings_table import SETTINGS


def test_the_reference_is_what_the_code_says() -> None:
    assert (ROOT / "docs" / "reference.md").read_text(encoding="utf-8") == reference(), "stale: run `inv docs`"


@functools.cache
def program() -> Program:
    """Invoke, with the tasks loaded."""
    made = Program()
    made.create_config()
    made.parse_core(["inv", "--search-root", str(ROOT)])
    made.parse_collection()
    return made


def parse(typed: list[str]) -> None:
    """Read a command as Invoke does, without running it."""
    program().parse_core(["inv", "--search-root", str(ROOT), *typed])
    program().parse_tasks()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_has_a_task_and_flags_that_exist(page: Path) -> None:
    wrong = []
    for typed in commands(page):
        try:
            parse(typed[: typed.index("--")] if "--" in typed else typed)
        except ParseError as error:
            wrong.append(f"inv {' '.join(typed)}: {error}")
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_task_and_setting_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    tasks = {f"{name}.{task}" for name in namespace.collections for task in namespace.collections[name].task_names}
    named = re.findall(rf"`(?:inv )?((?:{'|'.join(namespace.collections)})\.[a-z-]+)[ `]", text)
    assert {name for name in named if not name.endswith(".yml")} - tasks == set()
    settings = {*(setting.variable for setting in SETTINGS), *SERVICE_PRINCIPAL, *SERVER_VARIABLES}
    assert set(re.findall(r"\b(?:AML|AZURE)_[A-Z_]*[A-Z]\b", text)) - settings == set()


#: A link of Markdown: what it leads to.
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """The parts of a page that links lead to, by the names that GitHub gives to headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[tuple[Path, str]]:
    """The files that a page links to, each with the part of it."""
    found = [link.partition("#") for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    return [((page.parent / file).resolve() if file else page, part) for file, _, part in found]


@pytest.mark.parametrize("page", [*PAGES, ROOT / "docs" / "reference.md"], ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    broken = [f"{file}#{part}" for file, part in links(page) if not file.exists()]
    broken += [f"{file}#{part}" for file, part in links(page) if part and part not in anchors(file)]
    assert broken == []


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    readme = ROOT / "README.md"
    assert len(readme.read_text(encoding="utf-8").splitlines()) <= 130
    found = {file for file, _part in links(readme)}
    nearly = {file for page in found if page.suffix == ".md" for file, _part in links(page)}
    assert set((ROOT / "docs").glob("*.md")) - found - nearly == set()


def test_a_command_that_does_not_exist_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("`inv --list`\n```\n$ inv deploy.debug --nowhere\nStop   inv deploy.halt\n```\n")
    assert commands(page) == [["deploy.debug", "--nowhere"], ["deploy.halt"], ["--list"]]
    for typed in commands(page)[:2]:
        with pytest.raises(ParseError):
            parse(typed)


def templates() -> list[re.Pattern[str]]:
    """Every text of the program's code, with anything in the place of its variable parts."""
    found = set()
    for path in (ROOT / "workflows").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [str(part.value) if isinstance(part, ast.Constant) else None for part in node.values]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                parts = [node.value]
            else:
                continue
            # One that is nothing but variable would fit any message.
            if len("".join(filter(None, parts))) >= 8 and "\n" not in "".join(filter(None, parts)):
                found.add("".join(".*" if part is None else re.escape(part) for part in parts))
    return [re.compile(pattern) for pattern in found]


def test_the_messages_in_troubleshooting_are_the_programs_own() -> None:
    known = templates()
    shown = [block.text.splitlines() for block in blocks(ROOT / "docs" / "troubleshooting.md")]
    messages = [lines for lines in shown if "error: " in lines[0]]
    assert len(messages) > 10
    for lines in messages:
        assert len(lines) == 2, lines
        for line in (lines[0].partition("error: ")[2], lines[1]):
            of_python = hasattr(builtins, line.partition(": ")[0])
            assert of_python or any(pattern.fullmatch(line) for pattern in known), line
