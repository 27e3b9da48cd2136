"""A folder for what a step installs, so that the environment, which every later run shares, stays as it is.

See :mod:`workflows.debuggee.step_packages`, which is what happens in the step.
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

#: What an environment is told by to load the module; the first line that Python runs in every program of a step.
_HOOK = f"import os; '{VARIABLE}' in os.environ and __import__('{NAME}').begin()\n"
_HOOK_FILE = "azureml_debug_packages.pth"
#: In a step's folder: what VIRTUAL_ENV names, and the programs that stand before others.
_SEEN, _PROGRAMS = "seen", "programs"


def prepare(environment: Path, run_id: str, step: str) -> dict[str, str]:
    """Make the folder of a step, with nothing in it yet.

    Args:
        environment: The virtual environment that the step runs in.
        run_id: The run.
        step: The step's name.

    Returns:
        The variables by which its programs find it; none where the environment has no site-packages.

    Raises:
        OSError: It cannot be made.
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
    # Where Python has its own folder for compiled packages.
    (folder / "lib64").symlink_to("lib")
    home, target = _base_python(environment)
    (folder / INTERPRETER).symlink_to(target)
    settings = f"home = {home}\ninclude-system-site-packages = false\n"
    (folder / "pyvenv.cfg").write_text(settings, "utf-8")
    # The same once more for what looks for the Python of VIRTUAL_ENV, such as poetry: in the folder itself, whose
    # programs come first on the path, that would be the Python of the whole step.
    seen = folder / _SEEN
    make_folder(seen / "bin")
    for program in (environment / "bin").iterdir():
        (seen / "bin" / program.name).symlink_to(target if program.name.startswith("python") else program)
    for name in ("lib", "lib64"):
        (seen / name).symlink_to(folder / "lib")
    (seen / "pyvenv.cfg").write_text(settings, "utf-8")
    others = os.pathsep.join([str(environment / "bin"), os.environ.get("PATH", os.defpath)])
    step_wrappers.make_wrappers(folder / _PROGRAMS, others)
    fill_line = f"import sys; sys.path.append({str(site)!r}); import {NAME}; sys.path.remove({str(site)!r}); "
    (own / FILL).write_text(f"{fill_line}{NAME}.fill({str(site)!r}, {str(folder)!r})\n", "utf-8")
    return {
        VARIABLE: str(folder),
        step_wrappers.ENVIRONMENT: str(environment),
        "UV_PYTHON": str(folder / INTERPRETER),
        "VIRTUAL_ENV": str(seen),
    }


def remove(run_id: str, step: str | None = None) -> None:
    """Take away what a step, or every step of a run, has installed."""
    folder = _folder(run_id)
    shutil.rmtree(folder / step if step else folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def list_leftovers() -> list[Unused]:
    """What steps have left whose runs have ended without taking it away: they were killed.

    The bytes are those that nothing else has: most files of such a folder are an environment's, linked.
    """
    folders = [folder for folder in (cache_folder() / "steps").glob("*") if folder.is_dir()]
    living = _find_living_runs({folder.name for folder in folders}) if folders else set()
    return [
        (f"packages of a step of {folder.name}", bytes_below(folder, alone=True), partial(remove, folder.name))
        for folder in sorted(folders)
        if folder.name not in living
    ]


def _find_living_runs(runs: set[str]) -> set[str]:
    """Those of some runs of which a process still lives: a step's by its mark, the runner by its folder."""
    import psutil

    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            values: dict[str, Any] = process.as_dict(["environ", "cmdline", "cwd"])
            found.add((values["environ"] or {}).get(MARK, "").partition("/")[0])
            found.update(os.path.basename(word) for word in (values["cwd"] or "", *(values["cmdline"] or ())))
    return found & runs


def program_path(variables: dict[str, str]) -> str:
    """What comes first on a step's path: the programs that stand before others, and those that the step installs."""
    return os.pathsep.join(os.path.join(variables[VARIABLE], name) for name in (_PROGRAMS, "bin"))


def _folder(run_id: str) -> Path:
    # Beside the environments: files can be linked within one file system only.
    return cache_folder() / "steps" / run_id


def _install_hook(environment: Path, site: Path) -> None:
    """See that an environment loads the module."""
    source = Path(DEBUGGEE, "step_packages.py").read_bytes()
    module, hook = site / f"{NAME}.py", site / _HOOK_FILE
    with contextlib.suppress(OSError):
        if module.read_bytes() == source and hook.read_text("utf-8") == _HOOK:
            return
    write_bytes(module, source)
    # Once: the step's programs leave no byte code, and would each compile it anew.
    compiling = [str(environment / "bin" / "python"), "-I", "-m", "py_compile", str(module)]
    subprocess.run(compiling, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    write_bytes(hook, _HOOK.encode())


def _base_python(environment: Path) -> tuple[str, str]:
    """The folder of the Python that an environment was made with, and that program."""
    with contextlib.suppress(OSError):
        for line in (environment / "pyvenv.cfg").read_text("utf-8").splitlines():
            name, _, value = line.partition("=")
            if name.strip() == "home":
                return value.strip(), os.path.realpath(environment / "bin" / "python")
    # conda's has its own.
    return str(environment / "bin"), str(environment / "bin" / "python")
