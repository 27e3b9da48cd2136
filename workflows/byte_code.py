"""Byte code of the program's own files where they lie in a folder; what pip installs is compiled by pip."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def byte_code_enabled() -> Iterator[None]:
    """Have what is imported here compiled once, and not by each command again.

    Invoke keeps Python from writing byte code, so that none lies beside a project's tasks.py; modules that other
    people's code imports are left to it. Whoever has asked Python for no byte code gets none.
    """
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def compile_folder(folder: Path) -> None:
    """Compile what lies in a folder, for programs of this Python that write no byte code themselves.

    What is compiled already is left alone, and where nothing may be written, nothing is.
    """
    if sys.flags.dont_write_bytecode:
        return
    import compileall

    compileall.compile_dir(folder, quiet=2)
