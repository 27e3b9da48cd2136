"""Reads an MLTable file: which files a table consists of, and how they are read.

https://learn.microsoft.com/azure/machine-learning/reference-yaml-mltable. Only those transformations
are applied that define how files are read and which columns are kept; the names of others are returned.
"""

from __future__ import annotations

import glob
import os
import re
from typing import Any, Dict, Iterator, List, Tuple

from .problems import Problem

NAME = "MLTable"
#: Transformations that define how files are read, each with its kind of file.
READERS = {"read_delimited": "delimited", "read_parquet": "parquet", "read_json_lines": "json_lines"}
#: Transformations that read a file's keys from its path.
_FORMATS = ("extract_columns_from_partition_format", "extract_partition_format_into_columns")


class Table:
    """The contents of an MLTable file.

    Args:
        paths: The files, absolute, in order.
        reader: How they are read; empty if they are passed on as files.
        options: The reader's own options.
        columns: Columns to keep, and columns to leave out.
        pattern: The pattern of the keys in a file's path; empty if there is none.
        unknown: Transformations that are not applied.
    """

    def __init__(
        self,
        paths: List[str],
        reader: str = "",
        options: "Dict[str, Any] | None" = None,
        columns: "Tuple[List[str], List[str]]" = ([], []),
        pattern: str = "",
        unknown: Tuple[str, ...] = (),
    ) -> None:
        self.paths, self.reader, self.options = paths, reader, options or {}
        self.keep, self.drop = columns
        self.pattern, self.unknown = pattern, unknown

    def keys(self, path: str) -> Dict[str, Any]:
        """The keys in a file's path, by the table's pattern and from folders such as ``Store=2``."""
        found: Dict[str, Any] = {}
        if self.pattern:
            names = re.findall(r"\{([A-Za-z_]\w*)[^}]*\}", self.pattern)
            parts = re.split(r"\{[A-Za-z_]\w*[^}]*\}", self.pattern.strip("/"))
            match = re.search("([^/]+?)".join(re.escape(part) for part in parts) + "$", path)
            if match:
                found = dict(zip(names, match.groups()))
        for part in path.split("/")[:-1]:
            name, equals, value = part.partition("=")
            if equals and name.isidentifier():
                found.setdefault(name, value)
        return {name: parse_value(value) for name, value in found.items()}


def parse_value(text: str) -> Any:
    """A key's value: a number if it has the form of one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def read(folder: str) -> Table:
    """Read the MLTable file of a folder.

    Raises:
        Problem: There is none, or it cannot be read.
    """
    file = os.path.join(folder, NAME) if os.path.isdir(folder) else folder
    if not os.path.isfile(file):
        raise Problem(
            "The input {} is of type mltable and has no file called {}.".format(folder, NAME),
            "Add one, or give the input as uri_folder.",
        )
    try:
        with open(file, encoding="utf-8-sig") as opened:
            content = _parse_yaml(opened.read())
    except (OSError, ValueError) as error:
        raise Problem("{} cannot be read: {}.".format(file, error), "Correct it.") from error
    if not isinstance(content, dict):
        raise Problem("{} is not an MLTable file.".format(file), "Write `paths:` into it.")
    reader, options, pattern = "", {}, ""  # type: str, Dict[str, Any], str
    keep: List[str] = []
    drop: List[str] = []
    unknown = []
    for name, value in _transformations(content, file):
        if name in READERS:
            reader, options = READERS[name], value if isinstance(value, dict) else {}
        elif name == "keep_columns":
            keep = _names(value)
        elif name == "drop_columns":
            drop += _names(value)
        elif name in _FORMATS:
            pattern = str(value.get("partition_format", "") if isinstance(value, dict) else value)
        else:
            unknown.append(name)
    named = content.get("paths") or []
    if not isinstance(named, list):
        raise Problem("`paths` of {} is not a list.".format(file), "Write `- file: ./data.csv` lines under it.")
    paths = [path for entry in named for path in _files(entry, os.path.dirname(file), file)]
    return Table(paths, reader, options, (keep, drop), pattern, tuple(unknown))


def _transformations(content: Dict[str, Any], file: str) -> Iterator[Tuple[str, Any]]:
    listed = content.get("transformations") or []
    for entry in listed if isinstance(listed, list) else [None]:
        if isinstance(entry, str):
            yield entry, {}
        elif isinstance(entry, dict):
            for name, value in entry.items():
                yield str(name), value
        else:
            raise Problem("A transformation in {} is not a mapping.".format(file), "Write `- read_delimited:`.")


def _names(value: Any) -> List[str]:
    if isinstance(value, dict):
        value = value.get("columns", value.get("column", []))
    return [str(one) for one in (value if isinstance(value, list) else [value])]


def _files(entry: Any, folder: str, file: str) -> List[str]:
    if not isinstance(entry, dict):
        entry = {"file": entry}
    for kind, named in entry.items():
        text = str(named)
        if re.match(r"[a-z][a-z0-9+.-]+:", text) and not text.startswith("file:"):
            raise Problem("{} names {}, which is not on this machine.".format(file, text), "Name files beside it.")
        path = os.path.normpath(os.path.join(folder, text[len("file://") :] if text.startswith("file://") else text))
        if kind == "pattern":
            return sorted(one for one in glob.glob(path, recursive=True) if os.path.isfile(one))
        if not os.path.exists(path):
            raise Problem("{} names {}, which does not exist.".format(file, text), "Correct the path.")
        return list(walk_files(path))
    return []


def walk_files(path: str) -> Iterator[str]:
    """The files below a folder, or the file itself, in order; one folder is read at a time."""
    if not os.path.isdir(path):
        yield path
        return
    waiting, links = [path], set()
    while waiting:
        with os.scandir(waiting.pop()) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        folders = []
        for entry in entries:
            if not os.path.isdir(entry.path):
                # A broken link counts as a file that cannot be read, so that `run()` gets it.
                yield entry.path
            elif not entry.is_symlink():
                folders.append(entry.path)
            else:
                real = os.path.realpath(entry.path)
                # A link to a parent folder would lead to endless recursion.
                if real not in links and not os.path.join(os.path.realpath(path), "").startswith(
                    os.path.join(real, "")
                ):
                    links.add(real)
                    folders.append(entry.path)
        waiting += reversed(folders)


def _parse_yaml(text: str) -> Any:
    """Parse YAML; without PyYAML only the subset that MLTable files usually contain."""
    try:
        import yaml
    except ImportError:
        return _BlockParser(text).value()
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


class _BlockParser:
    """Parses mappings, lists and scalars in block style.

    Args:
        text: The file's text.
    """

    def __init__(self, text: str) -> None:
        lines = [re.sub(r"(^|\s)#.*$", "", line).rstrip() for line in text.splitlines()]
        self._lines = [(len(line) - len(line.lstrip()), line.strip()) for line in lines if line.strip(" -")]
        self._position = 0

    def value(self) -> Any:
        """The value of the complete text."""
        return self._block(self._lines[0][0]) if self._lines else None

    def _block(self, indent: int) -> Any:
        listed: List[Any] = []
        named: Dict[str, Any] = {}
        while self._position < len(self._lines):
            depth, line = self._lines[self._position]
            if depth < indent:
                break
            if line.startswith("- ") or line == "-":
                rest = line[1:].strip()
                inner = depth + len(line) - len(rest)
                if ":" in rest and not rest.startswith(("'", '"', "[", "{")):
                    self._lines[self._position] = (inner, rest)
                    listed.append(self._block(inner))
                else:
                    self._position += 1
                    listed.append(_scalar(rest))
                continue
            if listed:
                break
            name, colon, rest = line.partition(":")
            if not colon:
                raise ValueError("`{}` is not understood without PyYAML".format(line))
            self._position += 1
            following = self._lines[self._position] if self._position < len(self._lines) else (-1, "")
            deeper = following[0] > depth or (following[0] == depth and following[1].startswith("-"))
            named[name.strip().strip("'\"")] = (
                _scalar(rest.strip()) if rest.strip() or not deeper else self._block(following[0])
            )
        return listed or named


def _scalar(text: str) -> Any:
    if text[:1] in ("'", '"') and text[-1:] == text[:1]:
        return text[1:-1].replace("\\t", "\t") if text[0] == '"' else text[1:-1]
    if text.startswith("[") and text.endswith("]"):
        return [_scalar(part.strip()) for part in text[1:-1].split(",") if part.strip()]
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    return None if text in ("", "null", "~") else parse_value(text)
