"""The start of `inv`, which is a part of every command."""

from __future__ import annotations

import tempfile
from pathlib import Path

from .harness import INV, Bench, new_project
from .measure import run, seconds

TIMES = 30
BARE = "from invoke import task\n\n@task\ndef hello(context):\n    '''Say hello.'''\n"


def main(bench: Bench) -> None:
    """Compare `inv --list` in a project that uses this program with a tasks file of one task."""
    with tempfile.TemporaryDirectory(prefix="azureml-debug-bench-") as folder:
        project, bare = new_project(Path(folder) / "ours"), Path(folder) / "bare"
        bare.mkdir()
        (bare / "tasks.py").write_text(BARE)
        typed = [*INV, "--list"]
        # The first runs write the byte code.
        run(typed, project)
        run(typed, bare)
        found = bench.measure(
            TIMES, ours=lambda: seconds(lambda: run(typed, project)), bare=lambda: seconds(lambda: run(typed, bare))
        )
    bench.ratio("inv --list", "a bare Invoke tasks file", found, 1.2, theirs="bare")
