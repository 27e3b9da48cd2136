"""Tasks for developing this program. They are not part of the namespace that other projects import."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

from invoke import Collection, Exit

from ..errors import UserError
from ._command import Command, command

#: The tests of the editor, which run one after the other, since there is one editor in one browser.
EDITOR = ("tests/e2e/test_editor.py",)
#: Where pytest records which of them have failed.
EDITOR_CACHE = ".pytest_cache/editor"
#: All other tests, which run in parallel. Labels distinguish what each test creates in the engine.
OTHERS = ("tests",)
#: Tests that need neither engine nor editor.
QUICK = ("tests/unit", "tests/hostile")


def _require(package: str) -> None:
    import importlib.util

    if importlib.util.find_spec(package) is None:
        raise UserError(f"{package} is not installed here.", "First: pip install -e '.[test]'")


def _parallel_options() -> list[str]:
    """The options for parallel tests: two for each core, since most tests wait for processes."""
    import os

    # worksteal: each worker has a part of the tests, and takes over tests of others when it is done.
    return ["-n", str(2 * (os.cpu_count() or 1)), "--dist", "worksteal"]


def _run_module(call: Command, *arguments: str, **environ: str) -> int:
    import os

    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=call.project, env={**os.environ, **environ}, check=False).returncode


def _python(call: Command, *arguments: str, **environ: str) -> None:
    code = _run_module(call, *arguments, **environ)
    if code:
        raise Exit(code=code)


def _run_all(call: Command) -> int:
    """Run the tests of the editor one after the other, and at the same time all others in parallel.

    Args:
        call: The command.

    Returns:
        The first exit code other than 0, or 0.
    """
    import tempfile

    ignored = [f"--ignore={path}" for path in EDITOR]
    # Both runs would write the same record of what has failed.
    editor = [sys.executable, "-m", "pytest", "-o", f"cache_dir={EDITOR_CACHE}", *EDITOR]
    with tempfile.TemporaryFile() as editor_output:
        editor_run = subprocess.Popen(
            editor, cwd=call.project, stdin=subprocess.DEVNULL, stdout=editor_output, stderr=subprocess.STDOUT
        )
        try:
            code = _run_module(call, "pytest", *_parallel_options(), *OTHERS, *ignored)
        finally:
            # Ctrl-C reaches this process, too, which then ends what it has started.
            editor_run.wait()
            editor_output.seek(0)
            call.console.line(editor_output.read().decode(errors="replace"))
    # The code is negative if a signal has ended the run.
    return code or editor_run.returncode


@command(
    interrupted="",
    help={"quick": "Only what needs no engine and no editor, with this Python alone: for every day."},
    takes_remainder=True,
)
def test(call: Command, quick: bool = False) -> None:
    """Run the tests, several at once; `-- ARGUMENTS` are handed to pytest instead."""
    _require("pytest")
    _require("xdist")
    if call.remainder():
        _python(call, "pytest", *call.remainder())
    elif quick:
        _python(call, "pytest", *_parallel_options(), *QUICK, AZUREML_DEBUG_TEST_QUICK="1")
    elif code := _run_all(call):
        raise Exit(code=code)


@command(help={"fix": "Mend what can be mended."})
def lint(call: Command, fix: bool = False) -> None:
    """Check style and types."""
    _require("ruff")
    _python(call, "ruff", "check", *(["--fix"] if fix else []), ".")
    _python(call, "ruff", "format", *([] if fix else ["--check"]), ".")
    _python(call, "mypy")


@command(interrupted="docs/reference.md is whole.")
def docs(call: Command) -> None:
    """Write docs/reference.md anew, from the settings and tasks as the code has them."""
    from ..reference import reference

    page = call.project / "docs" / "reference.md"
    text = reference()
    stale = not page.exists() or page.read_text(encoding="utf-8") != text
    if stale:
        page.write_text(text, encoding="utf-8")
    call.console.line(f"docs/reference.md {'written' if stale else 'unchanged'}")


#: Flags with which Invoke lists tasks.
_LISTING = frozenset(("--list", "-l", "--complete"))


def add_to(namespace: Collection, bench: ModuleType) -> None:
    """Add the tasks for developing as the collection ``dev``.

    They also work under their short names (`inv test`, `inv bench.pipeline`), which lists do not show.

    Args:
        namespace: The tasks of this clone.
        bench: The module with the collection of benchmarks.
    """
    own = Collection("dev", test, lint, docs)
    own.add_collection(Collection.from_module(bench, name="bench"))
    namespace.add_collection(own)
    if _LISTING.isdisjoint(sys.argv[1:]):
        for one in (test, lint, docs):
            namespace.add_task(one)
        namespace.add_collection(Collection.from_module(bench, name="bench"))
