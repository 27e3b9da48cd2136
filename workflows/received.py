"""Validation of what another machine or a service sends: none of it is trusted.

Every check takes a value and its description for messages, and returns the value or raises :class:`Refused`.
:func:`sent_by` names the sender. :func:`fields`, :func:`each`, :func:`table` and the like combine checks into those of
complete messages; unknown fields are dropped.
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

#: Bytes of a path, and of one of its parts, that all systems accept (Windows fewer by default).
PATH_BYTES, NAME_BYTES = 1024, 255
#: Bytes of the largest file that is accepted.
MOST_BYTES = 1 << 44
#: Levels and values that a message of unknown form may have.
LEVELS, VALUES = 64, 200_000
_SHOWN = 80
_DRIVE = re.compile(r"[A-Za-z]:")
#: Names that are devices on Windows, in every folder and with every extension.
_DEVICES = re.compile(r"(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)\s*(?:\.|$)", re.IGNORECASE)
_HOST = re.compile(
    r"(?=.{1,253}\Z)(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)(?:\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*"
)
_HEX = re.compile(r"[0-9a-f]{64}")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]*(?:@sha256:[0-9a-f]{64})?")
_BYTES = re.compile("[\udc80-\udcff]")


class Refused(UserError):
    """Received data is not valid.

    Args:
        what: What it is instead, to follow "has sent".
        who: The sender; empty if :func:`sent_by` names it.
    """

    def __init__(self, what: str, who: str = "") -> None:
        self.what, self.who = what, who
        super().__init__(
            f"{who or 'The other side'} has sent {what}.",
            "It was discarded. Check that you have named the right one, and that nobody has tampered with it. "
            "If so, both sides may have different versions: update them.",
        )


@contextmanager
def sent_by(who: str) -> Iterator[None]:
    """Name the sender in errors of the block."""
    try:
        yield
    except Refused as error:
        if error.who:
            raise
        raise Refused(error.what, who) from error


def _refuse(value: Any, what: str, wrong: str) -> Refused:
    return Refused(f"{what} that {wrong}: {_shown(value)}")


def _shown(value: Any) -> str:
    """A short printable text for any value."""
    if isinstance(value, str):
        return (ascii(value[:_SHOWN])[1:-1] + ("…" if len(value) > _SHOWN else "")) or "an empty one"
    if type(value) is int:
        # Converting a very large integer to digits takes long.
        return str(value) if abs(value) < 1 << 80 else "a very large one"
    return str(value) if value is None or isinstance(value, (bool, float)) else f"a {type(value).__name__}"


# Text -------------------------------------------------------------------------------------------------


def text(value: Any, what: str, most: int = 65536) -> str:
    """A text that can be encoded as UTF-8; file names may have undecodable bytes (PEP 383)."""
    if not isinstance(value, str):
        raise _refuse(value, what, "is not text")
    if len(value) > most:
        raise _refuse(value, what, f"has more than {most} characters")
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise _refuse(value, what, "is not text") from error
    if "\0" in value:
        raise _refuse(value, what, "has a NUL in it")
    return value


def one_line(value: Any, what: str, most: int = 1000) -> str:
    """A text without control characters and line breaks."""
    found = text(value, what, most)
    # Undecodable bytes of a file name are allowed.
    seen = _BYTES.sub("", found)
    if printable(seen) != seen:
        raise _refuse(value, what, "has control characters in it")
    return found


def display_text(value: Any, what: str, most: int = 2000) -> str:
    """A text to be shown: cut if it is too long, with control characters escaped."""
    if not isinstance(value, str):
        raise _refuse(value, what, "is not text")
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
    # On Windows a backslash is a separator, too, and a letter with a colon names a drive.
    if part == ".." or "\\" in part or _DRIVE.match(part):
        raise _refuse(value, what, "does not stay in its folder")
    if len(os.fsencode(part)) > NAME_BYTES:
        raise _refuse(value, what, "is too long")
    if sys.platform == "win32" and (_DEVICES.match(part) or re.search(r'[<>:"|?*]|[ .]$', part)):
        raise _refuse(value, what, "cannot be a file's name on Windows")
    return part


def distinct(paths: Iterable[str], what: str) -> list[str]:
    """Paths below one folder; none may occur twice, or be the folder of another."""
    found = list(paths)
    # On file systems that ignore case, names that differ only in case are the same.
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
    """An absolute POSIX path of another machine."""
    found = one_line(value, what, 4096)
    if not found.startswith("/") or ".." in found.split("/"):
        raise _refuse(value, what, "is not an absolute path")
    return found


def digest(value: Any, what: str) -> str:
    """A SHA-256 in hex."""
    found = text(value, what, 64)
    if not _HEX.fullmatch(found):
        raise _refuse(value, what, "is not a digest")
    return found


def port(value: Any, what: str) -> int:
    """The number of a port."""
    return number(value, what, 1, 65535)


def address(value: Any, what: str) -> str:
    """A host's name, or its address."""
    found = one_line(value, what, 253)
    if _HOST.fullmatch(found):
        if re.fullmatch(r"[0-9.]+|0[xX][0-9a-fA-F.]*", found):
            # Digits only: it has to be an IP address in its usual form. Resolvers differ in how they read others.
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
        raise _refuse(value, what, "is not an address") from error


def web_address(value: Any, what: str) -> str:
    """An http or https URL."""
    found = one_line(value, what, 8192)
    try:
        parts = urlsplit(found)
        host, _port = parts.hostname, parts.port
    except ValueError as error:
        raise _refuse(found.partition("?")[0], what, "is not an address") from error
    if parts.scheme not in ("http", "https") or not host or any(one.isspace() for one in found):
        # The query may hold a signature.
        raise _refuse(found.partition("?")[0], what, "is not an address of http or https")
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
        raise _refuse(value, what, f"is not a number from {least} to {most}")
    return value


def size(value: Any, what: str) -> int:
    """A number of bytes."""
    return number(value, what, 0, MOST_BYTES)


def real(value: Any, what: str) -> float:
    """A finite number."""
    if type(value) not in (int, float) or abs(value) > 1e15 or math.isnan(value):
        raise _refuse(value, what, "is not a number")
    return float(value)


def flag(value: Any, what: str) -> bool:
    """A boolean."""
    if type(value) is not bool:
        raise _refuse(value, what, "is neither true nor false")
    return value


# Messages ---------------------------------------------------------------------------------------------


def between(least: int, most: int) -> Check:
    """A check for a whole number within limits."""
    return lambda value, what: number(value, what, least, most)


def one_of(*known: Any) -> Check:
    """A check for one of these values."""

    def check(value: Any, what: str) -> Any:
        if not any(type(value) is type(one) and value == one for one in known):
            raise _refuse(value, what, "is not one of the known values")
        return value

    return check


def optional(check: Check) -> Check:
    """A check that also accepts null."""
    return lambda value, what: None if value is None else check(value, what)


def each(check: Check, most: int, least: int = 0) -> Check:
    """A check for a list of ``least`` to ``most`` items that pass a check."""

    def found(value: Any, what: str) -> list[Any]:
        if not isinstance(value, list):
            raise _refuse(value, what, "is not a list")
        if not least <= len(value) <= most:
            raise Refused(f"{what}: {len(value)} of them, where {least} to {most} can be")
        return [check(one, what) for one in value]

    return found


def row(*checks: Check) -> Check:
    """A check for a list with one item for each check."""

    def found(value: Any, what: str) -> list[Any]:
        if not isinstance(value, list) or len(value) != len(checks):
            raise _refuse(value, what, f"is not a list of {len(checks)}")
        return [check(one, what) for check, one in zip(checks, value, strict=True)]

    return found


def table(key: Check, value: Check, most: int) -> Check:
    """A check for a JSON object of at most ``most`` entries whose keys and values pass checks."""

    def found(given: Any, what: str) -> dict[str, Any]:
        if not isinstance(given, dict):
            raise _refuse(given, what, "is not a JSON object")
        if len(given) > most:
            raise Refused(f"{what}: {len(given)} of them, where {most} can be")
        return {key(one, what): value(inner, what) for one, inner in given.items()}

    return found


def fields(needed: dict[str, Check], optional: dict[str, Check] | None = None) -> Check:
    """A check for a JSON object with these fields; others are dropped."""

    def found(given: Any, what: str) -> dict[str, Any]:
        if not isinstance(given, dict):
            raise _refuse(given, what, "is not a JSON object")
        missing = [one for one in needed if one not in given]
        if missing:
            raise Refused(f"{what} without its `{missing[0]}`")
        every = {**needed, **(optional or {})}
        return {one: check(given[one], f"{what} with a `{one}`") for one, check in every.items() if one in given}

    return found


def anything(value: Any, what: str) -> Any:
    """Any JSON value within limits of depth and size."""
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
            raise Refused(f"{what} that is nested too deeply or has too many values")
        left = inner
    return value


def as_json(data: bytes | str, what: str) -> Any:
    """Parse a JSON text."""

    def constant(word: str) -> Any:
        raise ValueError(word)

    try:
        return json.loads(data, parse_constant=constant)
    except (ValueError, RecursionError, MemoryError) as error:
        raise Refused(f"{what} that is not JSON") from error


def message(data: bytes, what: str = "a message") -> dict[str, Any]:
    """Parse a message, which has to be a JSON object."""
    value = as_json(data, what)
    if not isinstance(value, dict):
        raise _refuse(value, what, "is not a JSON object")
    return value


def one_requested(value: str, known: Collection[str], what: str) -> str:
    """A value that has to be one of those requested."""
    if value not in known:
        raise _refuse(value, what, "was not asked for")
    return value
