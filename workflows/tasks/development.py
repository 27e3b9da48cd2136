"""Working on the program itself: not part of the namespace that other projects import."""

from __future__ import annotations

import subprocess
import sys

from invoke import Exit

from ..errors import UserError
from ._command import Command, command

#: Tests that look at the engine's images and containers as a whole, or use the default ports: nothing else may
#: run beside them. (xdist's own groups do not hold with pytest 9.2.)
ALONE = (
    # One browser, with both cores for itself.
    "tests/e2e/test_editor.py",
    "tests/e2e/test_environments.py",
    "tests/e2e/test_housekeeping.py",
    "tests/e2e/test_newcomer.py",
    "tests/unit/test_environment_references.py",
)


def _needs(package: str) -> None:
    import importlib.util

    if importlib.util.find_spec(package) is None:
        raise UserError(f"{package} is not installed here.", "First: pip install -e '.[test]'")


def _code(run: Command, *arguments: str) -> int:
    return subprocess.run([sys.executable, "-m", *arguments], cwd=run.project, check=False).returncode


def _python(run: Command, *arguments: str) -> None:
    code = _code(run, *arguments)
    if code:
        raise Exit(code=code)


@command(interrupted="")
def test(run: Command) -> None:
    """Run the tests, most of them two at a time; `-- ARGUMENTS` are handed to pytest instead."""
    _needs("pytest")
    _needs("xdist")
    if run.remainder():
        _python(run, "pytest", *run.remainder())
        return
    codes = [
        _code(run, "pytest", "-n", "2", *(f"--ignore={path}" for path in ALONE)),
        _code(run, "pytest", *ALONE),
    ]
    if any(codes):
        raise Exit(code=1)


@command(help={"fix": "Mend what can be mended."})
def lint(run: Command, fix: bool = False) -> None:
    """Check style and types."""
    _needs("ruff")
    _python(run, "ruff", "check", *(["--fix"] if fix else []), ".")
    _python(run, "ruff", "format", *([] if fix else ["--check"]), ".")
    _python(run, "mypy")


@command(interrupted="docs/reference.md is whole.")
def docs(run: Command) -> None:
    """Write docs/reference.md anew, from the settings and tasks as the code has them."""
    from ..reference import reference

    page = run.project / "docs" / "reference.md"
    text = reference()
    stale = not page.exists() or page.read_text(encoding="utf-8") != text
    if stale:
        page.write_text(text, encoding="utf-8")
    run.console.line(f"docs/reference.md {'written' if stale else 'unchanged'}")
