"""Programs that write logs while the tests read them."""

from __future__ import annotations

import io
import itertools
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from workflows.logs.interleave import Interleaver

MIB = 1024 * 1024
ROOT = Path(__file__).resolve().parents[2]
#: What a writer's code begins with: `put` appends, `seen` waits until the test has seen it.
WRITER = """
import os, sys
path = sys.argv[1]
def put(data, mode="ab"):
    with open(path, mode) as file:
        file.write(data)
def seen():
    if not sys.stdin.readline():
        sys.exit(1)
"""


class Writer:
    """A process that writes a log."""

    def __init__(self, path: Path, code: str) -> None:
        # -S -I: hundreds of them are started.
        command = [sys.executable, "-S", "-I", "-c", WRITER + textwrap.dedent(code), str(path)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE)

    def ended(self) -> bool:
        return self.process.poll() is not None

    def tell(self) -> None:
        """Say that it was seen."""
        assert self.process.stdin
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()


@contextmanager
def writing(path: Path, code: str) -> Iterator[Writer]:
    writer = Writer(path, code)
    try:
        yield writer
        assert writer.process.wait() == 0
    finally:
        writer.process.kill()
        writer.process.communicate()


def looks(count: int) -> Callable[[], bool]:
    """A writer that is done from the given look on."""
    asked = itertools.count(1)
    return lambda: next(asked) >= count


def yes() -> bool:
    return True


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def interleaved(*sources: tuple[str, Path, Callable[[], bool]], terminal: bool = False) -> bytes:
    out = io.BytesIO()
    Interleaver(sources, out.write, terminal=terminal).run()
    return out.getvalue()


def still_open(path: Path) -> bool:
    return str(path) in [file.path for file in psutil.Process().open_files()]
