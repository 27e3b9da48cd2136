"""A folder for the packages that a step installs, so that the environment, which later runs share, stays unchanged.

:mod:`workflows.debuggee.step_packages` is the part that runs in the step.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

from ..debuggee import FOLDER as DEBUGGEE
from ..debuggee.step_packages import FILL, INTERPRETER, NAME, VARIABLE
from ..environments.virtual_environments import bytes_below
from ..paths import cache_folder
from ..private import make_folder
from ..project import write_bytes
from . import step_wrappers
from .base import Unused
from .step_variables import MARK

#: The line of a .pth file that loads the module: Python runs it at the start of every program of a step.
_HOOK = f"import os; '{VARIABLE}' in os.environ and __import__('{NAME}').begin()\n"
_HOOK_FILE = "azureml_debug_packages.pth"
#: In a step's folder: the folder that VIRTUAL_ENV names, and the one with the wrappers of programs.
_SEEN, _PROGRAMS = "seen", "programs"


def prepare(environment: Path, run_id: str, step: str) -> dict[str, str]:
    """Create the folder of a step, without packages yet.

    Args:
        environment: The virtual environment that the step runs in.
        run_id: The run.
        step: The step's name.

    Returns:
        The variables by which the step's programs find it; none where the environment has no site-packages.

    Raises:
        OSError: It cannot be created.
    """
    site = next(iter(sorted(environment.glob("lib/python*/site-packages"))), None)
    if site is None:
        return {}
    _install_hook(environment, site)
    folder = _folder(run_id) / step
    shutil.rmtree(folder, ignore_errors=True)
    own = folder / site.relative_to(environment)
    make_folder(own)
    make_folder((folder / INTERPRETER).parent)
    # For Pythons that install compiled packages into lib64.
    (folder / "lib64").symlink_to("lib")
    home, target = _base_python(environment)
    (folder / INTERPRETER).symlink_to(target)
    settings = f"home = {home}\ninclude-system-site-packages = false\n"
    (folder / "pyvenv.cfg").write_text(settings, "utf-8")
    # A second environment for programs such as poetry, which look for the Python of VIRTUAL_ENV. If the first folder
    # had that Python in its `bin`, which comes first on the path, it would be the Python of the whole step.
    environment_view = folder / _SEEN
    make_folder(environment_view / "bin")
    for program in (environment / "bin").iterdir():
        (environment_view / "bin" / program.name).symlink_to(target if program.name.startswith("python") else program)
    for name in ("lib", "lib64"):
        (environment_view / name).symlink_to(folder / "lib")
    (environment_view / "pyvenv.cfg").write_text(settings, "utf-8")
    others = os.pathsep.join([str(environment / "bin"), os.environ.get("PATH", os.defpath)])
    step_wrappers.make_wrappers(folder / _PROGRAMS, others)
    fill_line = f"import sys; sys.path.append({str(site)!r}); import {NAME}; sys.path.remove({str(site)!r}); "
    (own / FILL).write_text(f"{fill_line}{NAME}.fill({str(site)!r}, {str(folder)!r})\n", "utf-8")
    return {
        VARIABLE: str(folder),
        step_wrappers.ENVIRONMENT: str(environment),
        "UV_PYTHON": str(folder / INTERPRETER),
        "VIRTUAL_ENV": str(environment_view),
    }


def remove(run_id: str, step: str | None = None) -> None:
    """Remove the packages that a step, or every step of a run, has installed."""
    folder = _folder(run_id)
    shutil.rmtree(folder / step if step else folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def list_leftovers() -> list[Unused]:
    """Folders of steps whose runs were killed before they removed them.

    Their size counts only files that are nowhere else: most files of such a folder are links to an environment's.
    """
    folders = [folder for folder in (cache_folder() / "steps").glob("*") if folder.is_dir()]
    living = _find_living_runs({folder.name for folder in folders}) if folders else set()
    return [
        (f"packages of a step of {folder.name}", bytes_below(folder, alone=True), partial(remove, folder.name))
        for folder in sorted(folders)
        if folder.name not in living
    ]


def _find_living_runs(runs: set[str]) -> set[str]:
    """Those of some runs that still have a process: a step's is found by its mark, the runner by its folder."""
    import psutil

    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            values: dict[str, Any] = process.as_dict(["environ", "cmdline", "cwd"])
            found.add((values["environ"] or {}).get(MARK, "").partition("/")[0])
            found.update(os.path.basename(word) for word in (values["cwd"] or "", *(values["cmdline"] or ())))
    return found & runs


def program_path(variables: dict[str, str]) -> str:
    """The beginning of a step's PATH: the wrappers, and the programs that the step installs."""
    return os.pathsep.join(os.path.join(variables[VARIABLE], name) for name in (_PROGRAMS, "bin"))


def _folder(run_id: str) -> Path:
    # Beside the environments: files can be linked within one file system only.
    return cache_folder() / "steps" / run_id


def _install_hook(environment: Path, site: Path) -> None:
    """Install the module and its .pth file into an environment, unless they are there."""
    source = Path(DEBUGGEE, "step_packages.py").read_bytes()
    module, hook = site / f"{NAME}.py", site / _HOOK_FILE
    with contextlib.suppress(OSError):
        if module.read_bytes() == source and hook.read_text("utf-8") == _HOOK:
            return
    write_bytes(module, source)
    # Compiled once here: the step's programs write no byte code, so each would compile it again.
    compiling = [str(environment / "bin" / "python"), "-I", "-m", "py_compile", str(module)]
    subprocess.run(compiling, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    write_bytes(hook, _HOOK.encode())


def _base_python(environment: Path) -> tuple[str, str]:
    """The folder of the Python that an environment was created with, and that Python's path."""
    with contextlib.suppress(OSError):
        for line in (environment / "pyvenv.cfg").read_text("utf-8").splitlines():
            name, _, value = line.partition("=")
            if name.strip() == "home":
                return value.strip(), os.path.realpath(environment / "bin" / "python")
    # An environment of conda's has a Python of its own.
    return str(environment / "bin"), str(environment / "bin" / "python")
