"""The lines of .gitignore, .amlignore and .dockerignore, checked before a library compiles them."""

from __future__ import annotations

import re
from pathlib import Path

from .errors import UserError
from .paths import shown
from .reading import read_text

#: Each `*` may match anywhere in a name: with more of them, matching one name can take minutes.
MOST_WILDCARDS = 4
_MOST_BYTES = 1024 * 1024
_STARS = re.compile(r"\*+")


def read_patterns(path: Path) -> list[str]:
    """Read all lines of a file of patterns, including comments and blank lines.

    Raises:
        UserError: It cannot be read, or a line has so many wildcards that matching takes too long.
    """
    try:
        lines = read_text(path, "utf-8-sig", "replace", _MOST_BYTES).splitlines()
    except OSError as error:
        problem = f"{path.name} cannot be read: {error.strerror or error}."
        raise UserError(problem, "Make it readable, or remove it.", file=shown(path)) from error
    for number, line in enumerate(lines, 1):
        if not line.startswith("#") and has_many_wildcards(line):
            problem = f"This pattern has more than {MOST_WILDCARDS} wildcards."
            raise UserError(problem, "Write it as several simpler ones.", file=shown(path), line=number)
    return lines


def has_many_wildcards(pattern: str) -> bool:
    """Whether a pattern has more than :data:`MOST_WILDCARDS` of `*` and `**`."""
    return len(_STARS.findall(pattern)) > MOST_WILDCARDS
