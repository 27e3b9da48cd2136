"""Working on the program itself: not part of the namespace that other projects import."""

from __future__ import annotations

import subprocess
import sys

from invoke import Exit

from ..errors import UserError
from ._command import Command, command


def _needs(package: str) -> None:
    import importlib.util

    if importlib.util.find_spec(package) is None:
        raise UserError(f"{package} is not installed here.", "First: pip install -e '.[test]'")


def _python(run: Command, *arguments: str) -> None:
    code = subprocess.run([sys.executable, "-m", *arguments], cwd=run.project, check=False).returncode
    if code:
        raise Exit(code=code)


@command(interrupted="")
def test(run: Command) -> None:
    """Run the tests, two at a time; `-- ARGUMENTS` are handed to pytest instead."""
    _needs("pytest")
    _needs("xdist")
    _python(run, "pytest", *(run.remainder() or ["-n", "2", "--dist", "loadgroup"]))


@command(help={"fix": "Mend what can be mended."})
def lint(run: Command, fix: bool = False) -> None:
    """Check style and types."""
    _needs("ruff")
    _python(run, "ruff", "check", *(["--fix"] if fix else []), ".")
    _python(run, "ruff", "format", *([] if fix else ["--check"]), ".")
    _python(run, "mypy")
