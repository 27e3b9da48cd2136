"""Byte code of the program's own files in a source checkout; pip compiles what it installs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def byte_code_enabled() -> Iterator[None]:
    """Let Python write byte code for what is imported in the block, so that it is compiled only once.

    Invoke turns byte code off, so that a project gets no ``__pycache__`` beside its tasks.py. That still holds for
    modules that users' code imports, and where you have turned byte code off for Python yourself.
    """
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def compile_folder(folder: Path) -> None:
    """Compile the modules in a folder, for processes of this Python that write no byte code themselves.

    Compiled modules are left alone. A folder that cannot be written is ignored.
    """
    if sys.flags.dont_write_bytecode:
        return
    import compileall

    compileall.compile_dir(folder, quiet=2)
