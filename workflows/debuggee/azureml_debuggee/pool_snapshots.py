"""Keeps what a task of a pool of processes raised until its parent ends by it: frames and variables are the worker's.

A worker of ``multiprocessing.Pool`` or ``ProcessPoolExecutor`` catches what a task raises and hands it to its parent,
which gets the exception with the traceback as a text. So the worker describes it in a hidden file of its own, and
names it by that text. Where an exception that nobody catches in the parent has such a text behind it, the file
becomes a snapshot beside the parent's. What the parent has caught is removed at its end.

Described is the first exception of each kind and place, and ten of a worker at most: a program may raise and catch
many.
"""

from __future__ import annotations

import os
import sys

from . import snapshot_files

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Mapping, Set, Tuple

#: The modules, and the class in each that a worker makes of what it hands to its parent.
CLASSES = {"multiprocessing.pool": "ExceptionWithTraceback", "concurrent.futures.process": "_ExceptionWithTraceback"}
_BEGINNING, _END = ".pool-", ".json"
#: Exceptions behind one another that are looked through.
_MOST_BEHIND = 20
#: Kinds and places of which this worker has described one.
_seen: Set[Tuple[Any, ...]] = set()


def change_module(module: Any, write: Callable[[Any, Any, str], None]) -> None:
    """Have the workers of a module describe what their tasks raise.

    Args:
        module: One of :data:`CLASSES`.
        write: Writes a snapshot of an exception with its traceback under a name; never raises.
    """
    made: Any = getattr(module, CLASSES[module.__name__])
    begin = made.__init__

    def __init__(self: Any, exc: Any, tb: Any) -> None:
        begin(self, exc, tb)
        try:
            name = _name_for(exc, tb, self.tb)
        except Exception:
            return  # Another version than the known ones.
        if name:
            write(exc, tb, name)

    made.__init__ = __init__


def _name_for(error: Any, trace: Any, text: str) -> str:
    """The name of the file for an exception; empty where one like it has been described."""
    parent = sys.modules["multiprocessing.process"].parent_process()
    if parent is None or trace is None:
        return ""
    last = trace
    while last.tb_next is not None:
        last = last.tb_next
    place = (type(error), id(last.tb_frame.f_code), last.tb_lineno)
    if place in _seen or len(_seen) >= snapshot_files.MOST_OF_PROCESS:
        return ""
    _seen.add(place)
    return "{}{}-{}-{}{}".format(_BEGINNING, parent.pid, _digest(text), os.getpid(), _END)


def _digest(text: str) -> str:
    import zlib

    data = text.encode("utf-8", "backslashreplace")
    return "{:08x}{:08x}".format(zlib.crc32(data), zlib.adler32(data))


def make_snapshots(error: Any, environment: Mapping[str, str]) -> None:
    """Make snapshots of what workers have described of the exceptions behind one that nobody catches."""
    folder = environment.get(snapshot_files.FOLDER, "")
    waiting = _waiting(folder)
    cause: Any = BaseException.__dict__["__cause__"]
    context: Any = BaseException.__dict__["__context__"]
    arguments: Any = BaseException.__dict__["args"]
    for _ in range(_MOST_BEHIND if waiting else 0):
        error = cause.__get__(error) or context.__get__(error)
        if error is None:
            return
        told = arguments.__get__(error)
        if type(told) is tuple and len(told) == 1 and type(told[0]) is str and _digest(told[0]) in waiting:
            name, worker = waiting[_digest(told[0])]
            path = snapshot_files.next_path(folder, environment, worker)
            if path is not None:
                os.replace(os.path.join(folder, name), path)


def remove_unclaimed(environment: Mapping[str, str]) -> None:
    """Remove what the workers of this process have described and nobody has asked for."""
    folder = environment.get(snapshot_files.FOLDER, "")
    for name, _ in _waiting(folder).values():
        try:
            os.unlink(os.path.join(folder, name))
        except OSError:
            pass


def _waiting(folder: str) -> Dict[str, Tuple[str, int]]:
    """Name and worker of each file for this process, by the digest of the text that names it."""
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
