"""Working on the program itself: not part of the namespace that other projects import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

from invoke import Collection, Exit

from ..errors import UserError
from ._command import Command, command

#: One editor in one browser: one test after the other.
EDITOR = ("tests/e2e/test_editor.py",)
#: Everything else: several at once. Whatever a test makes in the engine is told from what others make there.
OTHERS = ("tests",)
#: What needs neither engine nor editor.
QUICK = ("tests/unit", "tests/hostile")
#: How many failed tests are run a second time, alone; more of them have a cause in common.
ONCE_MORE = 5


def _needs(package: str) -> None:
    import importlib.util

    if importlib.util.find_spec(package) is None:
        raise UserError(f"{package} is not installed here.", "First: pip install -e '.[test]'")


def _several() -> list[str]:
    """What has pytest run several tests at once: two for each core, since most of them wait for processes."""
    import os

    # Each begins with a part of its own, and takes over from others when that is done.
    return ["-n", str(2 * (os.cpu_count() or 1)), "--dist", "worksteal"]


def _code(call: Command, *arguments: str, **environ: str) -> int:
    import os

    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=call.project, env={**os.environ, **environ}, check=False).returncode


def _python(call: Command, *arguments: str, **environ: str) -> None:
    code = _code(call, *arguments, **environ)
    if code:
        raise Exit(code=code)


def _at_once(call: Command, record: Path) -> list[int]:
    """Run the tests of the editor one after the other, and all others beside them, several at once.

    Args:
        call: The command.
        record: A folder in which pytest notes what has failed.

    Returns:
        The exit codes.
    """
    import tempfile

    ignored = [f"--ignore={path}" for path in EDITOR]
    with tempfile.TemporaryFile() as said:
        beside = subprocess.Popen(
            [sys.executable, "-m", "pytest", *_noting(record / "editor"), *EDITOR],
            cwd=call.project,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        try:
            code = _code(call, "pytest", *_noting(record / "others"), *_several(), *OTHERS, *ignored)
        finally:
            # Ctrl-C reaches it, too, and what it has begun is ended.
            beside.wait()
            said.seek(0)
            call.console.line(said.read().decode(errors="replace"))
    return [code, beside.returncode]


def _noting(folder: Path) -> list[str]:
    """What has a run of pytest keep its notes apart from those of the run beside it."""
    return ["-o", f"cache_dir={folder}"]


def failed_in(record: Path) -> list[str]:
    """The names of the tests that the runs of pytest which kept their notes below a folder have seen fail."""
    import json

    notes = sorted(record.rglob("v/cache/lastfailed"))
    return [name for note in notes for name in json.loads(note.read_text(encoding="utf-8"))]


def _whole(call: Command) -> int:
    """Run all tests, and once more alone the few that failed beside others; the exit code."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder)
        codes = _at_once(call, record)
        failed = failed_in(record)
    # 1: some tests failed. Anything else is no matter of single tests.
    if not any(codes) or set(codes) - {0, 1} or not 0 < len(failed) <= ONCE_MORE:
        # A run that a signal has ended has a negative code.
        return next((code for code in codes if code), 0)
    call.console.line(f"\nOnce more, alone, since a busy machine may be the cause: {len(failed)} of the tests")
    code = _code(call, "pytest", *failed)
    if code == 0:
        call.console.line("\nThese failed beside others and passed alone. They need a look:")
        for name in failed:
            call.console.line(f"  {name}")
    return code


@command(
    interrupted="",
    help={"quick": "Only what needs no engine and no editor, with this Python alone: for every day."},
    takes_remainder=True,
)
def test(call: Command, quick: bool = False) -> None:
    """Run the tests, several at once; `-- ARGUMENTS` are handed to pytest instead."""
    _needs("pytest")
    _needs("xdist")
    if call.remainder():
        _python(call, "pytest", *call.remainder())
    elif quick:
        _python(call, "pytest", *_several(), *QUICK, AZUREML_DEBUG_TEST_QUICK="1")
    elif code := _whole(call):
        raise Exit(code=code)


@command(help={"fix": "Mend what can be mended."})
def lint(call: Command, fix: bool = False) -> None:
    """Check style and types."""
    _needs("ruff")
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


#: With these, Invoke lists tasks.
_LISTING = frozenset(("--list", "-l", "--complete"))


def add_to(namespace: Collection, bench: ModuleType) -> None:
    """Add the tasks for developing, in a collection of their own.

    They are known by their short names, too (`inv test`, `inv bench.pipeline`), which no list shows.

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
