"""Processes of the program's own that outlive the command which started them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from .redaction import scrub
from .terminal import printable

#: Every one of them has it in its environment, as a word that its ports belong to this program.
MARK = "AZUREML_DEBUG_BACKGROUND"


def spawn(
    module: str,
    arguments: Sequence[str],
    lean: bool = False,
    environment: Mapping[str, str] | None = None,
    **streams: Any,
) -> subprocess.Popen[bytes]:
    """Start a module of the program in a session of its own, whatever becomes of this process and its terminal.

    Args:
        module: Its full name.
        arguments: What it is given.
        lean: Whether it needs nothing but the standard library and the program's own files.
        environment: Its variables; this process's by default.
        streams: ``stdin``, ``stdout``, ``stderr``, ``cwd``, ``pass_fds`` as for Popen.
    """
    package = Path(__file__).resolve().parents[1]
    variables = os.environ if environment is None else environment
    path = os.pathsep.join(filter(None, [str(package), variables.get("PYTHONPATH")]))
    options: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        options = {"creationflags": subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP}
    # Looking through the installed packages takes half of a small module's start.
    command = [sys.executable, *(["-S"] if lean else []), "-m", module, *arguments]
    return subprocess.Popen(command, env={**variables, "PYTHONPATH": path, MARK: module}, **options, **streams)


@contextlib.contextmanager
def without_mock() -> Iterator[None]:
    """Have Invoke imported without unittest.mock, which brings asyncio and ssl with it: a fifth of a keeper's memory.

    Only Invoke's MockContext uses it, which nothing of this program does. Whoever imports unittest.mock later gets it.
    """
    name = "unittest.mock"
    if name in sys.modules:
        yield
        return
    stand_in = ModuleType(name)
    stand_in.Mock = object  # type: ignore[attr-defined]
    sys.modules[name] = stand_in
    try:
        yield
    finally:
        del sys.modules[name]


def log(text: str) -> None:
    """Write a line to this process's log, its standard error, without secrets.

    Where that is on a full disk, the work goes on.
    """
    with contextlib.suppress(OSError):
        sys.stderr.write(printable(scrub(text.rstrip("\n")), lines=True) + "\n")
        sys.stderr.flush()
