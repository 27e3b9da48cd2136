"""A debugpy outside of the environment, so that an environment is the same whether it is debugged or not.

Only the debugger has it on its path, after a debugpy that the environment itself has.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import UserError
from ..private import make_folder
from .locking import exclusive
from .processes import Finished, run
from .pythons import PythonFacts, find_minor

#: debugpy 1.8.22 and later want Python 3.10; conda files of pipelines often ask for an older one.
_CURRENT, _OLD = "debugpy>=1.8.22,<2", "debugpy>=1.8,<2"
_OLDEST_PYTHON = "3.8"


def debugpy_folder(
    cache: Path, python: PythonFacts | None = None, report: Callable[[str], None] = lambda line: None
) -> Path:
    """A folder with debugpy, downloaded where it does not exist yet.

    Args:
        cache: The program's cache folder.
        python: The Python that it is for: with compiled parts debugpy is several times as fast. None where the Python
            is not known: then it is the latest pure Python version that runs on the oldest supported one.
        report: Called with each line of pip's output.

    Raises:
        UserError: pip cannot download it.
    """
    arguments = _pip_arguments_for(python) if python is not None else _pip_arguments_for_any()
    folder = cache / "debugpy" / hashlib.sha256(" ".join(arguments).encode()).hexdigest()[:16]
    if folder.is_dir():
        return folder  # it gets its name when it is complete
    with exclusive(cache / "locks" / "debugpy.lock", "debugpy", report):
        if folder.is_dir():
            return folder
        make_folder(folder.parent)
        for left in folder.parent.glob(f"{folder.name}.*"):  # of a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        building = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
        try:
            done = _download(arguments, building, report)
            wheel = next(building.glob("debugpy-*.whl"), None)
            if done.code != 0 or wheel is None:
                raise UserError(
                    "pip cannot get debugpy, which travels beside the environment: "
                    + next((line for line in reversed(done.lines) if line.startswith("ERROR")), "it does not say why"),
                    "Check the network and pip's settings (`pip config list`), or add debugpy to the environment.",
                    details=done.lines[-15:],
                )
            shutil.unpack_archive(wheel, building / "unpacked", "zip")
            here = find_minor(python.minor) if python is not None else None
            if here is not None:
                # A step's programs write no byte code, so each would compile all of it again.
                run([here, "-I", "-m", "compileall", "-q", str(building / "unpacked")], report)
            # Readable for any user that a container runs as.
            (building / "unpacked").chmod(0o755)
            (building / "unpacked").replace(folder)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return folder


def _download(arguments: Sequence[str], folder: Path, report: Callable[[str], None]) -> Finished:
    pip = [sys.executable, "-I", "-m", "pip", "--disable-pip-version-check", "--no-input"]
    command = [*pip, "download", "--progress-bar", "off", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
    # A project's constraints are for its own Python, and this debugpy may be for another one.
    environment = {name: value for name, value in os.environ.items() if name != "PIP_CONSTRAINT"}
    return run([*command, *arguments], report, environment=environment)


def _pip_arguments_for_any() -> list[str]:
    return [*_flags(_OLDEST_PYTHON, ["any"]), "--implementation", "py", "--abi", "none", _OLD]


def _pip_arguments_for(python: PythonFacts) -> list[str]:
    """The arguments of pip for a Python; with compiled parts for Linux, the only system with several platform tags."""
    wanted = _CURRENT if python.version >= (3, 10, 0) else _OLD
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    match = re.fullmatch(r"glibc 2\.(\d+).*", python.libc)
    if match is None and sys.platform != "linux" and python.minor == own:
        # This machine's own.
        return [wanted]
    # PEP 600: a wheel for a glibc runs on newer ones.
    platforms = [f"manylinux_2_{number}_{python.machine}" for number in range(int(match[1]), 4, -1)] if match else []
    tag = f"cp{python.version[0]}{python.version[1]}"
    return [*_flags(python.minor, [*platforms, "any"]), "--implementation", "cp", "--abi", tag, "--abi", "none", wanted]


def _flags(version: str, platforms: Sequence[str]) -> list[str]:
    return ["--python-version", version, *(word for name in platforms for word in ("--platform", name))]
