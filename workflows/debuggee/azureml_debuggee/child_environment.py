"""Loads the debuggee in the processes that a debugged process starts, whatever environment they get.

The program's own view of its environment stays what it would be without the debuggee: `os.environ` does not contain the
folder `inject`, whose sitecustomize loads the debuggee. The system's environment contains it, for processes that C code
starts. This module adds it to the environment that Python's own functions pass to other programs; child.py replaces
those functions.
"""

import _thread
import os
import sys

TYPE_CHECKING = False  # As good as typing's, without importing that.
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Optional, Sequence, Set

#: Positions of the arguments and of the environment (bytes ``NAME=value``, or None for this process's own) among the
#: parameters of `_posixsubprocess.fork_exec`, in Python 3.10 to 3.14.
_ARGUMENTS, _ENVIRONMENT = 0, 5
_OWN = b"AZUREML_DEBUGGEE_"
_PATH = b"PYTHONPATH"
#: A variable that every process of a step has.
_CODE = b"AZUREML_DEBUGGEE_CODE"
_SEPARATOR = os.fsencode(os.pathsep)


#: Threads that are starting a process without the debuggee.
_plain: "Set[int]" = set()


class without_debuggee:
    """A context in which this thread starts processes without the debuggee."""

    def __enter__(self) -> None:
        _plain.add(_thread.get_ident())

    def __exit__(self, *_: "Any") -> None:
        _plain.discard(_thread.get_ident())


def change_fork_exec(folder: bytes) -> None:
    """Have the programs that `subprocess` and `multiprocessing` start load the debuggee.

    Args:
        folder: The folder with the sitecustomize that loads it.
    """
    try:
        import _posixsubprocess as starter
    except ImportError:
        return
    fork_exec: "Callable[..., Any]" = starter.fork_exec

    def fork_exec_with(*arguments: "Any") -> "Any":
        changed = list(arguments)
        if _thread.get_ident() in _plain:
            return fork_exec(*arguments)
        try:
            given = arguments[_ENVIRONMENT]
            changed[_ENVIRONMENT] = _as_list(_with_debuggee(_as_dict(given), folder, arguments[_ARGUMENTS]))
            changed[_ARGUMENTS] = _through_launcher(arguments[_ARGUMENTS], folder)
        except Exception:
            return fork_exec(*arguments)  # The original function reports invalid arguments.
        return fork_exec(*changed)

    starter.fork_exec = fork_exec_with
    loaded: "Any" = sys.modules.get("subprocess")
    if getattr(loaded, "_fork_exec", None) is fork_exec:
        loaded._fork_exec = fork_exec_with


def start_program(
    function: "Callable[..., Any]",
    folder: bytes,
    path: "Any",
    argv: "Any",
    more: "Sequence[Any]",
    options: "Dict[str, Any]",
) -> "Any":
    """Call a function of `os` that starts a program, so that the program loads the debuggee.

    Args:
        function: A function that takes a path, arguments and an environment.
        folder: The folder with the sitecustomize that loads the debuggee.
        path: The program.
        argv: Its arguments.
        more: Further positional arguments of the function, the environment first.
        options: Its keyword arguments.
    """
    if _thread.get_ident() in _plain:
        return function(path, argv, *more, **options)
    try:
        given = more[0] if more else options.get("env")
        environment = {os.fsencode(key): os.fsencode(value) for key, value in (given or os.environ).items()}
        changed = _with_debuggee(environment, folder, argv)
        argv = _through_launcher(argv, folder)
    except Exception:
        return function(path, argv, *more, **options)  # The original function reports invalid arguments.
    if more:
        return function(path, argv, changed, *more[1:], **options)
    return function(path, argv, **{**options, "env": changed})


def _as_dict(given: "Optional[Sequence[bytes]]") -> "Dict[bytes, bytes]":
    if given is None:
        return dict(os.environb)
    pairs = (entry.partition(b"=") for entry in given)
    return {name: value for name, _, value in pairs}


def _as_list(environment: "Dict[bytes, bytes]") -> "List[bytes]":
    return [name + b"=" + value for name, value in environment.items()]


def _with_debuggee(environment: "Dict[bytes, bytes]", folder: bytes, argv: "Any") -> "Dict[bytes, bytes]":
    """An environment with the variables that load the debuggee.

    An environment without this process's variables is changed only if the program is a Python.
    """
    if _CODE not in environment:
        if not _is_python(argv):
            return environment
        environment = {**environment, **{key: value for key, value in os.environb.items() if key.startswith(_OWN)}}
    path = environment.get(_PATH)
    entries = [] if path is None else path.split(_SEPARATOR)
    if folder not in entries:
        environment = {**environment, _PATH: _SEPARATOR.join([folder, *entries])}
    return environment


def _is_python(argv: "Any") -> bool:
    return os.path.basename(os.fsencode(argv[0])).startswith(b"python")


def _through_launcher(argv: "Any", folder: bytes) -> "Any":
    """The command of a Python that ignores the environment or `site`, changed to run the program through launch.py."""
    words = [os.fsencode(word) for word in argv]
    if not words or not _is_python(words):
        return argv
    ignores = False
    at = 1
    while at < len(words) and words[at][:1] == b"-" and len(words[at]) > 1 and words[at][:2] != b"--":
        letters = words[at][1:]
        if letters[:1] in b"WX":
            at += 1 if len(letters) > 1 else 2
            continue
        if b"m" in letters or b"c" in letters:
            break
        ignores = ignores or any(letter in letters for letter in (b"I", b"E", b"S"))
        at += 1
    if not ignores or at >= len(words) or (words[at][:1] == b"-" and words[at] != b"-m"):
        return argv
    return [*words[:at], os.path.join(folder, b"launch.py"), *words[at:]]
