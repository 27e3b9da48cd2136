"""Cold builds of a training environment of 64 packages without Docker, compared with `pip install` of the same ones.

See `environments.py` for what cold means, and for the disk to measure on.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from .environments import TIMES, Builds
from .harness import Bench

REQUIREMENTS = Path(__file__).with_name("training-requirements.txt")


def main(bench: Bench) -> None:
    """Measure the builds."""
    with tempfile.TemporaryDirectory(prefix="azureml-debug-bench-") as name:
        builds = Builds(Path(name), REQUIREMENTS, bench.quick)
        with bench.part("a training environment without Docker"):
            found = bench.measure(TIMES, ours=builds.without_docker, pip=builds.pip)
            what = "cold build of a training environment of 64 packages, without Docker"
            bench.ratio(what, "python -m venv and pip install", found, 0.25, theirs="pip")
