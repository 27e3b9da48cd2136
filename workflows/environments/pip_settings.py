"""Reads the user's settings of pip, as pip reads them.

The rules are those of pip's documentation, "Configuration": the machine's files, then the user's, then that of the
environment in which pip runs, then the file that PIP_CONFIG_FILE names; in each the section ``[global]`` before the
command's own; then variables ``PIP_…``. A later value replaces an earlier one. Options in a requirements file add to
the indexes or replace them.
"""

from __future__ import annotations

import configparser
import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UserError
from .requirements import normalise

#: Other names of the same options.
_ALIASES = {
    "pypi-url": "index-url",
    "default-timeout": "timeout",
    "no-dependencies": "no-deps",
    "use-wheel": "",
    "c": "constraint",
    "f": "find-links",
    "i": "index-url",
    "r": "requirement",
}
#: Options that take several values, separated by blanks.
_LISTS = frozenset(
    {
        "build-constraint",
        "config-settings",
        "constraint",
        "editable",
        "extra-index-url",
        "find-links",
        "global-option",
        "group",
        "requirement",
        "trusted-host",
        "use-deprecated",
        "use-feature",
    }
)
_TRUE, _FALSE = frozenset({"y", "yes", "t", "true", "on", "1"}), frozenset({"n", "no", "f", "false", "off", "0"})
_VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")


@dataclass
class Formats:
    """Which packages may come only as wheels, and which only as source: names, or ``:all:``."""

    no_binary: set[str] = field(default_factory=set)
    only_binary: set[str] = field(default_factory=set)

    def apply(self, name: str, value: str) -> None:
        """Apply one value of ``--no-binary`` or ``--only-binary``; each cancels the other for a package."""
        target, other = self.no_binary, self.only_binary
        if name == "only-binary":
            target, other = other, target
        for item in filter(None, (part.strip() for part in value.split(","))):
            if item == ":none:":
                target.clear()
            elif item == ":all:":
                other.clear()
                target.clear()
                target.add(item)
            else:
                other.discard(normalise(item))
                target.add(normalise(item))


@dataclass
class PipSettings:
    """The settings of pip.

    Attributes:
        values: The values of options by their long names, without dashes; flags are ``true`` or ``false``.
        formats: The result of all ``no-binary`` and ``only-binary``.
    """

    values: dict[str, tuple[str, ...]] = field(default_factory=dict)
    formats: Formats = field(default_factory=Formats)

    def all(self, name: str) -> tuple[str, ...]:
        """Every value of an option; none where it is not set."""
        return self.values.get(name, ())

    def last_value(self, name: str) -> str:
        """An option's last value; empty where it is not set."""
        return (self.all(name) or ("",))[-1]

    def flag(self, name: str) -> bool:
        """Whether a flag is set.

        Raises:
            UserError: Its value is neither yes nor no.
        """
        text = self.last_value(name).lower()
        if text and text not in _TRUE | _FALSE:
            raise UserError(
                f"pip's setting {name} is {self.last_value(name)}, which is neither yes nor no.",
                "Correct it: `pip config list` shows it, or the variable PIP_" + name.upper().replace("-", "_") + ".",
            )
        return text in _TRUE

    @property
    def indexes(self) -> list[str]:
        """The addresses of the indexes that are set, the main one first; none with ``no-index``."""
        if self.flag("no-index"):
            return []
        main = self.last_value("index-url")
        return list(dict.fromkeys([*([main] if main else []), *self.all("extra-index-url")]))

    def apply_line(self, line: str, environ: Mapping[str, str]) -> None:
        """Apply a line with options of a requirements file, such as ``--extra-index-url …``.

        Raises:
            UserError: Its quotes do not match.
        """
        try:
            arguments = shlex.split(_VARIABLE.sub(lambda match: environ.get(match[1]) or match[0], line))
        except ValueError as error:
            raise UserError(f"`{line}` cannot be read: {error}.", "Correct that line of the requirements.") from error
        while arguments:
            argument = arguments.pop(0)
            short = re.match(r"-([a-z])=?(.*)$", argument) if not argument.startswith("--") else None
            if short is not None:
                name, value = short[1], short[2]
            else:
                name, _, value = argument.lstrip("-").partition("=")
            name = _ALIASES.get(name, name)
            if not value and arguments and not arguments[0].startswith("-"):
                value = arguments.pop(0)
            if name in ("no-binary", "only-binary"):
                self.formats.apply(name, value)
            elif name in _LISTS:
                self.values[name] = (*self.all(name), value)
            else:
                self.values[name] = (value or "true",)
                if name == "index-url":
                    self.values.pop("no-index", None)


def read_settings(environ: Mapping[str, str], command: str = "install", prefix: Path | None = None) -> PipSettings:
    """Read the user's files and variables.

    Args:
        environ: The user's environment variables.
        command: pip's command, whose section in the files counts, too.
        prefix: The environment in which pip would run, whose pip.conf counts, too.

    Raises:
        UserError: A file cannot be read.
    """
    found = PipSettings()
    merged = dict[tuple[str, str], str]()
    for path in _config_files(environ, prefix):
        merged |= _read(path)
    sections = {section: list[tuple[str, str]]() for section in ("global", command)}
    for (section, name), value in merged.items():
        if section in sections:
            sections[section].append((name, value))
    variables = [
        (_long_name(key[4:]), value)
        for key, value in environ.items()
        if key.startswith("PIP_") and key not in ("PIP_VERSION", "PIP_HELP", "PIP_CONFIG_FILE")
    ]
    for name, value in (*sections["global"], *sections[command], *variables):
        # pip ignores empty values.
        if not value or not name:
            continue
        if name in ("no-binary", "only-binary"):
            found.formats.apply(name, value)
        else:
            found.values[name] = tuple(value.split()) if name in _LISTS else (value.strip(),)
    return found


def _long_name(name: str) -> str:
    name = name.lower().replace("_", "-").removeprefix("--")
    return _ALIASES.get(name, name)


def _config_files(environ: Mapping[str, str], prefix: Path | None) -> Iterator[Path]:
    own = environ.get("PIP_CONFIG_FILE")
    if own == os.devnull:
        return
    yield from _machine_files(environ)
    if not (own and os.path.exists(own)):
        yield from _user_files(environ)
    if prefix is not None:
        yield prefix / _NAME
    if own:
        yield Path(own)


_NAME = "pip.ini" if sys.platform == "win32" else "pip.conf"


def _machine_files(environ: Mapping[str, str]) -> Iterable[Path]:
    if sys.platform == "win32":
        return [Path(environ.get("ProgramData", r"C:\ProgramData")) / "pip" / _NAME]
    if sys.platform == "darwin":
        return [Path("/Library/Application Support/pip", _NAME)]
    folders = [part for part in (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep) if part]
    return [*(Path(part, "pip", _NAME) for part in folders), Path("/etc", _NAME)]


def _user_files(environ: Mapping[str, str]) -> Iterable[Path]:
    home = Path(environ.get("HOME") or Path.home())
    if sys.platform == "win32":
        return [home / "pip" / _NAME, Path(environ.get("APPDATA", str(home))) / "pip" / _NAME]
    found = [home / ".pip" / _NAME]
    application = home / "Library" / "Application Support" / "pip"
    if sys.platform == "darwin" and application.is_dir():
        return [*found, application / _NAME]
    return [*found, Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip" / _NAME]


def _read(path: Path) -> dict[tuple[str, str], str]:
    parser = configparser.RawConfigParser()
    try:
        parser.read(path, encoding=None)
    except (configparser.Error, UnicodeDecodeError, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(f"pip's settings cannot be read: {reason}.", f"Correct {path}.", file=path) from error
    return {
        (section, _long_name(name)): value
        for section in parser.sections()
        for name, value in parser.items(section)
        if value is not None
    }
