"""Parses Dockerfiles as the engine does.

The rules are those of the Dockerfile reference: parser directives, continuation lines, comments between them,
here-documents, flags before an instruction's arguments, ``ARG`` before the first ``FROM``, build stages.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_DIRECTIVE = re.compile(r"#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.+?)\s*$")
_HEREDOC = re.compile(r"^\d*<<(-?)([^<]*)$")
_TAKES_HEREDOC = frozenset({"RUN", "COPY", "ADD"})
_FLAG = re.compile(r"--[a-z][a-z-]*(?:=(?:\"[^\"]*\"|'[^']*'|\S)*)?(?=\s|$)")
_WORD = re.compile(r"(?:[^\s\"'\\]|\\.|\"(?:[^\"\\]|\\.)*\"|'[^']*')+", re.DOTALL)
_VARIABLE = re.compile(r"\$(?:\{(?P<braced>\w+)(?P<rest>:?[-+][^}]*)?\}|(?P<plain>\w+))")
#: ARGs that BuildKit sets itself (Dockerfile reference, "Automatic platform ARGs in the global scope").
_PLATFORM_ARGS = re.compile(r"\$\{?((?:BUILD|TARGET)(?:PLATFORM|OS|ARCH|VARIANT))\b")
_PLATFORM_NAMES = re.compile(r"(?:BUILD|TARGET)(?:PLATFORM|OS|ARCH|VARIANT)")
#: The flags that the classic builder knows.
_CLASSIC = {
    "FROM": ("platform",),
    "COPY": ("from", "chown"),
    "ADD": ("chown",),
    "HEALTHCHECK": ("interval", "timeout", "start-period", "retries"),
}


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        keyword: Its keyword, in capitals.
        flags: The flags before its arguments, such as ``--platform=linux/amd64``.
        rest: Its arguments, on one line.
        heredocs: The names of its here-documents.
        line: Its first line, counted from 1.
        last: Its last line, including its here-documents.
    """

    keyword: str
    flags: tuple[str, ...]
    rest: str
    heredocs: tuple[str, ...]
    line: int
    last: int

    def flag(self, name: str) -> str:
        """A flag's value; empty where it is not there or has none."""
        found = next((flag for flag in self.flags if flag.partition("=")[0] == f"--{name}"), "")
        return found.partition("=")[2].strip("\"'")


@dataclass(frozen=True)
class Dockerfile:
    """A parsed Dockerfile.

    Attributes:
        instructions: The instructions, in order.
        syntax: The frontend that ``# syntax=`` names; empty for none.
    """

    instructions: tuple[Instruction, ...]
    syntax: str = ""

    def has_argument(self, name: str) -> bool:
        """Whether an ``ARG`` declares a name."""
        return any(
            re.match(r"\w+", word) and word.partition("=")[0] == name
            for one in self.instructions
            if one.keyword == "ARG"
            for word in _WORD.findall(one.rest)
        )

    def external_images(self, arguments: Mapping[str, str]) -> list[str]:
        """The images that it begins with or copies from, without its own stages.

        Args:
            arguments: The ARGs of the build.

        Returns:
            Their names, without those that use a variable that is not set.
        """
        values, stages, found = dict[str, str](), list[str](), list[str]()
        in_front = True
        for one in self.instructions:
            if one.keyword == "ARG" and in_front:
                for word in _WORD.findall(one.rest):
                    name, equals, value = word.partition("=")
                    if name in arguments or equals:
                        values[name] = arguments.get(name, _expanded(_unquoted(value), values) or "")
            elif one.keyword == "FROM":
                in_front = False
                words = one.rest.split()
                if words:
                    found.append(_expanded(words[0], values) or "")
                    if found[-1].lower() in stages:
                        found.pop()
                stages.append(words[2].lower() if len(words) > 2 and words[1].lower() == "as" else "")
            for name in _copied_from(one):
                if not name.isdecimal() and name.lower() not in stages and "$" not in name:
                    found.append(name)
        return [name for name in dict.fromkeys(found) if name and name != "scratch"]

    def needs_buildkit(self) -> tuple[Instruction, str] | None:
        """The first instruction that the classic builder does not support, and the part it lacks; None without any."""
        for outer in self.instructions:
            one = _triggered(outer)
            if one.heredocs:
                return outer, f"{one.keyword} <<{one.heredocs[0]}"
            for flag in one.flags:
                name = flag.partition("=")[0]
                if name.removeprefix("--") not in _CLASSIC.get(one.keyword, ()):
                    return outer, f"{one.keyword} {name}"
            if one.keyword == "ARG" and _PLATFORM_NAMES.fullmatch(one.rest.strip()):
                return outer, f"ARG {one.rest.strip()}"
            used = _PLATFORM_ARGS.search(f"{' '.join(one.flags)} {one.rest}") if one.keyword == "FROM" else None
            if used is not None:
                return outer, f"FROM with ${used[1]}"
        return None


def parse(text: str) -> Dockerfile:
    """Parse a Dockerfile; one that the engine would refuse is parsed as far as possible."""
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    directives = _directives(lines)
    escape = "`" if directives.get("escape") == "`" else "\\"
    return Dockerfile(tuple(_instructions(lines, escape)), directives.get("syntax", ""))


def _directives(lines: list[str]) -> dict[str, str]:
    found = dict[str, str]()
    for line in lines:
        match = _DIRECTIVE.match(line.strip())
        # The first other line ends them, even if it is a comment or empty.
        if match is None or match[1].lower() in found:
            break
        found[match[1].lower()] = match[2]
    return found


def _instructions(lines: list[str], escape: str) -> Iterator[Instruction]:
    goes_on = re.compile(rf"{re.escape(escape)}[ \t]*$")
    number = 0
    while number < len(lines):
        first = number
        text = lines[number].strip()
        number += 1
        if not text or text.startswith("#"):
            continue
        while goes_on.search(text):
            text = goes_on.sub("", text)
            # Comments and empty lines between them do not count.
            while number < len(lines) and (not lines[number].strip() or lines[number].lstrip().startswith("#")):
                number += 1
            if number >= len(lines):
                break
            text += lines[number].rstrip()
            number += 1
        keyword, _, rest = text.partition(" ") if " " in text else text.partition("\t")
        flags, rest = _flags(rest.strip())
        keyword = keyword.upper()
        takes = keyword if keyword != "ONBUILD" else rest.partition(" ")[0].upper()
        heredocs = tuple(_heredocs(rest)) if takes in _TAKES_HEREDOC else ()
        for chomp, name in heredocs:
            while number < len(lines):
                line = lines[number].lstrip("\t") if chomp else lines[number]
                number += 1
                if line == name:
                    break
        yield Instruction(keyword, flags, rest, tuple(name for _, name in heredocs), first + 1, number)


def _flags(text: str) -> tuple[tuple[str, ...], str]:
    found = list[str]()
    while match := _FLAG.match(text):
        found.append(match.group())
        text = text[match.end() :].lstrip()
    return tuple(found), text


def _heredocs(text: str) -> Iterator[tuple[bool, str]]:
    """The here-documents of an instruction: whether leading tabs are removed, and the word that ends each."""
    if text.startswith("["):
        return
    for word in _WORD.findall(text):
        match = _HEREDOC.match(word)
        name = _unquoted(match[2]) if match is not None else ""
        if match is not None and name:
            yield match[1] == "-", name


def _triggered(one: Instruction) -> Instruction:
    """The instruction inside an ONBUILD; any other instruction as it is."""
    if one.keyword != "ONBUILD":
        return one
    keyword, _, rest = one.rest.partition(" ")
    flags, rest = _flags(rest.strip())
    return Instruction(keyword.upper(), flags, rest, one.heredocs, one.line, one.last)


def _copied_from(one: Instruction) -> Iterator[str]:
    if one.keyword == "COPY":
        yield from filter(None, [one.flag("from")])
    elif one.keyword == "RUN":
        for flag in one.flags:
            name, _, value = flag.partition("=")
            parts = dict(part.partition("=")[::2] for part in value.strip("\"'").split(","))
            if name == "--mount" and parts.get("from"):
                yield parts["from"]


def _expanded(text: str, values: Mapping[str, str]) -> str | None:
    """A word with its variables replaced; None where one of them is not set."""
    missing = False

    def replace(match: re.Match[str]) -> str:
        nonlocal missing
        name, rest = match["braced"] or match["plain"], match["rest"] or ""
        value = values.get(name)
        operator, word = rest.lstrip(":")[:1], rest.lstrip(":")[1:]
        is_set = value is not None and (value != "" or not rest.startswith(":"))
        if operator == "-":
            return str(value) if is_set else word
        if operator == "+":
            return word if is_set else ""
        missing = missing or value is None
        return value or ""

    found = _VARIABLE.sub(replace, text)
    return None if missing else _unquoted(found)


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    return text


def shell_command(one: Instruction) -> str:
    """The command of a RUN, in its shell form or its exec form (a JSON list)."""
    try:
        words = json.loads(one.rest) if one.rest.startswith("[") else None
    except ValueError:
        words = None
    return " ".join(map(str, words)) if isinstance(words, list) else one.rest
