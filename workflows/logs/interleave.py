"""Interleaving several logs: the ranks of a step, steps that run in parallel."""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TextIO

from ..terminal import printable
from .following import POLL, GrowingFile

#: Seconds after which an incomplete line (a prompt, a progress bar) is shown.
UNFINISHED_AFTER = 0.2
#: Seconds that other sources wait for more of a huge line.
HUGE_LINE_PAUSE = 0.06
#: Size in bytes from which on a line is huge, and is shown as it comes instead of when it is complete.
HUGE_LINE = 64 * 1024
# Small, so that none of 64 sources keeps the others waiting. glibc also returns blocks of 128 KiB and more to the
# system at once; with prefixes, that made pieces of 64 KiB take three times as long.
_PIECE = 32 * 1024

_COLOURS = tuple(f"\033[{code}m".encode() for code in (36, 33, 32, 35, 34, 96, 93, 92, 95, 94))
_PLAIN = b"\033[0m"
# A progress bar returns to the left margin and would overwrite the prefix.
_RETURN = re.compile(rb"\r(?=[^\r\n])")


def shows_colours(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a stream shows colours: a terminal, and NO_COLOR is not set (https://no-color.org)."""
    if not stream.isatty() or environ.get("NO_COLOR") or environ.get("TERM") == "dumb":
        return False
    # The old Windows console prints the codes; newer terminals identify themselves by a variable.
    return os.name != "nt" or any(environ.get(name) for name in ("WT_SESSION", "TERM_PROGRAM", "TERM"))


class _Source:
    """One log, and the part of its last line that is not shown yet."""

    def __init__(self, file: GrowingFile, prefix: bytes) -> None:
        self.file = file
        self.prefix = prefix
        self.pending = b""
        self.since = 0.0  # when `pending` began


class Interleaver:
    """Shows several growing logs, line by line, each line behind the name of its source.

    Lines of different sources are never mixed. An incomplete line is shown after 0.2 s, and ended when another source
    writes next. While a line of more than 64 KiB is shown in pieces, the others wait; what they write stays in their
    files.

    Args:
        sources: Name, path and "is its writer done" of each log; see :class:`Growing`.
            A source with an empty name has no prefix, and alone it is passed on as it is.
        write: Takes the output. A piece holds whole lines, or the part of a long one.
        colour: Names in colours.
        terminal: Repeat the prefix where a line returns to the left margin.
    """

    def __init__(
        self,
        sources: Iterable[tuple[str, Path, Callable[[], bool]]],
        write: Callable[[bytes], object],
        *,
        colour: bool = False,
        terminal: bool = False,
    ) -> None:
        self._write = write
        self._colour = colour
        self._terminal = terminal
        self._named = 0
        self._added: deque[_Source] = deque()
        self._sources: list[_Source] = []
        self._open: _Source | None = None  # whose unfinished line is the last of the output
        self._huge: _Source | None = None  # whose huge line is going through
        self._huge_at = 0.0
        for name, path, ended in sources:
            self.add(name, path, ended)

    def add(self, name: str, path: Path, ended: Callable[[], bool], start: int = 0) -> None:
        """Add a source, also from another thread while :meth:`run` is running."""
        self._added.append(_Source(GrowingFile(path, ended, start, piece=_PIECE), self._prefix(name)))

    def _prefix(self, name: str) -> bytes:
        name = printable(" ".join(name.split()))
        if not name:
            return b""
        text = f"[{name}]".encode("utf-8", "replace")
        if self._colour:
            text = _COLOURS[self._named % len(_COLOURS)] + text + _PLAIN
            self._named += 1
        return text + b" "

    def run(self, stop: Callable[[], bool] | None = None) -> None:
        """Show everything until the end.

        Args:
            stop: Whether no more sources come and all writers are done; everything written by then is shown. Without
                it, this returns when every source has ended.
        """
        stopping = False
        ask_at = 0.0
        try:
            while True:
                now = time.monotonic()
                if stop is not None and not stopping and now >= ask_at:
                    ask_at = now + POLL
                    stopping = stop()
                while self._added:
                    self._sources.append(self._added.popleft())
                if not self._sources and (stop is None or stopping):
                    break
                if stopping:
                    for source in self._sources:
                        source.file.finish()
                if not self._round(now):
                    time.sleep(POLL)
            self._end_line()
        finally:
            for source in self._sources:
                source.file.close()

    def _round(self, now: float) -> bool:
        """Show one piece of each source; returns whether there was any."""
        if (source := self._huge) is not None:
            if self._turn(source, now):
                return True
            if now < self._huge_at + HUGE_LINE_PAUSE:
                return False
            self._huge = None
        busy = False
        for source in list(self._sources):
            busy = self._turn(source, now) or busy
            if self._huge is not None:
                break
        return busy

    def _turn(self, source: _Source, now: float) -> bool:
        """Show what a source has; returns whether there was anything."""
        data = source.file.read()
        if data:
            self._take(source, data, now)
        elif data is None:
            self._show(source, source.pending)
            self._sources.remove(source)
            source.file.close()
            if self._huge is source:
                self._huge = None
            if self._open is source:
                # Other output on the screen begins on its own line.
                self._end_line()
        elif source.pending and now >= source.since + UNFINISHED_AFTER:
            self._show_unfinished(source)
        return data != b""

    def _take(self, source: _Source, data: bytes, now: float) -> None:
        """Show the complete lines of a piece and keep the rest."""
        if not source.prefix and len(self._sources) == 1:
            self._show(source, source.pending + data)
            return
        whole = data.rfind(b"\n") + 1
        if whole:
            self._show(source, source.pending + data[:whole])
            source.pending = data[whole:]
            source.since = now
            if self._huge is source:
                self._huge = None
            return
        if not source.pending:
            source.since = now
        source.pending += data
        if self._huge is not source and len(source.pending) >= HUGE_LINE:
            self._huge = source
        if self._huge is source:
            self._huge_at = now
        if source in (self._huge, self._open):
            self._show_unfinished(source)

    def _show_unfinished(self, source: _Source) -> None:
        """Show the part of a line that is there."""
        text = source.pending
        # Only the next byte shows whether a carriage return at the end restarts the line or ends it.
        keep = self._terminal and text.endswith(b"\r")
        self._show(source, text[:-1] if keep else text)
        source.pending = b"\r" if keep else b""

    def _show(self, source: _Source, text: bytes) -> None:
        """Write lines of a source; the last one may be incomplete."""
        source.pending = b""
        if not text:
            return
        continued = self._open is source
        if not continued:
            self._end_line()
        ends = text.endswith(b"\n")
        self._open = None if ends else source
        if source.prefix:
            # The last line's end begins no new line.
            body = text[:-1] if ends else text
            body = body.replace(b"\n", b"\n" + source.prefix)
            if self._terminal:
                body = _RETURN.sub(lambda found: b"\r" + source.prefix, body)
            text = (b"" if continued else source.prefix) + body + (b"\n" if ends else b"")
        self._write(text)

    def _end_line(self) -> None:
        """End the line that a source has left incomplete."""
        if self._open is not None:
            self._open = None
            self._write(b"\n")
