"""Runs a script or module in the real ``__main__``, as Python itself does.

For interpreters that do not load sitecustomize. ``runpy.run_path`` is not used: it removes the script's module when
the script has run, and code that runs later (atexit, threads) could not pickle.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
from typing import Any, Callable

from .program import Program, has_safe_path
from .step import prepare


def run(inject: str) -> None:
    """Run the program that the command line names after launch.py."""
    del sys.argv[0]
    if sys.argv[:1] == ["-m"] and len(sys.argv) > 1:
        program = Program("module", sys.argv.pop(1))
    elif sys.argv:
        program = Program("script", sys.argv[0])
    else:
        raise SystemExit("launch.py: no script")
    if os.environ.get("AZUREML_DEBUGGEE_SNAPSHOTS"):
        from . import failures

        failures.watch()
    start = prepare(inject, program)
    _set_path(program)
    if start is not None:
        start()
    run_program = _module_runner(program.name) if program.kind == "module" else _script_runner(program.name)
    try:
        run_program()
    except SystemExit:
        raise
    except BaseException:
        _hide_launcher(inject)
        raise


def _set_path(program: Program) -> None:
    """Add to the front of the import path what Python adds there."""
    if program.kind == "script" and _is_container(program.name):
        sys.path.insert(0, _as_python_names(program.name))
    elif not has_safe_path():
        folder = os.getcwd() if program.kind == "module" else os.path.dirname(os.path.realpath(program.name))
        sys.path.insert(0, folder)


def _as_python_names(path: str) -> str:
    """A script's path as Python names it: absolute since 3.9."""
    return os.path.abspath(path) if sys.version_info >= (3, 9) else path


def _is_container(path: str) -> bool:
    """Whether it is a folder, or a zip file."""
    if os.path.isdir(path):
        return True
    try:
        with open(path, "rb") as file:
            if file.read(2) != b"PK":
                return False
    except OSError:
        return False
    import zipimport

    try:
        return bool(zipimport.zipimporter(path))
    except zipimport.ZipImportError:
        return False


def _module_runner(name: str) -> Callable[[], Any]:
    import runpy

    return lambda: runpy._run_module_as_main(name)  # type: ignore[attr-defined]


def _script_runner(name: str) -> Callable[[], Any]:
    if _is_container(name):
        import runpy

        return lambda: runpy._run_module_as_main("__main__", False)  # type: ignore[attr-defined]
    path = _as_python_names(name)
    try:
        with open(path, "rb") as file:
            source = file.read()
    except OSError as error:
        # Python's own message and exit code.
        message = "{}: can't open file {!r}: [Errno {}] {}\n"
        sys.stderr.write(message.format(sys.executable, path, error.errno, error.strerror))
        raise SystemExit(2) from None
    main = sys.modules["__main__"].__dict__
    for stale in [key for key in main if not (key.startswith("__") and key.endswith("__"))]:
        del main[stale]
    main.update(
        __file__=path,
        __doc__=None,
        __spec__=None,
        __package__=None,
        __loader__=importlib.machinery.SourceFileLoader("__main__", path),
    )

    def run_program() -> None:
        if source.startswith(importlib.util.MAGIC_NUMBER):
            code: Any = importlib.machinery.SourcelessFileLoader("__main__", path).get_code("__main__")
        else:
            code = compile(source, path, "exec", dont_inherit=True)
        exec(code, main)

    return run_program


def _hide_launcher(inject: str) -> None:
    """Remove our frames from the traceback that is shown, and from the one that is kept in `sys.last_traceback`.

    The exception itself is not caught, so Python sets the exit code.
    """
    show = sys.excepthook
    launchers = (os.path.join(inject, "launch.py"), __file__)

    def hook(kind: Any, value: Any, trace: Any) -> None:
        while trace is not None and trace.tb_frame.f_code.co_filename in launchers:
            trace = trace.tb_next
        sys.last_traceback = trace
        show(kind, value.with_traceback(trace), trace)

    sys.excepthook = hook
