"""Byte code of the program's own files where they lie in a folder; what pip installs is compiled by pip."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept() -> Iterator[None]:
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
