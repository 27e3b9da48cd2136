"""What a step installs stays the step's: pip and uv change a copy of the environment, made when they first do.

Lies in an environment's site-packages under :data:`NAME` and is loaded by a ``.pth`` file there, in every Python of a
step, whose ``AZUREML_DEBUGGEE_PACKAGES`` names a folder of the step's own. That is a virtual environment with nothing
in it: its site-packages stand in front of the environment's, so that a program which installs something can import
it. When the folder's own interpreter is started for the first time, by pip or by uv, the environment's files are
linked into it. pip and uv replace files and never write into them, so the links leave the environment as it is.

Standard library only; Python 3.8 and later.
"""

from __future__ import annotations

import os
import sys

# As good as typing.TYPE_CHECKING, without importing that.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, List, Optional

NAME = "_azureml_debug_packages"
VARIABLE = "AZUREML_DEBUGGEE_PACKAGES"
#: In the step's folder: its interpreter; that the environment's files are there; and who puts them there.
INTERPRETER, FILLED, FILLING = os.path.join("interpreter", "python"), "filled", "filling"
#: In the step's site-packages: has the files put there when the interpreter starts.
FILL = "azureml_debug_fill.pth"
#: Seconds that another process may take to link the environment's files.
PATIENCE = 300.0
_CHANGING = {"install", "uninstall"}
_PIP = ("pip._internal.cli.main", "pip._internal.main")
#: What a setup.py imports, and its commands that change what is installed.
_SETUP, _SETTING_UP = ("setuptools", "distutils.core"), {"install", "develop"}


def begin() -> None:
    """Have this process see what its step installs; never raises."""
    folder, site = os.environ.get(VARIABLE, ""), os.path.dirname(os.path.abspath(__file__))
    own = site_packages(folder)
    try:
        if os.path.realpath(sys.prefix) == os.path.realpath(folder) or not os.path.isdir(own) or own in sys.path:
            return
        place = sys.path.index(site) if site in sys.path else len(sys.path)
        sys.path.insert(place, own)
        if os.path.exists(os.path.join(folder, FILLED)):
            # All that is left of the environment is in the copy.
            if site in sys.path:
                sys.path.remove(site)
            _take_paths(own, site)
        sys.meta_path.insert(0, _Pip(folder))
    except (OSError, ValueError):
        pass


def site_packages(folder: str) -> str:
    """Where packages lie in a virtual environment of this Python's."""
    return os.path.join(folder, "lib", "python{}.{}".format(*sys.version_info[:2]), "site-packages")


def _take_paths(own: str, site: str) -> None:
    """Do what those ``.pth`` files say that the step has installed: editable packages."""
    from site import addpackage

    for name in sorted(os.listdir(own)):
        if name.endswith(".pth") and name != FILL and not os.path.exists(os.path.join(site, name)):
            addpackage(own, name, None)


class _Pip:
    """Stands first among the finders for the moment at which pip's program is asked for; see ``import_hooks.py``."""

    def __init__(self, folder: str) -> None:
        self._folder, self._names = folder, set(_PIP)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name in _SETUP and _sets_up():
            python = os.path.join(self._folder, INTERPRETER)
            sys.stdout.flush()
            sys.stderr.flush()
            os.execv(python, [python, *sys.argv])  # noqa: S606
        if name not in self._names:
            return None
        self._names = set()
        from importlib.machinery import PathFinder

        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_change(module: Any) -> None:
                load(module)
                module.main = _redirected(module.main, self._folder)

            spec.loader.exec_module = load_and_change  # type: ignore[method-assign]
        return spec


def _sets_up() -> bool:
    """Whether this process is a setup.py that installs its package."""
    words = getattr(sys, "argv", None) or [""]
    return os.path.basename(words[0]) == "setup.py" and not _SETTING_UP.isdisjoint(words[1:])


def _redirected(original: Any, folder: str) -> Any:
    """The program pip, done by the step's interpreter where it changes what is installed."""

    def main(args: Optional[List[str]] = None) -> Any:
        words = sys.argv[1:] if args is None else list(args)
        if _CHANGING.isdisjoint(words) and not os.path.exists(os.path.join(folder, FILLED)):
            return original(args)
        python = os.path.join(folder, INTERPRETER)
        # The step's own folder is what a user's would be, which no virtual environment sees.
        words = [word for word in words if word != "--user"]
        command = [python, *(["-I"] if sys.flags.isolated else []), "-m", "pip", *words]
        sys.stdout.flush()
        sys.stderr.flush()
        if args is None:
            os.execv(python, command)  # noqa: S606
        import subprocess

        return subprocess.call(command)

    return main


def fill(site: str, folder: str) -> None:
    """Link an environment's files into a step's folder, where that has not been done yet; never raises.

    Args:
        site: The environment's site-packages.
        folder: The step's folder.
    """
    try:
        if os.path.exists(os.path.join(folder, FILLED)):
            return
        try:
            os.mkdir(os.path.join(folder, FILLING))
        except FileExistsError:
            _wait(folder)
            return
        _fill(site, folder)
    except OSError as error:
        # What is installed still goes into the step's folder, in front of the environment.
        sys.stderr.write("azureml_debug: the environment cannot be copied for this step: {}\n".format(error))


def _fill(site: str, folder: str) -> None:
    own = site_packages(folder)
    scratch = os.path.join(folder, FILLING)
    environment = os.path.dirname(os.path.dirname(os.path.dirname(site)))
    if os.path.isdir(os.path.join(environment, "conda-meta")):
        # conda's packages look for libraries beside Python's folder.
        for name in os.listdir(os.path.join(environment, "lib")):
            if not os.path.lexists(os.path.join(folder, "lib", name)):
                os.symlink(os.path.join(environment, "lib", name), os.path.join(folder, "lib", name))
    for name in os.listdir(site):
        _link(os.path.join(site, name), os.path.join(scratch, name))
    # Whoever imports from the folder meanwhile finds a package whole, or not there yet.
    for name in os.listdir(scratch):
        os.rename(os.path.join(scratch, name), os.path.join(own, name))
    open(os.path.join(folder, FILLED), "w").close()
    os.rmdir(scratch)
    os.unlink(os.path.join(own, FILL))


def _link(source: str, target: str) -> None:
    if os.path.islink(source):
        os.symlink(os.readlink(source), target)
    elif os.path.isdir(source):
        os.mkdir(target)
        with os.scandir(source) as entries:
            for entry in entries:
                _link(entry.path, os.path.join(target, entry.name))
    else:
        try:
            os.link(source, target)
        except OSError:
            # Another file system, or one without links.
            import shutil

            shutil.copy2(source, target)


def _wait(folder: str) -> None:
    """Wait for another process that links the files."""
    import time

    deadline = time.monotonic() + PATIENCE
    while not os.path.exists(os.path.join(folder, FILLED)) and time.monotonic() < deadline:
        time.sleep(0.05)
