"""Compiles files to byte code, run by the Python that will import them.

``python -I -S compiler.py LIST`` compiles the files whose paths are in LIST, each ended by a NUL. ``python -I -S
compiler.py --arriving CACHE TEMPORARY`` compiles the packages that arrive in uv's cache, until it is killed. Python's
own ``compileall`` takes half as long again, since it looks up the same things for each file. The byte code is the same
as Python's own (PEP 552: validated by the source's time and size). This file uses only the standard library, and runs
on Python 3.8.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from glob import escape, glob
from importlib.util import MAGIC_NUMBER
from marshal import dumps
from time import sleep

_MASK = 0xFFFFFFFF
#: Seconds between two looks for packages that have arrived.
_POLL_SECONDS = 0.05
#: Packages that are not compiled: pip is only run by hand, and takes a third of the time that all others take.
_LEFT_OUT = frozenset({"pip"})
#: Folders in packages that are not compiled: they are a quarter of a training environment, and programs import none.
_TESTS = frozenset({"tests"})


def find_sources(site: str) -> Iterator[tuple[int, str]]:
    """The size and path of each source that is compiled in a folder of packages."""
    for folder, folders, names in os.walk(site):
        if folder == site:
            # In uv's cache NAME.data has what is installed elsewhere. A folder among its scripts makes a wheel invalid.
            folders[:] = [name for name in folders if name not in _LEFT_OUT and not name.endswith(".data")]
        else:
            folders[:] = [name for name in folders if name not in _TESTS]
        for name in names:
            if name.endswith(".py"):
                path = os.path.join(folder, name)
                with contextlib.suppress(OSError):
                    yield os.stat(path).st_size, path


def compile_file(path: str, temporary: str) -> None:
    """Compile a file without valid byte code; one that this Python cannot compile, such as a template, is skipped.

    Args:
        path: The source.
        temporary: The file that the byte code is written to, on the same disk, before it gets its name. It would make
            the import of the module fail if it were cut off, or linked while it is incomplete.

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
        with open(temporary, "wb") as file:
            file.write(head + dumps(code))
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder)
        # An existing file is replaced, never written to: it may be a link that other environments share.
        os.replace(temporary, target)
    except FileNotFoundError:
        # Another process is replacing the package by another version.
        return


def _starts_with(path: str, head: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(head)) == head
    except FileNotFoundError:
        return False


def compile_listed(list_file: str) -> None:
    """Compile the files that are listed in a file."""
    with open(list_file, "rb") as file:
        for path in file.read().split(b"\0"):
            if path:
                compile_file(os.fsdecode(path), f"{list_file}.pyc")


def compile_arriving(cache: str, temporary: str) -> None:
    """Compile the packages that arrive in uv's cache from now on, until it cannot be written.

    Args:
        cache: The cache.
        temporary: See :func:`compile_file`.
    """
    # uv gives a package this name when it is complete.
    archives = os.path.join(escape(cache), "archive-v*", "*")
    known = set(glob(archives))
    while True:
        sleep(_POLL_SECONDS)
        for archive in sorted(set(glob(archives)) - known):
            known.add(archive)
            for _size, path in find_sources(archive):
                try:
                    compile_file(path, temporary)
                except OSError:
                    # The cache is on another disk, or the disk is full.
                    return


if __name__ == "__main__":
    # Syntax warnings are for whoever imports the modules.
    warnings.simplefilter("ignore")
    if sys.argv[1] == "--arriving":
        compile_arriving(*sys.argv[2:])
    else:
        compile_listed(sys.argv[1])
