r"""Making text safe for a terminal: control characters in messages are escaped, a program's output is filtered.

Control sequences can move the cursor, rename the window, fill the clipboard, or make the terminal type an answer. The
name of a file, run or container can contain them, and so can messages of an engine, a service or another machine.
:func:`printable` shows them as escapes of Python: ``\x1b``, ``\u202e``.

The output of the user's own program is never changed on its way to a file or a pipe. On a terminal it keeps its colours
and progress bars, since :class:`Output` lets those sequences through; all others are shown, not obeyed.
"""

from __future__ import annotations

import re

# C0, DEL and C1; changes of text direction; Unicode line ends; surrogates.
_UNSEEN = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufff9-\ufffb\ud800-\udfff"
)
_IN_LINES = re.compile(f"[{_UNSEEN}]")
_IN_LINE = re.compile(f"[\t\n{_UNSEEN}]")
#: A CSI sequence, such as a colour; or an OSC, DCS, … with its text, if it ends on this line.
_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)")


def printable(text: str, *, lines: bool = False) -> str:
    """Escape control characters, and those that change the text's direction.

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
    """Escape all control characters in a JSON text, including those that JSON allows."""
    return _IN_LINES.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def plain(line: str) -> str:
    """One line of another program's output, :func:`printable`, without colours and with tabs expanded.

    Of a progress bar that has overwritten itself, the last state counts.
    """
    if "\x1b" in line:
        line = _SEQUENCE.sub("", line)
    return printable(line.rstrip().rpartition("\r")[2].expandtabs())


def _written(found: re.Match[str]) -> str:
    character = found[0]
    known = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(character)
    code = ord(character)
    return known or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


#: Sequences that a program's output may use: colours, and those of progress bars (cursor moves, erasing, hiding the
#: cursor).
_ALLOWED = rb"\x1b\[(?:[0-9;:]{0,64}[mABCDEFGJK]|\?25[hl])"
#: The beginning of such a sequence at the end of a chunk. C2 begins a C1 character in UTF-8.
_BEGUN = re.compile(rb"(?:\x1b(?:\[(?:[0-9;:]{0,64}|\?2?5?))?|\xc2)\Z")
_FOREIGN = re.compile(rb"(" + _ALLOWED + rb")|\xc2[\x80-\x9f]|[\x00-\x07\x0b\x0c\x0e-\x1f\x7f]")


class Output:
    """Filters a program's output on its way to a terminal, chunk by chunk.

    Colours and the cursor moves of progress bars pass. Every other control character is escaped, so that nothing
    renames the window, fills the clipboard, or makes the terminal type an answer. Invalid UTF-8 passes.
    """

    def __init__(self) -> None:
        self._begun = b""

    def take(self, piece: bytes) -> bytes:
        """Filter the next chunk; the beginning of a sequence at its end waits for the next one."""
        data = self._begun + piece
        begun = _BEGUN.search(data, max(0, len(data) - 80))
        self._begun = begun[0] if begun else b""
        if self._begun:
            data = data[: -len(self._begun)]
        return _FOREIGN.sub(_shown, data)

    def end(self) -> bytes:
        """The rest, when nothing more comes."""
        data, self._begun = self._begun, b""
        return _FOREIGN.sub(_shown, data)


def _shown(found: re.Match[bytes]) -> bytes:
    if found[1]:
        return found[1]
    return b"\\x%02x" % found[0][-1]
