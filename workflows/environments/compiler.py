"""Compiles files to byte code: ``python -I -S compiler.py LIST``, run by the Python that will import them.

LIST is a file with paths, each ended by a NUL. Python's own ``compileall`` takes half as long again, since it looks up
the same things for each file. The byte code is the same as Python's own (PEP 552: validated by the source's time and
size). This file uses only the standard library, and runs on Python 3.8.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from importlib.util import MAGIC_NUMBER
from marshal import dumps

_MASK = 0xFFFFFFFF


def compile_file(path: str) -> None:
    """Compile a file without valid byte code; one that this Python cannot compile, such as a template, is skipped.

    Args:
        path: The source.

    Raises:
        OSError: The byte code cannot be written.
    """
    folder, name = os.path.split(path)
    folder = os.path.join(folder, "__pycache__")
    target = os.path.join(folder, f"{name[:-3]}.{sys.implementation.cache_tag}.pyc")
    try:
        with open(path, "rb") as source:
            found = os.fstat(source.fileno())
            numbers = (0, int(found.st_mtime) & _MASK, found.st_size & _MASK)
            head = MAGIC_NUMBER + b"".join(number.to_bytes(4, "little") for number in numbers)
            if _starts_with(target, head):
                return
            code = compile(source.read(), path, "exec", dont_inherit=True)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder)
        # Never overwrite an existing file: it may be a link that other environments share.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(target)
        with open(target, "xb") as file:
            file.write(head + dumps(code))
    except (FileNotFoundError, FileExistsError):
        # Another process is replacing the package by another version.
        return
    except BaseException:
        # A truncated file would make the import of the module fail.
        with contextlib.suppress(OSError):
            os.unlink(target)
        raise


def _starts_with(path: str, head: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(head)) == head
    except FileNotFoundError:
        return False


def main(list_file: str) -> None:
    """Compile the files that are listed in a file."""
    # Syntax warnings are for whoever imports the modules.
    warnings.simplefilter("ignore")
    with open(list_file, "rb") as file:
        for path in file.read().split(b"\0"):
            if path:
                compile_file(os.fsdecode(path))


if __name__ == "__main__":
    main(sys.argv[1])
