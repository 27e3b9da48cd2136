"""What another machine or a service sends, looked at where it arrives: nothing of it is trusted.

Every function takes a value and what it is, in words, and returns the value or raises :class:`Refused`.
:func:`sent_by` says who has sent it. :func:`fields`, :func:`each`, :func:`table` and the like make checks of whole
messages from those of their parts; what a message holds besides is left out.
"""

from __future__ import annotations

import ipaddress
import json
import math
import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from .errors import UserError
from .terminal import printable

Check = Callable[[Any, str], Any]

#: Bytes of a path, and of one of its parts, that every system takes (Windows takes fewer by default).
PATH_BYTES, NAME_BYTES = 1024, 255
#: The largest file that anybody sends.
MOST_BYTES = 1 << 44
#: Levels and values of a message of which the form is not known.
LEVELS, VALUES = 64, 200_000
_SHOWN = 80
_DRIVE = re.compile(r"[A-Za-z]:")
#: Names that are devices on Windows, in every folder and with every ending.
_DEVICES = re.compile(r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)\s*(?:\.|$)", re.IGNORECASE)
_HOST = re.compile(
    r"(?=.{1,253}\Z)(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)(?:\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*"
)
_HEX = re.compile(r"[0-9a-f]{64}")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]*(?:@sha256:[0-9a-f]{64})?")
_BYTES = re.compile("[\udc80-\udcff]")


class Refused(UserError):
    """Something that was received is not what it has to be.

    Args:
        what: What it is instead, to stand after "has sent".
        who: Who has sent it; empty where :func:`sent_by` says so.
    """

    def __init__(self, what: str, who: str = "") -> None:
        self.what, self.who = what, who
        super().__init__(
            f"{who or 'The other side'} has sent {what}.",
            "It was not taken. Is this the one that you mean, and does nobody else have a hand in it? "
            "Then both sides may be of different versions: update them.",
        )


@contextmanager
def sent_by(who: str) -> Iterator[None]:
    """Say who it was that has sent what is refused."""
    try:
        yield
    except Refused as error:
        if error.who:
            raise
        raise Refused(error.what, who) from error


def _refuse(value: Any, what: str, wrong: str) -> Refused:
    return Refused(f"{what} that {wrong}: {_shown(value)}")


def _shown(value: Any) -> str:
    """A value in a few plain characters, whatever it is."""
    if isinstance(value, str):
        return (ascii(value[:_SHOWN])[1:-1] + ("…" if len(value) > _SHOWN else "")) or "an empty one"
    if type(value) is int:
        # The digits of a very large one take long.
        return str(value) if abs(value) < 1 << 80 else "a very large one"
    return str(value) if value is None or isinstance(value, (bool, float)) else f"a {type(value).__name__}"


# Text -------------------------------------------------------------------------------------------------


def text(value: Any, what: str, most: int = 65536) -> str:
    """A text that can be written in UTF-8; of file names also what is none (see PEP 383)."""
    if not isinstance(value, str):
        raise _refuse(value, what, "is no text")
    if len(value) > most:
        raise _refuse(value, what, f"has more than {most} characters")
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise _refuse(value, what, "is no text") from error
    if "\0" in value:
        raise _refuse(value, what, "has a NUL in it")
    return value


def one_line(value: Any, what: str, most: int = 1000) -> str:
    """A text without control characters, line breaks among them."""
    found = text(value, what, most)
    # Bytes of a file's name that are no text are no control characters either.
    seen = _BYTES.sub("", found)
    if printable(seen) != seen:
        raise _refuse(value, what, "has control characters in it")
    return found


def display_text(value: Any, what: str, most: int = 2000) -> str:
    """A text for people: cut where it is too long, control characters are shown and do nothing."""
    if not isinstance(value, str):
        raise _refuse(value, what, "is no text")
    return printable(value if len(value) <= most else value[: most - 1] + "…", lines=True)


# Names and places -------------------------------------------------------------------------------------


def name(value: Any, what: str) -> str:
    """One part of a path: a file's or a folder's own name."""
    found = one_line(value, what, NAME_BYTES)
    if "/" in found:
        raise _refuse(value, what, "is a path")
    return _part(found, value, what)


def relative_path(value: Any, what: str) -> str:
    """A path below some folder, with ``/`` between its parts."""
    found = one_line(value, what, PATH_BYTES)
    if len(os.fsencode(found)) > PATH_BYTES:
        raise _refuse(value, what, "is too long")
    if found.startswith("/"):
        raise _refuse(value, what, "does not stay in its folder")
    for part in found.split("/"):
        _part(part, value, what)
    return found


def _part(part: str, value: Any, what: str) -> str:
    if part in ("", "."):
        raise _refuse(value, what, "names no file")
    # On Windows a backslash parts names as well, and a letter with a colon begins another path.
    if part == ".." or "\\" in part or _DRIVE.match(part):
        raise _refuse(value, what, "does not stay in its folder")
    if len(os.fsencode(part)) > NAME_BYTES:
        raise _refuse(value, what, "is too long")
    if sys.platform == "win32" and (_DEVICES.match(part) or re.search(r'[<>:"|?*]|[ .]$', part)):
        raise _refuse(value, what, "cannot be a file's name on Windows")
    return part


def distinct(paths: Iterable[str], what: str) -> list[str]:
    """Paths below one folder, of which none is another one's, nor another one's folder."""
    found = list(paths)
    # Where the file system knows no capital letters, two such names are one.
    folds = sys.platform in ("win32", "darwin")
    seen: set[str] = set()
    for path in found:
        key = path.casefold() if folds else path
        if key in seen:
            raise _refuse(path, what, "comes twice")
        seen.add(key)
    for path in found:
        parts = (path.casefold() if folds else path).split("/")
        if any("/".join(parts[:count]) in seen for count in range(1, len(parts))):
            raise _refuse(path, what, "is in a file rather than a folder")
    return found


def absolute_path(value: Any, what: str) -> str:
    """An absolute path of another machine, which is no Windows."""
    found = one_line(value, what, 4096)
    if not found.startswith("/") or ".." in found.split("/"):
        raise _refuse(value, what, "is no absolute path")
    return found


def digest(value: Any, what: str) -> str:
    """A SHA-256 in hex."""
    found = text(value, what, 64)
    if not _HEX.fullmatch(found):
        raise _refuse(value, what, "is no digest")
    return found


def port(value: Any, what: str) -> int:
    """The number of a port."""
    return number(value, what, 1, 65535)


def address(value: Any, what: str) -> str:
    """A host's name, or its address."""
    found = one_line(value, what, 253)
    if _HOST.fullmatch(found):
        if re.fullmatch(r"[0-9.]+|0[xX][0-9a-fA-F.]*", found):
            # Only digits: an address, and none of the spellings that resolvers read each in their own way.
            _ip(found, value, what)
        return found
    _ip(found, value, what)
    return found


def _ip(found: str, value: Any, what: str) -> Any:
    try:
        if "%" in found:
            raise ValueError
        return ipaddress.ip_address(found)
    except ValueError as error:
        raise _refuse(value, what, "is no address") from error


def web_address(value: Any, what: str) -> str:
    """An address of http or https."""
    found = one_line(value, what, 8192)
    try:
        parts = urlsplit(found)
        host, _port = parts.hostname, parts.port
    except ValueError as error:
        raise _refuse(found.partition("?")[0], what, "is no address") from error
    if parts.scheme not in ("http", "https") or not host or any(one.isspace() for one in found):
        # What comes behind the question mark may be a signature.
        raise _refuse(found.partition("?")[0], what, "is no address of http or https")
    return found


def image_name(value: Any, what: str) -> str:
    """The name of a container image, with its registry."""
    found = one_line(value, what, 1000)
    if not _IMAGE.fullmatch(found):
        raise _refuse(value, what, "is none")
    return found


# Numbers ----------------------------------------------------------------------------------------------


def number(value: Any, what: str, least: int = 0, most: int = (1 << 63) - 1) -> int:
    """A whole number."""
    if type(value) is not int or not least <= value <= most:
        raise _refuse(value, what, f"is no number from {least} to {most}")
    return value


def size(value: Any, what: str) -> int:
    """A number of bytes."""
    return number(value, what, 0, MOST_BYTES)


def real(value: Any, what: str) -> float:
    """A number that is one: neither infinite nor none."""
    if type(value) not in (int, float) or abs(value) > 1e15 or math.isnan(value):
        raise _refuse(value, what, "is no number")
    return float(value)


def flag(value: Any, what: str) -> bool:
    """Yes or no."""
    if type(value) is not bool:
        raise _refuse(value, what, "is neither true nor false")
    return value


# Messages ---------------------------------------------------------------------------------------------


def between(least: int, most: int) -> Check:
    """A whole number in these limits."""
    return lambda value, what: number(value, what, least, most)


def one_of(*known: Any) -> Check:
    """One of these."""

    def check(value: Any, what: str) -> Any:
        if not any(type(value) is type(one) and value == one for one in known):
            raise _refuse(value, what, "is none of those there are")
        return value

    return check


def optional(check: Check) -> Check:
    """The same, or null."""
    return lambda value, what: None if value is None else check(value, what)


def each(check: Check, most: int, least: int = 0) -> Check:
    """A list of so many of a kind."""

    def found(value: Any, what: str) -> list[Any]:
        if not isinstance(value, list):
            raise _refuse(value, what, "is no list")
        if not least <= len(value) <= most:
            raise Refused(f"{what}: {len(value)} of them, where {least} to {most} can be")
        return [check(one, what) for one in value]

    return found


def row(*checks: Check) -> Check:
    """A list with one of each."""

    def found(value: Any, what: str) -> list[Any]:
        if not isinstance(value, list) or len(value) != len(checks):
            raise _refuse(value, what, f"is no list of {len(checks)}")
        return [check(one, what) for check, one in zip(checks, value, strict=True)]

    return found


def table(key: Check, value: Check, most: int) -> Check:
    """A JSON object with so many names of a kind."""

    def found(given: Any, what: str) -> dict[str, Any]:
        if not isinstance(given, dict):
            raise _refuse(given, what, "is no JSON object")
        if len(given) > most:
            raise Refused(f"{what}: {len(given)} of them, where {most} can be")
        return {key(one, what): value(inner, what) for one, inner in given.items()}

    return found


def fields(needed: dict[str, Check], optional: dict[str, Check] | None = None) -> Check:
    """A JSON object with these fields. What it has besides is left out."""

    def found(given: Any, what: str) -> dict[str, Any]:
        if not isinstance(given, dict):
            raise _refuse(given, what, "is no JSON object")
        missing = [one for one in needed if one not in given]
        if missing:
            raise Refused(f"{what} without its `{missing[0]}`")
        every = {**needed, **(optional or {})}
        return {one: check(given[one], f"{what} with a `{one}`") for one, check in every.items() if one in given}

    return found


def anything(value: Any, what: str) -> Any:
    """Any JSON, of few enough levels and values that it can be gone through."""
    left, level = [value], 0
    count = 1
    while left:
        level += 1
        inner: list[Any] = []
        for one in left:
            if isinstance(one, dict):
                inner += one.values()
            elif isinstance(one, list):
                inner += one
        count += len(inner)
        if level > LEVELS or count > VALUES:
            raise Refused(f"{what} that has more in it than can be gone through")
        left = inner
    return value


def as_json(data: bytes | str, what: str) -> Any:
    """The value of a JSON text."""

    def constant(word: str) -> Any:
        raise ValueError(word)

    try:
        return json.loads(data, parse_constant=constant)
    except (ValueError, RecursionError, MemoryError) as error:
        raise Refused(f"{what} that is no JSON") from error


def message(data: bytes, what: str = "a message") -> dict[str, Any]:
    """The JSON object of a message."""
    value = as_json(data, what)
    if not isinstance(value, dict):
        raise _refuse(value, what, "is no JSON object")
    return value


def one_requested(value: str, known: Collection[str], what: str) -> str:
    """One of those that were asked for."""
    if value not in known:
        raise _refuse(value, what, "was not asked for")
    return value
