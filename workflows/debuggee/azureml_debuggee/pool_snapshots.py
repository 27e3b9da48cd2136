"""Keeps snapshots of exceptions in a pool's workers, until it is known whether they end the parent.

A worker of ``multiprocessing.Pool`` or ``ProcessPoolExecutor`` catches a task's exception and sends it to its parent,
with the traceback as text; only the worker has the frames and variables. So the worker writes a snapshot to a hidden
file, named by a digest of that text. If an uncaught exception in the parent has this text in its cause, the file
becomes a snapshot beside the parent's. Files for exceptions that the parent has caught are removed when it ends.

A program may raise and catch many exceptions. So a worker writes only the first of each type and place, and at most
ten.
"""

from __future__ import annotations

import os
import sys

from . import snapshot_files

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Mapping, Set, Tuple

#: The modules, and in each the class that wraps an exception for the parent.
CLASSES = {"multiprocessing.pool": "ExceptionWithTraceback", "concurrent.futures.process": "_ExceptionWithTraceback"}
_BEGINNING, _END = ".pool-", ".json"
#: Causes of an exception that are followed at most.
_MOST_CAUSES = 20
#: Types and places of which this worker has written a snapshot.
_written_places: Set[Tuple[Any, ...]] = set()


def change_module(module: Any, write: Callable[[Any, Any, str], None]) -> None:
    """Have a module's workers write snapshots of their tasks' exceptions.

    Args:
        module: One of :data:`CLASSES`.
        write: Writes a snapshot of an exception with its traceback under this file name; never raises.
    """
    made: Any = getattr(module, CLASSES[module.__name__])
    begin = made.__init__

    def __init__(self: Any, exc: Any, tb: Any) -> None:
        begin(self, exc, tb)
        try:
            name = _name_for(exc, tb, self.tb)
        except Exception:
            return  # An unknown version.
        if name:
            write(exc, tb, name)

    made.__init__ = __init__


def _name_for(error: Any, trace: Any, text: str) -> str:
    """The name of the file for an exception; empty if a similar one has been written."""
    parent = sys.modules["multiprocessing.process"].parent_process()
    if parent is None or trace is None:
        return ""
    last = trace
    while last.tb_next is not None:
        last = last.tb_next
    place = (type(error), id(last.tb_frame.f_code), last.tb_lineno)
    if place in _written_places or len(_written_places) >= snapshot_files.MOST_OF_PROCESS:
        return ""
    _written_places.add(place)
    return "{}{}-{}-{}{}".format(_BEGINNING, parent.pid, _digest(text), os.getpid(), _END)


def _digest(text: str) -> str:
    import zlib

    data = text.encode("utf-8", "backslashreplace")
    return "{:08x}{:08x}".format(zlib.crc32(data), zlib.adler32(data))


def make_snapshots(error: Any, environment: Mapping[str, str]) -> None:
    """Turn the files that workers have written for the causes of an uncaught exception into snapshots."""
    folder = environment.get(snapshot_files.FOLDER, "")
    hidden_files = _hidden_files(folder)
    cause: Any = BaseException.__dict__["__cause__"]
    context: Any = BaseException.__dict__["__context__"]
    arguments: Any = BaseException.__dict__["args"]
    for _ in range(_MOST_CAUSES if hidden_files else 0):
        error = cause.__get__(error) or context.__get__(error)
        if error is None:
            return
        texts = arguments.__get__(error)
        if type(texts) is tuple and len(texts) == 1 and type(texts[0]) is str and _digest(texts[0]) in hidden_files:
            name, worker = hidden_files[_digest(texts[0])]
            path = snapshot_files.next_path(folder, environment, worker)
            if path is not None:
                os.replace(os.path.join(folder, name), path)


def remove_unclaimed(environment: Mapping[str, str]) -> None:
    """Remove the files of this process's workers that have not become snapshots."""
    folder = environment.get(snapshot_files.FOLDER, "")
    for name, _ in _hidden_files(folder).values():
        try:
            os.unlink(os.path.join(folder, name))
        except OSError:
            pass


def _hidden_files(folder: str) -> Dict[str, Tuple[str, int]]:
    """Name and worker of each hidden file for this process, by the digest in its name."""
    found = {}
    begin = "{}{}-".format(_BEGINNING, os.getpid())
    try:
        names = os.listdir(folder) if folder else []
    except OSError:
        names = []
    for name in names:
        if name.startswith(begin) and name.endswith(_END):
            digest, _, worker = name[len(begin) : -len(_END)].partition("-")
            if worker.isdigit():
                found[digest] = (name, int(worker))
    return found
