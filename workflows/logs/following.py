"""Following a log that another process writes, until that process is done with it.

Looks every 20 ms instead of asking the system to be told: that is the same on every
platform, on network drives and on folders shared with containers.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

#: Seconds between two looks at a log that has nothing new.
POLL = 0.02
#: The most bytes that are read, and held, at a time.
PIECE = 256 * 1024

# Windows lets nobody rename or delete a file that another program has opened in the plain way, and what
# its file systems report as st_ino is not to be relied on. So the file is not kept open there between two
# looks, and a new file at the path is recognised by its size alone. Not tried on Windows itself.
_HOLD = os.name != "nt"
_BINARY = getattr(os, "O_BINARY", 0)


class GrowingFile:
    """A growing file, read without waiting.

    A file that was cut short is read again from its start. One that was moved away for a
    new one at the same path is read to its end, then the new one. What was cut off or
    replaced twice between two looks is not seen.

    Args:
        path: The file, which may not be there yet.
        ended: Whether its writer is done. Asked every 20 ms at most, so it has to be quick.
        start: Where to begin, in bytes.
        piece: The most bytes of one read.
        hold: Keep the file open between two looks.
    """

    def __init__(
        self,
        path: Path,
        ended: Callable[[], bool],
        start: int = 0,
        *,
        piece: int = PIECE,
        hold: bool = _HOLD,
    ) -> None:
        self._path = path
        self._ended = ended
        self._position = start
        self._piece = piece
        self._hold = hold
        self._file = -1
        self._ask_at = 0.0
        self._over = False
        self._until = 0  # where the file ended when its writer was done

    def __enter__(self) -> GrowingFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        if self._file >= 0:
            file, self._file = self._file, -1
            os.close(file)

    def finish(self) -> None:
        """Take the writer for done: what is there now is still read, what comes later is not."""
        if not self._over:
            self._over = True
            if self._file >= 0:
                self._until = self._find_end()

    def read(self) -> bytes | None:
        """The next piece; empty if there is nothing new; None once the writer is done and all was read."""
        # Whether it ended is asked before the read: asked after it, the last lines could come in between.
        if not self._over and (now := time.monotonic()) >= self._ask_at:
            self._ask_at = now + POLL
            if self._ended():
                self.finish()
        data = self._next()
        if not data and self._replaced():
            # Once more: the old file may have grown before the new one took its place.
            data = self._next()
            if not data:
                self.close()
                self._position = 0
                data = self._next()
        if data:
            return data
        if not self._hold:
            self.close()
        return None if self._over else b""

    def _next(self) -> bytes:
        """What follows in the file at hand, after opening it if need be."""
        if self._file < 0 and not self._open():
            return b""
        size = self._piece
        if self._over:
            # A writer that goes on all the same, such as a forgotten child, keeps nobody here.
            size = min(size, self._until - self._position)
        data = os.read(self._file, size) if size > 0 else b""
        if not data and self._cut_short():
            return self._next()
        self._position += len(data)
        return data

    def _open(self) -> bool:
        try:
            self._file = os.open(self._path, os.O_RDONLY | _BINARY)
        except FileNotFoundError:
            return False
        except PermissionError:
            # On Windows also a file that is just being deleted or renamed.
            if self._hold:
                raise
            return False
        self._until = self._find_end()
        self._cut_short()
        return True

    def _find_end(self) -> int:
        """Where the file ends. Asked by seeking: network drives answer stat with what they remember."""
        end = os.lseek(self._file, 0, os.SEEK_END)
        if end > self._position:
            os.lseek(self._file, self._position, os.SEEK_SET)
        return end

    def _cut_short(self) -> bool:
        """Begin again if the file is shorter than what was read of it."""
        end = self._find_end()
        if end >= self._position:
            return False
        os.lseek(self._file, 0, os.SEEK_SET)
        self._position = 0
        self._until = end
        return True

    def _replaced(self) -> bool:
        """Whether another file lies at the path, and its writer has begun with it."""
        if self._file < 0 or not self._hold:
            return False
        try:
            there = os.stat(self._path)
        except OSError:
            return False
        # A rotation often makes the new file first and has the writer move to it a moment later.
        return there.st_size > 0 and not os.path.samestat(there, os.fstat(self._file))


def follow(path: Path, ended: Callable[[], bool], start: int = 0) -> Iterator[bytes]:
    """Yield a growing file piece by piece, as it is written, until its writer is done.

    Pieces are bytes as they are, cut anywhere, of at most 256 KiB.

    Args:
        path: The file; waited for until it is there.
        ended: Whether its writer is done. Asked every 20 ms at most, so it has to be quick.
        start: Where to begin, in bytes.
    """
    with GrowingFile(path, ended, start) as file:
        while (data := file.read()) is not None:
            if data:
                yield data
            else:
                time.sleep(POLL)
