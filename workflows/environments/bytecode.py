"""Compiles packages to byte code once for all environments that share their files.

uv links the files of a package from its cache into each environment. One process compiles packages in the cache while
uv fetches others. All cores compile the rest in the environment, and the byte code is linked back beside the cached
source, so that the next environment gets both. Python validates byte code by the source's time and size, which a link
keeps, and takes the source's path from where the module is loaded.
"""

from __future__ import annotations

import contextlib
import heapq
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from .compiler import find_sources
from .processes import Finished, running_command, wait_for_end

_COMPILER = Path(__file__).with_name("compiler.py")
#: The cost of opening a file, as the bytes of source that take as long to compile.
_PER_FILE = 2000
#: Bytes of source for which it pays to start another process.
_PER_PROCESS = 400_000


@contextlib.contextmanager
def compile_in_background(
    environment: Path, python: Path, scratch: Path, variables: Mapping[str, str]
) -> Iterator[list[Finished]]:
    """Compile the packages of an environment while the block runs.

    Args:
        environment: A virtual environment, or one of conda's.
        python: Its interpreter.
        scratch: A folder for temporary files.
        variables: The environment variables of the compiling processes.

    Yields:
        A list that has the results of these processes after the block; if one failed, some files are not compiled.
    """
    ended = list[Finished]()
    with contextlib.ExitStack() as stack:
        running = []
        for number, paths in enumerate(
            _distribute([one for site in _site_folders(environment) for one in find_sources(str(site))])
        ):
            listed = scratch / f"sources-{number}"
            listed.write_bytes(b"".join(os.fsencode(path) + b"\0" for path in paths))
            command = [str(python), "-I", "-S", str(_COMPILER), str(listed)]
            running.append(stack.enter_context(running_command(command, environment=variables)))
        yield ended
        ended += [wait_for_end(process) for process in running]


@contextlib.contextmanager
def compile_arriving(python: Path, cache: Path, scratch: Path, variables: Mapping[str, str]) -> Iterator[None]:
    """Compile packages in uv's cache while the block runs, as they arrive there: uv fetches others meanwhile.

    What is not compiled at the end of the block is left to :func:`compile_in_background`.

    Args:
        python: The interpreter of the environment that they will be linked into.
        cache: The cache.
        scratch: A folder for temporary files, on the same disk as the cache.
        variables: The environment variables of the compiling process.
    """
    temporary = str(scratch / "arriving.pyc")
    command = [str(python), "-I", "-S", str(_COMPILER), "--arriving", str(cache), temporary]
    with running_command(command, environment=variables):
        yield


class SharedBytecode:
    """Links the byte code of an environment's packages into the cache that their sources came from.

    Args:
        environment: A virtual environment, or one of conda's.
        cache: uv's cache. Packages whose files are copies, not links, are left out.
    """

    def __init__(self, environment: Path, cache: Path) -> None:
        archives = _archives(cache)
        self._package_folders = [
            place for site in _site_folders(environment) for place in _package_folders(site, archives)
        ]

    def link(self) -> None:
        """Link the byte code that has been compiled."""
        for compiled, modules, target in self._package_folders:
            _link_bytecode(compiled, modules, target)


def _site_folders(environment: Path) -> list[Path]:
    return [*environment.glob("lib/python*/site-packages"), environment / "Lib" / "site-packages"]


def _distribute(sources: list[tuple[int, str]]) -> list[list[str]]:
    """Divide sources among processes: the largest first, each to the process with the least work so far."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    work = sum(size + _PER_FILE for size, _path in sources)
    parts: list[tuple[int, int, list[str]]] = [
        (0, number, []) for number in range(min(cores, 1 + work // _PER_PROCESS) if sources else 0)
    ]
    for size, path in sorted(sources, reverse=True):
        least, number, paths = parts[0]
        paths.append(path)
        heapq.heapreplace(parts, (least + size + _PER_FILE, number, paths))
    return [paths for _size, _number, paths in parts]


def _archives(cache: Path) -> dict[tuple[int, int], Path]:
    """The packages in a cache, each by the identity of its METADATA file, which environments link."""
    found = dict[tuple[int, int], Path]()
    for metadata in cache.glob("archive-v*/*/*.dist-info/METADATA"):
        with contextlib.suppress(OSError):
            found[_identity(metadata)] = metadata.parents[1]
    return found


def _identity(path: Path) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _package_folders(site: Path, archives: Mapping[tuple[int, int], Path]) -> Iterator[tuple[Path, set[str], Path]]:
    """The byte code folders of linked packages, their modules, and the byte code folders in the cache."""
    for metadata in site.glob("*.dist-info/METADATA"):
        archive = archives.get(_identity(metadata))
        if archive is None:
            continue
        modules = defaultdict[str, set[str]](set)
        # A name with a comma is quoted in RECORD, and cannot be a module's.
        for line in metadata.with_name("RECORD").read_text("utf-8", "replace").splitlines():
            name = line.partition(",")[0]
            if name.endswith(".py") and not name.startswith(("..", "/")):
                folder, _, file = name.rpartition("/")
                modules[folder].add(file.removesuffix(".py"))
        for folder, names in modules.items():
            if (archive / folder).is_dir():
                yield site / folder / "__pycache__", names, archive / folder / "__pycache__"


def _link_bytecode(compiled: Path, modules: set[str], target: Path) -> None:
    """Link the byte code of modules into the cache."""
    with contextlib.suppress(OSError):
        names = [name for name in os.listdir(compiled) if name.endswith(".pyc") and name.partition(".")[0] in modules]
        if names:
            target.mkdir(exist_ok=True)
        for name in names:
            # Another process may have linked it already, or be clearing the cache.
            with contextlib.suppress(OSError):
                os.link(compiled / name, target / name)
