"""Installs this program's own packages with uv on a remote machine, before anything else of the program runs there.

When it runs, only the standard library and uv are installed there.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError
from . import pythons
from .context import pip_files
from .definition import load_definition
from .installing import Work, install_packages


def install(folder: str, cache: str, requirements: Sequence[str]) -> int:
    """Install requirements into an environment that has uv.

    Args:
        folder: The environment.
        cache: The program's cache folder.
        requirements: The program's requirements.

    Returns:
        An exit code: 0 where they are installed. Progress is printed line by line.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".tmp-") as scratch:
        defined = Path(scratch, "program")
        defined.mkdir()
        (defined / "requirements.txt").write_text("".join(f"{one}\n" for one in requirements), "utf-8")
        definition = load_definition(defined, default_dockerfile=defined / "requirements.txt")
        files = pip_files(definition, translated=True)
        work = Work(definition, Path(folder), Path(scratch), Path(cache), _print_line, files)
        try:
            install_packages(work, pythons.environment_python(Path(folder)))
        except UserError as error:
            _print_line(error.problem)
            return 1
    return 0


def _print_line(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
