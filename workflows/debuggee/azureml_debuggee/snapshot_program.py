"""Describes the program: its command line, packages, and threads' names."""

from __future__ import annotations

import os
import sys
import time

from . import snapshot_types
from .snapshot_types import as_str, is_text

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Dict, List

    from .snapshot_names import Names

#: Packages and arguments that are listed, and characters of an argument, at most.
_MOST_PACKAGES, _MOST_ARGUMENTS, _MOST_CHARACTERS = 500, 200, 1000
#: Folders of packages that are listed at most.
_MOST_FOLDERS = 8


def current_time() -> str:
    """The current time in UTC, as ``2026-11-30T08:00:00.123Z``."""
    seconds = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + ".{:03d}Z".format(int(seconds % 1 * 1000))


def keep_secret_variables(names: Names) -> None:
    """Remember the secrets in the environment variables, so that they are removed from the whole snapshot."""
    data: Any = getattr(os.environ, "_data", None)
    for name, value in list(dict.items(data)) if type(data) is dict else ():
        if type(name) in (str, bytes) and type(value) in (str, bytes) and names.is_secret(os.fsdecode(name)):
            names.keep(os.fsdecode(name), os.fsdecode(value))


def describe(names: Names, folder: str) -> Dict[str, Any]:
    """Describe the program: its command line without secrets, its folder, its Python.

    Args:
        names: Tells what is left out.
        folder: The folder that it was started in.
    """
    argv: Any = sys.argv
    given = list.__getitem__(argv, slice(0, _MOST_ARGUMENTS)) if type(argv) is list else []
    arguments = [as_str(one)[:_MOST_CHARACTERS] for one in given if is_text(one)]
    try:
        current = os.getcwd()
    except OSError:
        current = folder  # It has been removed.
    version = "{}.{}.{}".format(*sys.version_info[:3])
    return {
        "argv": [names.text(one) for one in names.arguments(arguments)],
        "folder": current,
        "started_in": folder,
        "python": version,
        "executable": sys.executable,
        "platform": _platform(),
        "pid": os.getpid(),
        "parent": os.getppid(),
        "process": process_name(),
    }


def _platform() -> str:
    if not hasattr(os, "uname"):
        return sys.platform
    system = os.uname()
    return "{}-{}-{}".format(system.sysname, system.release, system.machine)


def process_name() -> str:
    """The name that multiprocessing has given this process."""
    current = snapshot_types.from_module(sys.modules, "multiprocessing.process", "_current_process")
    entries = None if current is None else snapshot_types.Shape(type(current)).entries(current)
    name = None if entries is None else dict.get(entries, "_name")
    return as_str(name)[:200] if is_text(name) else "MainProcess"


def known_threads() -> Dict[int, Dict[Any, Any]]:
    """The attributes of the thread objects of `threading`, by thread identity."""
    active = snapshot_types.from_module(sys.modules, "threading", "_active")
    found: Dict[int, Dict[Any, Any]] = {}
    shapes = snapshot_types.Shapes()
    for identity, thread in list(active.items()) if type(active) is dict else ():
        entries = shapes.shape_of(thread).entries(thread)
        if type(identity) is int and entries is not None:
            found[identity] = entries
    return found


def thread_name() -> str:
    """The current thread's name in `threading`."""
    import _thread

    name = dict.get(known_threads().get(_thread.get_ident(), {}), "_name")
    return as_str(name)[:200] if is_text(name) else "MainThread"


def packages() -> Dict[str, str]:
    """The versions of the loaded packages, by import name."""
    library = os.path.dirname(os.path.abspath(os.__file__))
    installed = _installed()
    found: Dict[str, str] = {}
    for name in sorted(name for name in list(sys.modules) if type(name) is str):
        if "." in name or name.startswith("_") or len(found) >= _MOST_PACKAGES:
            continue
        entries = snapshot_types.module_entries(sys.modules.get(name))
        file, version = dict.get(entries, "__file__"), dict.get(entries, "__version__")
        if type(file) is not str or (file.startswith(library) and "-packages" not in file):
            continue
        version = version if type(version) is str else installed.get(_normal(name))
        if version:
            found[name] = version[:100]
    return found


def _normal(name: str) -> str:
    return name.lower().replace("-", "_").replace(".", "_")


def _installed() -> Dict[str, str]:
    """The packages' versions from the names of their metadata folders; reading the metadata would take long."""
    found: Dict[str, str] = {}
    folders: List[str] = [one for one in sys.path if type(one) is str and one.endswith("-packages")]
    for folder in folders[:_MOST_FOLDERS]:
        try:
            entries = os.listdir(folder)
        except OSError:
            continue
        for entry in entries:
            if entry.endswith((".dist-info", ".egg-info")):
                name, _, version = entry.rpartition(".")[0].partition("-")
                found.setdefault(_normal(name), version.partition("-py")[0])
    return found
