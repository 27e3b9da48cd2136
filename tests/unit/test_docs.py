"""The pages for people: the reference is the code's, and every command in them is one that exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from invoke.exceptions import ParseError
from invoke.program import Program
from pages import PAGES, ROOT, commands

from workflows import namespace
from workflows.reference import reference
from workflows.settings import SERVICE_PRINCIPAL, SETTINGS


def test_the_reference_is_what_the_code_says() -> None:
    assert (ROOT / "docs" / "reference.md").read_text(encoding="utf-8") == reference(), "stale: run `inv docs`"


def parse(typed: list[str]) -> None:
    """Read a command as Invoke does, without running it."""
    program = Program()
    program.create_config()
    program.parse_core(["inv", "--search-root", str(ROOT), *typed])
    program.parse_collection()
    program.parse_tasks()


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
    settings = {*(setting.variable for setting in SETTINGS), *SERVICE_PRINCIPAL}
    assert set(re.findall(r"\b(?:AML|AZURE)_[A-Z_]*[A-Z]\b", text)) - settings == set()


def test_a_command_that_does_not_exist_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("`inv --list`\n```\n$ inv deploy.debug --nowhere\nStop   inv deploy.halt\n```\n")
    assert commands(page) == [["deploy.debug", "--nowhere"], ["deploy.halt"], ["--list"]]
    for typed in commands(page)[:2]:
        with pytest.raises(ParseError):
            parse(typed)
