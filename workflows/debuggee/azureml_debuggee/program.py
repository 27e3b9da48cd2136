"""The program that a Python process runs, and whether that is the step's own code.

Every Python process of a step imports this when it starts.
"""

from __future__ import annotations

import os
import sys

# As good as typing.TYPE_CHECKING, without importing that.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, Iterator, List, MutableMapping, Optional, Sequence

#: The variable with the process id of the process that owns the debugger.
OWNER = "AZUREML_DEBUGGEE_OWNER"
#: The published options, each with whether a value follows.
OPTIONS = {
    "--remote_debug": False,
    "--remote_debug_connection_timeout": True,
    "--remote_debug_client_ip": True,
    "--remote_debug_port": True,
}
#: Programs that build environments: neither they nor the programs that they start are debugged.
BUILDERS = frozenset(
    ("pip", "ensurepip", "venv", "virtualenv", "setuptools", "easy_install", "wheel", "build", "pipx", "compileall")
)
#: Programs that start the ones to debug; this list matters only if the step has no Python code of its own.
LAUNCHERS = frozenset(
    ["conda", "conda-env", "mamba", "uv", "poetry", "pipenv", "pdm", "hatch", "az", "debugpy", "multiprocessing"]
) | frozenset(
    ["torchrun", "torch.distributed.run", "torch.distributed.launch", "accelerate", "deepspeed", "horovodrun", "ray"]
)


class Program:
    """The program that a Python process runs.

    Args:
        kind: ``script`` (also a folder or zip file), ``module``, ``code`` (``-c``) or ``input``.
        name: The path as given, the module's dotted name, or the code.
    """

    def __init__(self, kind: str, name: str) -> None:
        self.kind, self.name = kind, name

    def file(self) -> Optional[str]:
        """The program's first file, found without importing anything."""
        if self.kind == "script":
            inner = os.path.join(self.name, "__main__.py")
            return os.path.abspath(inner if os.path.isdir(self.name) else self.name)
        if self.kind != "module":
            return None
        # importlib is not used, since it imports the packages that contain a module.
        inner = self.name.replace(".", os.sep)
        for root in ([] if has_safe_path() else [os.getcwd()]) + sys.path:
            for candidate in (inner + ".py", os.path.join(inner, "__main__.py")):
                path = os.path.join(root, candidate)
                if os.path.isfile(path):
                    return os.path.abspath(path)
        return None

    def tool_names(self) -> Iterator[str]:
        """The names by which it can be recognized as a well-known program."""
        if self.kind == "script":
            name = os.path.basename(self.name)
            yield name.rstrip("0123456789.")
            yield os.path.splitext(name)[0]
            # `python /…/site-packages/pip install`, as pip starts itself.
            yield os.path.basename(os.path.dirname(os.path.abspath(self.name)))
        elif self.kind == "module":
            parts = self.name.split(".")
            for length in range(1, len(parts) + 1):
                yield ".".join(parts[:length])
        elif self.name.startswith("from multiprocessing"):
            # How multiprocessing starts its own processes.
            yield "multiprocessing"

    def source(self) -> bytes:
        """The source of the first file; empty if it cannot be read."""
        if self.kind == "code":
            return self.name.encode("utf-8", "replace")
        file = self.file()
        try:
            if file is not None:
                with open(file, "rb") as opened:
                    return opened.read()
        except OSError:
            pass
        return b""


def this_program() -> Program:
    """The program that this process is about to run."""
    first = sys.argv[0] if sys.argv else ""
    if first in ("-m", "-c"):
        return Program("module" if first == "-m" else "code", _operand(_command_line()))
    return Program("script", first) if first not in ("", "-") else Program("input", "")


def _command_line() -> Sequence[str]:
    known: Optional[Sequence[str]] = getattr(sys, "orig_argv", None)
    if known is not None:
        return known
    # Before Python 3.10.
    import ctypes

    count, arguments = ctypes.c_int(), ctypes.POINTER(ctypes.c_wchar_p)()
    ctypes.pythonapi.Py_GetArgcArgv(ctypes.byref(count), ctypes.byref(arguments))
    return [arguments[index] or "" for index in range(count.value)]


def _operand(arguments: Sequence[str]) -> str:
    """The value of ``-m`` or ``-c`` on Python's own command line, also if it is in the same word."""
    waiting = iter(arguments[1:])
    for argument in waiting:
        if argument.startswith("--"):
            if argument == "--check-hash-based-pycs":
                next(waiting, None)
            continue
        for index, letter in enumerate(argument[1:], 2):
            if letter in "mc":
                return argument[index:] or next(waiting, "")
            if letter in "WX":
                if not argument[index:]:
                    next(waiting, None)
                break
    return ""


def has_safe_path() -> bool:
    """Whether Python adds no folder of the program to the import path."""
    return bool(getattr(sys.flags, "safe_path", False) or sys.flags.isolated)


def is_within(path: str, folder: str) -> bool:
    """Whether a path is a folder, or below it."""
    return path == folder or path.startswith(os.path.join(folder, ""))


def code_folders(environment: MutableMapping[str, str]) -> List[str]:
    """The folders and files of the step's own code, both as named and with links resolved."""
    named = [
        os.path.abspath(folder) for folder in environment.get("AZUREML_DEBUGGEE_CODE", "").split(os.pathsep) if folder
    ]
    return named + [real for real in map(os.path.realpath, named) if real not in named]


def is_own(program: Program, environment: MutableMapping[str, str]) -> bool:
    """Whether a program's first file is one of the step's own code."""
    file = program.file()
    if file is None or not os.path.exists(file):
        return False
    folders = code_folders(environment)
    real = os.path.realpath(file)
    # Packages of an environment inside a code folder are not the step's own code.
    prefix = os.path.realpath(sys.prefix)
    if is_within(real, prefix) and any(is_within(prefix, folder) for folder in folders):
        return False
    if program.kind == "module" and not has_safe_path() and is_within(file, os.getcwd()):
        return not is_within(real, prefix)
    return any(is_within(path, folder) for path in (file, real) for folder in folders)


def front_folders(program: Program) -> List[str]:
    """The folder that Python has yet to put at the front of its import path."""
    if has_safe_path():
        return []
    return [os.path.dirname(os.path.realpath(program.name)) if program.kind == "script" else os.getcwd()]


def remove_options(arguments: List[str]) -> Dict[str, str]:
    """Remove the published options from a script's arguments, and return them."""
    taken: Dict[str, str] = {}
    kept: List[str] = []
    waiting = iter(arguments)
    for argument in waiting:
        name, equals, value = argument.partition("=")
        if argument == "--":
            kept.append(argument)
            kept.extend(waiting)
        elif name in OPTIONS and (OPTIONS[name] or not equals):
            taken[name] = value if equals or not OPTIONS[name] else next(waiting, "")
        else:
            kept.append(argument)
    arguments[:] = kept
    return taken
