"""Reads pip's requirement files, with the file and line of every requirement.

The rules are those of "Requirements File Format" in pip's documentation (comments, line continuations, ``-r`` and
``-c`` relative to the file that names them). Local paths are relative to that file as well, or to the definition's
folder, where conda runs pip.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UserError
from ..paths import exists
from ..reading import line_at, read_bytes

_INCLUDE = re.compile(r"^(?:(-r|--requirement)|(-c|--constraint))(?:\s*=\s*|\s+|(?<=-r)|(?<=-c))(?P<path>.+)$")
_EDITABLE = re.compile(r"^(?:-e|--editable)(?:\s*=\s*|\s+)(?P<target>.+)$")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_EGG = re.compile(r"[#&]egg=([A-Za-z0-9._-]+)")
_FIND_LINKS = re.compile(r"^(?:-f|--find-links)(?:\s*=\s*|\s+)(?P<path>.+)$")
_COMMENT = re.compile(r"(?:^|\s)#.*$")
# Without the look-behind, a long run of spaces would take quadratic time.
_HASH = re.compile(r"(?<!\s)\s+--hash[= ]\S+")
#: Levels of `-r` in files that `-r` names.
_MOST_INCLUDES = 50


def normalise(name: str) -> str:
    """A project's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


@dataclass(frozen=True)
class Requirement:
    """One requirement and where it is written.

    Attributes:
        text: The line as pip reads it, without comment; for a local path only what follows the path.
        name: Normalised name of the project, empty where the line has none.
        file: The file that names it; None where this program added it.
        line: Its line, counted from 1.
        local: The file or folder of a local requirement.
        editable: True for ``-e``.
    """

    text: str
    name: str
    file: Path | None = None
    line: int = 0
    local: Path | None = None
    editable: bool = False

    def render(self, place: str | None = None, *, editable: bool = True, hashes: bool = True) -> str:
        """The line for a plain requirements file.

        Args:
            place: The path of a local requirement as pip will see it; by default its path on this machine.
            editable: Whether ``-e`` may stay.
            hashes: Whether ``--hash`` options stay.
        """
        text = self.text if hashes else _HASH.sub("", self.text)
        if self.local is not None:
            text = f"{place or self.local}{text}"
        return f"-e {text}" if self.editable and editable else text


@dataclass
class PipLines:
    """The contents of requirement files.

    Attributes:
        requirements: The requirements, in order.
        constraints: Lines of the files named by ``-c``.
        limits: The constraints, parsed, with their places.
        options: Lines such as ``--extra-index-url …``.
        files: Requirement and constraint files that were read.
    """

    requirements: list[Requirement] = field(default_factory=list)
    constraints: list[str] = field(default_factory=list)
    limits: list[Requirement] = field(default_factory=list)
    options: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)


def parse_requirement(text: str) -> Requirement:
    """Parse a requirement of this program, such as ``debugpy>=1.8``."""
    return Requirement(text, normalise(_name(text)))


def strip_comment(text: str) -> str:
    """A line without its comment and surrounding spaces."""
    return _COMMENT.sub("", text).strip()


def _name(text: str) -> str:
    """The project's name at the beginning of a requirement; empty for a path, an address, and anything else."""
    match = _NAME.match(text)
    if match is None or text[match.end() : match.end() + 1] in ("/", "\\", ":"):
        return ""
    return match.group().rstrip("._-")


def read_line(lines: PipLines, text: str, *, file: Path, line: int, folder: Path) -> None:
    """Add one line to ``lines``; files that it includes are read as well.

    Args:
        lines: Gets the result.
        text: The line, without comment and continuation.
        file: The file that has the line.
        line: The line's number, counted from 1.
        folder: The definition's folder.

    Raises:
        UserError: A file or folder that the line names is missing or cannot be read.
    """
    _read_line(lines, text, file, line, folder, ())


def _read_line(lines: PipLines, text: str, file: Path, line: int, folder: Path, parents: tuple[Path, ...]) -> None:
    include = _INCLUDE.match(text)
    if include is not None:
        _include(lines, include, file, line, folder, parents)
        return
    links = _FIND_LINKS.match(text)
    if links is not None and "://" not in links["path"]:
        # In quotes: pip and this program split the line as a shell does.
        place = shlex.quote(str(_existing_path(links["path"], file, line, folder)))
        lines.options.append(f"--find-links {place}")
        return
    editable = _EDITABLE.match(text)
    if text.startswith("-") and editable is None:
        lines.options.append(text)
        return
    target = editable["target"] if editable is not None else text
    local = _parse_local(target, file, line, folder)
    if local is not None:
        path, rest = local
        name = path.name.partition("-")[0] if path.suffix == ".whl" else ""
        lines.requirements.append(Requirement(rest, normalise(name), file, line, path, editable is not None))
        return
    egg = _EGG.search(target)
    name = egg.group(1) if egg else _name(target)
    lines.requirements.append(Requirement(target, normalise(name), file, line, editable=editable is not None))


def _include(
    lines: PipLines,
    include: re.Match[str],
    file: Path,
    line: int,
    folder: Path,
    parents: tuple[Path, ...],
) -> None:
    is_constraint = include.group(2) is not None
    target = include["path"].strip().strip("\"'")
    if "://" in target:  # pip downloads these itself; their contents are not known here
        lines.options.append(f"{'-c' if is_constraint else '-r'} {target}")
        return
    path = _resolve(file.parent / target)
    if path is None:
        raise UserError(f"{target} cannot be a file's name.", "Correct that line.", file=file, line=line)
    if len(parents) > _MOST_INCLUDES:
        problem = f"More than {_MOST_INCLUDES} requirements files include one another."
        raise UserError(problem, "Put their lines into one.", file=file, line=line)
    if path in (file.resolve(), *parents):
        raise UserError(f"{path.name} includes itself.", "Remove that line.", file=file, line=line)
    if path in lines.files:
        return
    if exists(path) and not path.is_file():
        raise UserError(f"{target} is not a regular file.", "Correct that line.", file=file, line=line)
    if not exists(path):
        raise UserError(
            f"The requirements file {target} does not exist.",
            f"Create {path}, or correct that line.",
            file=file,
            line=line,
        )
    lines.files.append(path)
    into = PipLines(files=lines.files) if is_constraint else lines
    for number, text in logical_lines(path):
        _read_line(into, text, path, number, folder, (*parents, path))
    if is_constraint:
        lines.constraints += [item.render() for item in into.requirements] + into.constraints
        lines.limits += into.requirements + into.limits


def logical_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a requirements file, without comments and with continuations joined.

    Yields:
        The number of the first physical line, counted from 1, and the text.

    Raises:
        UserError: The file cannot be read or is not UTF-8.
    """
    start, parts = 0, list[str]()
    for number, raw in enumerate(read_text(path).splitlines(), 1):
        start = start or number
        is_comment = raw.lstrip().startswith("#")
        if raw.endswith("\\") and not is_comment:
            parts.append(raw[:-1])
            continue
        parts.append(" " + raw if is_comment else raw)
        text = strip_comment("".join(parts))
        if text:
            yield start, text
        start, parts = 0, []
    text = strip_comment("".join(parts))
    if text:
        yield start, text


def read_text(path: Path) -> str:
    """The text of a definition's file.

    Raises:
        UserError: It cannot be read or is not UTF-8.
    """
    try:
        data = read_bytes(path)
    except OSError as error:
        raise UserError(f"{path.name} cannot be read: {error.strerror}.", "Make it readable.", file=path) from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = line_at(error.object, error.start)
        raise UserError(f"{path.name} is not UTF-8.", "Save it as UTF-8.", file=path, line=line) from error


def _parse_local(target: str, file: Path, line: int, folder: Path) -> tuple[Path, str] | None:
    """The path of a local requirement and the text after it; None for any other requirement."""
    body, mark, marker = target.partition(";")
    # A semicolon is legal in paths, but pip also reads it as the start of a marker.
    rest = f" {mark}{marker}" if mark else ""
    body, option, options = body.strip().partition(" --")
    rest = (f" --{options}" if option else "") + rest
    body = body.strip()
    if " @ " in body:
        body = body.partition(" @ ")[2].strip()
        if not body.startswith("file:"):
            return None
    if body.startswith("file:"):
        from urllib.parse import unquote, urlsplit  # 8 ms that hardly any definition needs
        from urllib.request import url2pathname

        try:
            path = url2pathname(unquote(urlsplit(body).path))
        except ValueError as error:
            raise UserError(
                f"{body} is not an address: {error}.", "Correct that line.", file=file, line=line
            ) from error
        return _check_installable(_existing_path(path, file, line, folder), body, file, line), rest
    if not body or "://" in body:
        return None
    path, extras = _without_extras(body)
    if not (path.startswith(".") or "/" in path or "\\" in path or path.endswith((".whl", ".zip", ".tar.gz"))):
        return None
    return _check_installable(_existing_path(path, file, line, folder), body, file, line), extras + rest


def _check_installable(path: Path, text: str, file: Path, line: int) -> Path:
    """Check that pip can install a path before its files are read, which might be a complete disk; the same path."""
    if path.is_dir() and not any(exists(path / name) for name in ("pyproject.toml", "setup.py")):
        problem = f"{text} is not a Python project: it has neither pyproject.toml nor setup.py."
        raise UserError(problem, "Correct that line.", file=file, line=line)
    return path


def _without_extras(body: str) -> tuple[str, str]:
    """A path, and the `[extras]` after it."""
    if not body.endswith("]"):
        return body, ""
    start = body.find("[", max(1, body.rfind("]", 0, len(body) - 1) + 1))
    return (body[:start].strip(), body[start:]) if start != -1 else (body, "")


def _resolve(path: Path) -> Path | None:
    """The absolute path; None for an impossible one: with a name that is too long, a NUL, or circular links."""
    try:
        return path.resolve()
    except (OSError, ValueError, RuntimeError):
        return None


def _existing_path(text: str, file: Path, line: int, folder: Path) -> Path:
    for start in (file.parent, folder):
        path = _resolve(start / text.strip().strip("\"'"))
        if path is not None and exists(path):
            return path
    raise UserError(f"{text} does not exist.", "Correct that line.", file=file, line=line)
