"""Following a log that another process writes, until that process is done.

The file is polled every 20 ms. File notifications of the system do not work everywhere, such as on network drives and
in folders shared with containers.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

#: Seconds between two reads of a log that has nothing new.
POLL = 0.02
#: The most bytes that are read, and held, at a time.
PIECE = 256 * 1024

# On Windows a file that another program has open cannot be renamed or deleted, and st_ino is not reliable. So the file
# is not kept open there between two reads, and a new file at the path is recognized by its size alone. Not tested on
# Windows.
_HOLD = os.name != "nt"
_BINARY = getattr(os, "O_BINARY", 0)


class GrowingFile:
    """A growing file, read without waiting.

    A file that was truncated is read again from its start. A file that was replaced at its path is read to its end,
    then the new one. What is truncated, or replaced twice, between two reads is missed.

    Args:
        path: The file, which may not exist yet.
        ended: Whether its writer is done. It is called up to every 20 ms, so it has to be quick.
        start: The offset to begin at, in bytes.
        piece: The most bytes of one read.
        hold: Keep the file open between two reads.
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
        """Close the file."""
        if self._file >= 0:
            file, self._file = self._file, -1
            os.close(file)

    def finish(self) -> None:
        """Treat the writer as done: what is in the file now is still read, what comes later is not."""
        if not self._over:
            self._over = True
            if self._file >= 0:
                self._until = self._find_end()

    def read(self) -> bytes | None:
        """The next piece; empty if there is nothing new; None once the writer is done and all was read."""
        # Checked before the read: if it were checked after, the last lines could be missed in between.
        if not self._over and (now := time.monotonic()) >= self._ask_at:
            self._ask_at = now + POLL
            if self._ended():
                self.finish()
        data = self._next()
        if not data and self._replaced():
            # Again: the old file may have grown before it was replaced.
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
        """Read on in the current file; it is opened if necessary."""
        if self._file < 0 and not self._open():
            return b""
        size = self._piece
        if self._over:
            # A writer that goes on all the same, such as an orphaned child, must not keep this from ending.
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
            # On Windows also while the file is being deleted or renamed.
            if self._hold:
                raise
            return False
        self._until = self._find_end()
        self._cut_short()
        return True

    def _find_end(self) -> int:
        """The end of the file, found by seeking: on network drives, stat may return a cached size."""
        end = os.lseek(self._file, 0, os.SEEK_END)
        if end > self._position:
            os.lseek(self._file, self._position, os.SEEK_SET)
        return end

    def _cut_short(self) -> bool:
        """Go back to the start if the file is shorter than what was read of it."""
        end = self._find_end()
        if end >= self._position:
            return False
        os.lseek(self._file, 0, os.SEEK_SET)
        self._position = 0
        self._until = end
        return True

    def _replaced(self) -> bool:
        """Whether another file is at the path, and has content."""
        if self._file < 0 or not self._hold:
            return False
        try:
            there = os.stat(self._path)
        except OSError:
            return False
        # A rotation often creates the new file first, and the writer moves to it a moment later.
        return there.st_size > 0 and not os.path.samestat(there, os.fstat(self._file))


def follow(path: Path, ended: Callable[[], bool], start: int = 0) -> Iterator[bytes]:
    """Yield a growing file piece by piece, as it is written, until its writer is done.

    Pieces are bytes as they are, cut anywhere, of at most 256 KiB.

    Args:
        path: The file; it is waited for if it does not exist.
        ended: Whether its writer is done. It is called up to every 20 ms, so it has to be quick.
        start: The offset to begin at, in bytes.
    """
    with GrowingFile(path, ended, start) as file:
        while (data := file.read()) is not None:
            if data:
                yield data
            else:
                time.sleep(POLL)
