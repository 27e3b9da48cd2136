"""Whether the Python script that a command starts is there, where that can be told from the text."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..paths import exists
from .expressions import without_expressions

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
#: Letters of a command above which it is not looked through: shlex takes a time that grows with their square.
_LONGEST = 20_000
_UNCERTAIN = re.compile(r"[$`*?~{}<>|&()\x00]")


def missing_script(command: str, code: Path | None, includes: Sequence[Path] = ()) -> str | None:
    """The script that a command certainly starts and that is not in the code.

    Args:
        command: With its expressions still in.
        code: The source folder or file; None where the step has none.
        includes: What lies beside it.

    Returns:
        The script as it stands in the command; None where it is there or nothing is certain.
    """
    if len(command) > _LONGEST:
        return None
    for words in _simple_commands(without_expressions(command, lambda text: "$x")):
        while words and _ASSIGNMENT.match(words[0]):
            words = words[1:]
        if not words or words[0] in _HARMLESS:
            continue
        script = _script(words)
        if script is None:
            return None  # from here on anything may have been fetched, made, or left by `cd`
        if not _is_there(script, code) and not _is_included(script, includes):
            return script
        # What a script of theirs leaves behind is not known either.
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
        return  # a quote that is not closed, perhaps a comment's apostrophe
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
