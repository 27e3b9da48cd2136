"""Scripts with Windows line ends (CRLF), whose CR kernels and shells take for a part of the line."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from .paths import exists

#: Bytes of the first line that are read.
_FIRST_LINE = 4096
_SHELL_NAMES = (".sh", ".bash", ".zsh", ".ksh")
_WORD = re.compile(r"[^\s;&|()<>\"'`$]+")
#: Words of a command that are looked up as files.
_MOST_WORDS = 200


def has_windows_ends(path: Path) -> bool:
    """Whether a file is a script (by ``#!``, or by a shell script's name) with Windows line ends."""
    with path.open("rb") as file:
        line = file.readline(_FIRST_LINE)
    return line.endswith(b"\r\n") and (line.startswith(b"#!") or path.name.endswith(_SHELL_NAMES))


def to_unix_ends(data: bytes) -> bytes:
    """Convert a text to Unix line ends."""
    return data.replace(b"\r\n", b"\n")


def convert_copy(folder: Path) -> None:
    """Convert every such script below a folder to Unix line ends; for copies only, never for the user's own files."""
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if path.is_file() and not path.is_symlink() and has_windows_ends(path):
                path.write_bytes(to_unix_ends(path.read_bytes()))


def find_named_scripts(command: str, code: Path | None) -> list[str]:
    """The scripts with Windows line ends that a command names, relative to the source folder."""
    if code is None or not code.is_dir():
        return []
    found = list[str]()
    for word in dict.fromkeys(_WORD.findall(command)[:_MOST_WORDS]):
        path = code / word
        try:
            if exists(path) and stat.S_ISREG(path.stat().st_mode) and has_windows_ends(path):
                found.append(word)
        except (OSError, ValueError):  # the name is too long, or the file cannot be read
            continue
    return found


def note_for_script(step: str, script: str) -> str:
    """The note about a script with Windows line ends that is run in place."""
    return (
        f"{script} of the step {step} has Windows line ends (CRLF), with which it may not run: "
        f"save it with LF (in VS Code: CRLF at the lower right), or `sed -i 's/\\r$//' {script}`"
    )
