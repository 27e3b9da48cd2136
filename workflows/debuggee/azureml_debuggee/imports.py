"""Imports for the debuggee in a program whose modules may have the names of standard modules.

A `queue.py` or `select.py` beside the script hides the standard module, also from the debuggee and
from debugpy, which import many modules late: when a debugger attaches, or when the program has
failed. While :data:`own` is entered, the standard library comes first for this thread, and the
program's modules with such names are not in `sys.modules`. Afterwards they are back, and the
standard modules that the debuggee has loaded in their place are removed from `sys.modules`.
"""

from __future__ import annotations

import _thread
import os
import sys
from importlib.machinery import PathFinder

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Dict, FrozenSet, Iterable, List, Optional, Set

#: The folder of Python's own modules.
_LIBRARY = os.path.dirname(os.path.abspath(os.__file__))
#: Seconds to wait for another thread's imports, which may themselves wait for one of this thread's.
_LOCK_SECONDS = 5.0

#: Modules that the debuggee has loaded and whose names the program uses.
_stash: Dict[str, Any] = {}
_cache: Dict[str, Any] = {}
_names: Optional[FrozenSet[str]] = None
#: Folders of the program's modules that are not in `sys.path` yet; and folders that come last for the debuggee.
_front_folders: List[str] = []
_last_folders: List[str] = []


def set_program_folders(fronts: Iterable[str], code: Iterable[str]) -> None:
    """Set the folders of the program's own modules.

    Args:
        fronts: Folders that Python has yet to put at the front of `sys.path`.
        code: Folders of the program's own code, which contain nothing that the debuggee needs.
    """
    _front_folders[:], _last_folders[:] = fronts, code


def standard_module(name: str) -> Any:
    """A module of the standard library, even if the program has a module of that name."""
    if name not in _cache:
        with own:
            __import__(name)
            _cache[name] = sys.modules[name]
    return _cache[name]


def _is_library(path: str) -> bool:
    path = os.path.abspath(path)
    inside = path.startswith(os.path.join(_LIBRARY, "")) or path == _LIBRARY
    return inside and "-packages" not in path[len(_LIBRARY) :]


def _is_archive(entry: str) -> bool:
    return entry.endswith("python{}{}.zip".format(*sys.version_info))


def _library_names() -> FrozenSet[str]:
    """The names of Python's own modules."""
    global _names
    if _names is None:
        known: Any = getattr(sys, "stdlib_module_names", None)
        if known is None:
            # Before Python 3.10.
            known = set(sys.builtin_module_names)
            for folder in (_LIBRARY, os.path.join(_LIBRARY, "lib-dynload")):
                if os.path.isdir(folder):
                    known.update(entry.partition(".")[0] for entry in os.listdir(folder))
        _names = frozenset(known) - {"__main__", "sitecustomize", "usercustomize"}
    return _names


def _import_path() -> List[str]:
    """`sys.path` with Python's own folders first, and the program's last."""
    last = {os.path.abspath(entry) for entry in [*_front_folders, *_last_folders, os.getcwd()]}
    library = [entry for entry in sys.path if _is_library(entry) or _is_archive(entry)]
    others = [entry for entry in sys.path if entry not in library]
    return library + sorted(others, key=lambda entry: os.path.abspath(entry) in last)


def _shadowing_modules() -> Dict[str, Any]:
    """The program's modules that have names of standard modules, with their submodules."""
    names = _library_names()
    found: Set[str] = set()
    for name, module in list(sys.modules.items()):
        if name not in names:
            continue
        file = getattr(module, "__file__", None)
        is_importing = getattr(getattr(module, "__spec__", None), "_initializing", False)
        if isinstance(file, str) and not is_importing and not _is_library(file) and "-packages" not in file:
            found.add(name)
    if not found:
        return {}
    return {name: module for name, module in list(sys.modules.items()) if name.partition(".")[0] in found}


def _hidden_names() -> Set[str]:
    """The names of standard modules that other files on the program's import path hide."""
    hidden: Set[str] = set()
    for folder in _front_folders + sys.path:
        if _is_library(folder) or _is_archive(folder):
            break
        try:
            entries = os.listdir(folder or os.curdir)
        except OSError:
            continue
        for entry in entries:
            name, dot, kind = entry.partition(".")
            if dot:
                is_module = kind == "py" or kind.endswith(("so", "pyd"))
            else:
                is_module = os.path.isfile(os.path.join(folder, entry, "__init__.py"))
            if is_module:
                hidden.add(name)
    return hidden & _library_names()


class _Finder:
    """Finds modules for the debuggee's threads; it comes before Python's path finder."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if path is not None or not own.is_inside():
            return None
        return PathFinder.find_spec(name, own.path, target)


class _Own:
    def __init__(self) -> None:
        self.path: List[str] = []
        self._lock = _thread.RLock()
        self._finder = _Finder()
        self._depths: Dict[int, int] = {}
        self._before: Set[str] = set()
        self._shadowing: Dict[str, Any] = {}
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self) -> None:
        # Another thread of the parent may have held the lock.
        if self._depths and _thread.get_ident() not in self._depths:
            self._lock, self._depths = _thread.RLock(), {}
            self._restore()

    def is_inside(self) -> bool:
        return _thread.get_ident() in self._depths

    def __enter__(self) -> None:
        thread = _thread.get_ident()
        depth = self._depths.get(thread, 0)
        if depth or self._lock.acquire(timeout=_LOCK_SECONDS):
            self._depths[thread] = depth + 1
        if self._depths.get(thread) == 1:
            try:
                self._clear()
            except Exception:
                pass  # The imports then see the program's modules.

    def __exit__(self, *_: Any) -> None:
        thread = _thread.get_ident()
        depth = self._depths.get(thread, 0)
        if depth > 1:
            self._depths[thread] = depth - 1
        elif depth:
            try:
                self._restore()
            except Exception:
                pass
            del self._depths[thread]
            self._lock.release()

    def _clear(self) -> None:
        self.path = _import_path()
        finders: List[Any] = sys.meta_path
        # It is never removed: another thread that iterates over the finders at that moment would skip one.
        if self._finder not in finders:
            finders.insert(finders.index(PathFinder) if PathFinder in finders else 0, self._finder)
        self._shadowing = _shadowing_modules()
        for name in self._shadowing:
            sys.modules.pop(name, None)
        self._before = set(sys.modules)
        for name, module in _stash.items():
            sys.modules.setdefault(name, module)

    def _restore(self) -> None:
        loaded = [name for name in list(sys.modules) if name not in self._before]
        hidden = {name.partition(".")[0] for name in self._shadowing} | {name.partition(".")[0] for name in _stash}
        if any(name in _library_names() for name in loaded):
            hidden |= _hidden_names()
        for name in loaded:
            if name.partition(".")[0] in hidden:
                _stash[name] = sys.modules.pop(name)
        sys.modules.update(self._shadowing)
        self._shadowing = {}


#: A context manager for the debuggee's own imports. It never raises, and may be entered again.
own = _Own()
