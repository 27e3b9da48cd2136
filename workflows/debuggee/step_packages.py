"""Keeps packages that a step installs out of the shared environment: pip and uv change a copy of it for the step.

This file is in an environment's site-packages under :data:`NAME`, and a ``.pth`` file there loads it in every Python of
a step. The variable ``AZUREML_DEBUGGEE_PACKAGES`` names a folder of the step, an empty virtual environment. Its
site-packages come before the environment's on the import path, so that a program can import what it has installed. When
pip or uv first starts the folder's own interpreter, the environment's files are linked into the folder. pip and uv
replace files and never write into them, so the environment's own files do not change. Only the byte code of
pip's modules is added to the environment, so that pip starts quickly in later steps.

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
#: In the step's folder: its interpreter; the mark that the environment's files are linked; the folder while linking.
INTERPRETER, FILLED, FILLING = os.path.join("interpreter", "python"), "filled", "filling"
#: In the step's site-packages: the file that has the environment's files linked when the interpreter starts.
FILL = "azureml_debug_fill.pth"
#: Set for a process of the step's interpreter that runs pip; the programs that pip starts do not have it.
_RUNS_PIP = "AZUREML_DEBUGGEE_RUNS_PIP"
#: Seconds that another process may take to link the environment's files.
PATIENCE = 300.0
_PIP_COMMANDS = {"install", "uninstall"}
_PIP_MODULES = ("pip._internal.cli.main", "pip._internal.main")
#: Modules that a setup.py imports, and its commands that change installed packages.
_SETUP_MODULES, _SETUP_COMMANDS = ("setuptools", "distutils.core"), {"install", "develop"}


def begin() -> None:
    """Have this process import what its step has installed; never raises."""
    folder, site = os.environ.get(VARIABLE, ""), os.path.dirname(os.path.abspath(__file__))
    own = site_packages(folder)
    _write_byte_code_of_pip()
    try:
        if os.path.realpath(sys.prefix) == os.path.realpath(folder) or not os.path.isdir(own) or own in sys.path:
            return
        place = sys.path.index(site) if site in sys.path else len(sys.path)
        sys.path.insert(place, own)
        if os.path.exists(os.path.join(folder, FILLED)):
            # The copy replaces the environment completely.
            if site in sys.path:
                sys.path.remove(site)
            _add_paths(own, site)
        sys.meta_path.insert(0, _PipFinder(folder))
    except (OSError, ValueError):
        pass


def site_packages(folder: str) -> str:
    """The site-packages folder of a virtual environment of this Python."""
    return os.path.join(folder, "lib", "python{}.{}".format(*sys.version_info[:2]), "site-packages")


def _add_paths(own: str, site: str) -> None:
    """Add the paths from ``.pth`` files that the step has installed, as for editable packages."""
    from site import addpackage

    for name in sorted(os.listdir(own)):
        if name.endswith(".pth") and name != FILL and not os.path.exists(os.path.join(site, name)):
            addpackage(own, name, None)


class _PipFinder:
    """A finder before all others, which reacts to the import of pip's program; see ``import_hooks.py``."""

    def __init__(self, folder: str) -> None:
        self._folder, self._names = folder, set(_PIP_MODULES)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name in _SETUP_MODULES and _is_installing_setup():
            _replace_process([os.path.join(self._folder, INTERPRETER), *sys.argv], os.environ)
        if name not in self._names:
            return None
        command = _pip_command(sys.argv[1:], self._folder) if _is_pip() else None
        if command is not None:
            # Loading pip here as well would take most of the time of a small installation.
            _replace_process(command, {**os.environ, _RUNS_PIP: "1"})
        self._names = set()
        from importlib.machinery import PathFinder

        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_change(module: Any) -> None:
                load(module)
                module.main = _redirect_pip(module.main, self._folder)

            spec.loader.exec_module = load_and_change  # type: ignore[method-assign]
        return spec


def _is_installing_setup() -> bool:
    """Whether this process is a setup.py that installs its package."""
    arguments = getattr(sys, "argv", None) or [""]
    return os.path.basename(arguments[0]) == "setup.py" and not _SETUP_COMMANDS.isdisjoint(arguments[1:])


def _is_pip() -> bool:
    """Whether this process is pip itself: ``pip``, ``pip3.11`` or ``python -m pip``."""
    program: str = (getattr(sys, "argv", None) or [""])[0]
    name = os.path.basename(program)
    if name == "__main__.py":
        name = os.path.basename(os.path.dirname(program))
    return name[:3] == "pip" and not name[3:].strip("0123456789.")


def _pip_command(arguments: List[str], folder: str) -> Optional[List[str]]:
    """The command that runs pip in the step's interpreter; None where pip does not change installed packages."""
    if _PIP_COMMANDS.isdisjoint(arguments) and not os.path.exists(os.path.join(folder, FILLED)):
        return None
    # The step's folder takes the place of the user's site, which virtual environments do not use.
    arguments = [word for word in arguments if word != "--user"]
    isolated = ["-I"] if sys.flags.isolated else []
    return [os.path.join(folder, INTERPRETER), *isolated, "-m", "pip", *arguments]


def _replace_process(command: List[str], variables: Any) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(command[0], command, variables)  # noqa: S606


def _redirect_pip(original: Any, folder: str) -> Any:
    """The main function of pip, which runs in the step's interpreter if it changes installed packages."""

    def main(args: Optional[List[str]] = None) -> Any:
        command = _pip_command(sys.argv[1:] if args is None else list(args), folder)
        if command is None:
            return original(args)
        variables = {**os.environ, _RUNS_PIP: "1"}
        if args is None:
            _replace_process(command, variables)
        sys.stdout.flush()
        sys.stderr.flush()
        import subprocess

        return subprocess.call(command, env=variables)

    return main


def _write_byte_code_of_pip() -> bool:
    """Have this process write byte code if it is the step's interpreter and runs pip; whether it is that.

    Programs of a step write none, since it would be left in the project's folder.
    """
    if os.environ.pop(_RUNS_PIP, None) is None:
        return False
    sys.dont_write_bytecode = False
    return True


def _share_byte_code(own: str, site: str) -> None:
    """Link the byte code of the modules of pip that this process has loaded into the environment; never raises."""
    for name, module in list(sys.modules.items()):
        found = getattr(module, "__dict__", {})
        source, compiled = found.get("__file__"), found.get("__cached__")
        if name.partition(".")[0] != "pip" or not source or not compiled:
            continue
        try:
            # The step may have installed another pip.
            if os.path.samefile(source, os.path.join(site, os.path.relpath(source, own))):
                target = os.path.join(site, os.path.relpath(compiled, own))
                os.makedirs(os.path.dirname(target), exist_ok=True)
                os.link(compiled, target)
        except (OSError, ValueError):
            pass


def fill(site: str, folder: str) -> None:
    """Link an environment's files into a step's folder, unless that has been done; never raises.

    Args:
        site: The environment's site-packages.
        folder: The step's folder.
    """
    if _write_byte_code_of_pip():
        import atexit

        atexit.register(_share_byte_code, site_packages(folder), site)
    try:
        if os.path.exists(os.path.join(folder, FILLED)):
            return
        try:
            os.mkdir(os.path.join(folder, FILLING))
        except FileExistsError:
            _wait_until_filled(folder)
            return
        _fill(site, folder)
    except OSError as error:
        # Packages are still installed into the step's folder, which comes before the environment.
        sys.stderr.write("azureml_debug: the environment cannot be copied for this step: {}\n".format(error))


def _fill(site: str, folder: str) -> None:
    own = site_packages(folder)
    scratch = os.path.join(folder, FILLING)
    environment = os.path.dirname(os.path.dirname(os.path.dirname(site)))
    if os.path.isdir(os.path.join(environment, "conda-meta")):
        # conda's packages expect libraries in the folder that contains Python's.
        for name in os.listdir(os.path.join(environment, "lib")):
            if not os.path.lexists(os.path.join(folder, "lib", name)):
                os.symlink(os.path.join(environment, "lib", name), os.path.join(folder, "lib", name))
    for name in os.listdir(site):
        _link(os.path.join(site, name), os.path.join(scratch, name))
    # A process that imports from the folder meanwhile finds a package completely or not at all.
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
            # It is on another file system, or links are not supported.
            import shutil

            shutil.copy2(source, target)


def _wait_until_filled(folder: str) -> None:
    """Wait until another process has linked the files."""
    import time

    deadline = time.monotonic() + PATIENCE
    while not os.path.exists(os.path.join(folder, FILLED)) and time.monotonic() < deadline:
        time.sleep(0.05)
