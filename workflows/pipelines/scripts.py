"""Checks that the Python script which a command starts exists, if the command's text is certain about that."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..paths import exists
from .expressions import replace_expressions

_PYTHON = re.compile(r"python(\d(\.\d+)?)?")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
#: Programs that put no script into the working directory.
_HARMLESS = (
    "echo",
    "ls",
    "pwd",
    "env",
    "set",
    "export",
    "pip",
    "nvidia-smi",
    "date",
    "sleep",
    "hostname",
    "df",
    "free",
)
#: A longer command, in letters, is not checked: the time of shlex grows with the square of the length.
_LONGEST = 20_000
_UNCERTAIN = re.compile(r"[$`*?~{}<>|&()\x00]")


def missing_script(command: str, code: Path | None, includes: Sequence[Path] = ()) -> str | None:
    """The script that a command certainly starts and that is not in the code.

    Args:
        command: The command, with unresolved expressions.
        code: The source folder or file; None if the step has none.
        includes: Files and folders beside the code.

    Returns:
        The script as it is written in the command; None if it exists or nothing is certain.
    """
    if len(command) > _LONGEST:
        return None
    for words in _simple_commands(replace_expressions(command, lambda text: "$x")):
        while words and _ASSIGNMENT.match(words[0]):
            words = words[1:]
        if not words or words[0] in _HARMLESS:
            continue
        script = _script(words)
        if script is None:
            return None  # this command may have fetched or made files, or changed the folder
        if not _is_there(script, code) and not _is_included(script, includes):
            return script
        # The files that this script makes are not known either.
        return None
    return None


def _simple_commands(command: str) -> Iterator[list[str]]:
    text = command.replace("\\\n", " ").replace("\r\n", "\n").replace("$[[", " ").replace("]]", " ")
    lexer = shlex.shlex(text.strip().replace("\n", " ; "), posix=True, punctuation_chars=";&|()<>")
    lexer.whitespace_split = True
    words: list[str] = []
    try:
        for word in lexer:
            if word in (";", "&&"):
                yield words
                words = []
            else:
                words.append(word)
    except ValueError:
        return  # an open quote, perhaps the apostrophe of a comment
    yield words


def _script(words: list[str]) -> str | None:
    if not _PYTHON.fullmatch(words[0]):
        return None
    rest = iter(words[1:])
    for word in rest:
        if word in ("-W", "-X"):
            next(rest, None)
        elif word in ("-m", "-c", "-") or _UNCERTAIN.search(word):
            return None
        elif not word.startswith("-"):
            return word if word.endswith(".py") and not word.startswith("/") else None
    return None


def _is_there(script: str, code: Path | None) -> bool:
    if code is None:
        return False
    if not code.is_dir():
        return code.name == script.removeprefix("./")
    return exists(code / script)


def _is_included(script: str, includes: Sequence[Path]) -> bool:
    first = script.removeprefix("./").partition("/")[0]
    return any(path.name == first and exists(path.parent / script) for path in includes)
