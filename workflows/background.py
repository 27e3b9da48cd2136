"""Background processes of this program, which outlive the command that started them."""

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

#: The environment variable that every background process has: it marks its ports as this program's.
MARK = "AZUREML_DEBUG_BACKGROUND"


def spawn(
    module: str,
    arguments: Sequence[str],
    lean: bool = False,
    environment: Mapping[str, str] | None = None,
    **streams: Any,
) -> subprocess.Popen[bytes]:
    """Start a module of the program in its own session, so that it survives this process and its terminal.

    Args:
        module: The module's full name.
        arguments: Its command-line arguments.
        lean: Whether it needs only the standard library and the program's own files.
        environment: Its environment variables; by default those of this process.
        streams: ``stdin``, ``stdout``, ``stderr``, ``cwd``, ``pass_fds`` as for Popen.
    """
    package = Path(__file__).resolve().parents[1]
    variables = os.environ if environment is None else environment
    path = os.pathsep.join(filter(None, [str(package), variables.get("PYTHONPATH")]))
    options: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        options = {"creationflags": subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP}
    # -S: searching the installed packages takes half of a small module's start.
    command = [sys.executable, *(["-S"] if lean else []), "-m", module, *arguments]
    return subprocess.Popen(command, env={**variables, "PYTHONPATH": path, MARK: module}, **options, **streams)


@contextlib.contextmanager
def without_mock() -> Iterator[None]:
    """Let Invoke be imported without unittest.mock, which loads asyncio and ssl: a fifth of a keeper's memory.

    Only Invoke's MockContext needs it, and this program does not use that. Later imports get the real unittest.mock.
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
    """Write a line without secrets to this process's log, which is its standard error.

    A full disk is ignored.
    """
    with contextlib.suppress(OSError):
        sys.stderr.write(printable(scrub(text.rstrip("\n")), lines=True) + "\n")
        sys.stderr.flush()
