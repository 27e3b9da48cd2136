"""Byte code compiled once for all environments that share a package's files.

uv links the files of a package from its cache into each environment, and compiles them there anew. What
has been compiled is linked back beside the cached source, so that the next environment gets both: Python
takes byte code for valid by the source's time and size, which a link keeps, and it is told the source's
place when it is loaded.
"""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from pathlib import Path


def share(environment: Path, cache: Path) -> None:
    """Link the byte code of an environment into the cache that its packages came from.

    Args:
        environment: A virtual environment, or conda's.
        cache: uv's cache; where the environment's files are copies, nothing is done.
    """
    archives = dict[tuple[int, int], Path]()
    for metadata in cache.glob("archive-v*/*/*.dist-info/METADATA"):
        with contextlib.suppress(OSError):
            archives[_identity(metadata)] = metadata.parents[1]
    sites = [*environment.glob("lib/python*/site-packages"), environment / "Lib" / "site-packages"]
    for site in sites:
        for metadata in site.glob("*.dist-info/METADATA"):
            archive = archives.get(_identity(metadata))
            if archive is not None:
                _share(site, metadata.with_name("RECORD"), archive)


def _identity(path: Path) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _share(site: Path, record: Path, archive: Path) -> None:
    sources = defaultdict[str, set[str]](set)
    # A name with a comma stands in quotes, and is nobody's module.
    for line in record.read_text("utf-8", "replace").splitlines():
        name = line.partition(",")[0]
        if name.endswith(".py") and not name.startswith(("..", "/")):
            folder, _, file = name.rpartition("/")
            sources[folder].add(file.removesuffix(".py"))
    for folder, modules in sources.items():
        target = archive / folder
        if not target.is_dir():
            continue
        for compiled in (site / folder / "__pycache__").glob("*.pyc"):
            if compiled.name.partition(".")[0] in modules:
                place = target / "__pycache__" / compiled.name
                # Somebody else may have been quicker, or be clearing the cache.
                with contextlib.suppress(OSError):
                    place.parent.mkdir(exist_ok=True)
                    os.link(compiled, place)
