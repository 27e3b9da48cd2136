r"""What may reach a terminal: names and messages without control characters, and a program's output without commands.

A terminal takes more than text: sequences that move its cursor, rename its window, fill the clipboard, or have it
type an answer. A file, a run or a container can have any of them in its name, and so can what an engine, a service or
another machine says. :func:`printable` shows them as they are written in Python: ``\x1b``, ``\u202e``.

The output of a person's own program is theirs, and is never changed on its way to a file or a pipe. On a terminal it
has colours and progress bars as ever, since :class:`Output` lets those sequences through; what would outlast the
program or answer for the person is shown instead of obeyed.
"""

from __future__ import annotations

import re

# C0, DEL and C1; what turns the direction of the text around; line ends that no file has; halves of characters.
_UNSEEN = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufff9-\ufffb\ud800-\udfff"
)
_IN_LINES = re.compile(f"[{_UNSEEN}]")
_IN_LINE = re.compile(f"[\t\n{_UNSEEN}]")
#: A colour, or another CSI sequence; a command to the terminal with its text (OSC, DCS, …), if it ends on this line.
_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)")


def printable(text: str, *, lines: bool = False) -> str:
    """A text that only shows: control characters, and those that turn the text around, are written out.

    Args:
        text: Any text.
        lines: Whether it may have several lines, and tabs.
    """
    if text.isascii() and text.isprintable():
        return text
    if lines:
        return _IN_LINES.sub(_written, text.replace("\r\n", "\n"))
    return _IN_LINE.sub(_written, text)


def escaped(text: str) -> str:
    """A JSON text in which no control character is left as it is, also of those that JSON leaves."""
    return _IN_LINES.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def plain(line: str) -> str:
    """One line of another program's output without its colours, tabs as blanks, all else as :func:`printable` has it.

    Of what a progress bar has written over itself, the last counts.
    """
    if "\x1b" in line:
        line = _SEQUENCE.sub("", line)
    return printable(line.rstrip().rpartition("\r")[2].expandtabs())


def _written(found: re.Match[str]) -> str:
    character = found[0]
    known = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(character)
    code = ord(character)
    return known or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


#: What a program's output may do: colours, and what progress bars are made of: moves and erasures within the screen,
#: and hiding the cursor.
_ALLOWED = rb"\x1b\[(?:[0-9;:]{0,64}[mABCDEFGJK]|\?25[hl])"
#: The beginning of such a sequence, at the end of a piece. C2 begins a C1 character in UTF-8.
_BEGUN = re.compile(rb"(?:\x1b(?:\[(?:[0-9;:]{0,64}|\?2?5?))?|\xc2)\Z")
_FOREIGN = re.compile(rb"(" + _ALLOWED + rb")|\xc2[\x80-\x9f]|[\x00-\x07\x0b\x0c\x0e-\x1f\x7f]")


class Output:
    """A program's output on its way to a terminal, piece by piece.

    It has its colours, and the moves of the cursor that progress bars are made of. Every other control character is
    shown: nothing renames the window, takes the clipboard, or makes the terminal type an answer. Bytes that are no
    text go through; a terminal shows them as such.
    """

    def __init__(self) -> None:
        self._begun = b""

    def take(self, piece: bytes) -> bytes:
        """What may be written of what has come so far: all of it, but for the beginning of a sequence at its end."""
        data = self._begun + piece
        begun = _BEGUN.search(data, max(0, len(data) - 80))
        self._begun = begun[0] if begun else b""
        if self._begun:
            data = data[: -len(self._begun)]
        return _FOREIGN.sub(_shown, data)

    def end(self) -> bytes:
        """What is left when nothing more comes."""
        data, self._begun = self._begun, b""
        return _FOREIGN.sub(_shown, data)


def _shown(found: re.Match[bytes]) -> bytes:
    if found[1]:
        return found[1]
    return b"\\x%02x" % found[0][-1]
