"""Timing whole commands, and writing down what came out."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def run(command: Sequence[str], cwd: Path, environ: Mapping[str, str] | None = None) -> str:
    """Run a command that has to work; its standard output."""
    done = subprocess.run(
        list(command), cwd=cwd, env={**os.environ, **(environ or {})}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{command} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def seconds(action: Callable[[], object]) -> float:
    """How long an action takes, in seconds."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def alternate(times: int, **sides: Callable[[], float]) -> dict[str, list[float]]:
    """Measure several sides in turn, so that a busy moment meets all of them."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(times):
        for name, measure in sides.items():
            found[name].append(measure())
    return found


def medians(found: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The median of each side."""
    return {name: statistics.median(values) for name, values in found.items()}


class Report:
    """Collects rows, prints them, and writes them beside this file."""

    def __init__(self, name: str) -> None:
        self._path = HERE / f"{name}.json"
        self._rows: list[dict[str, Any]] = []

    def row(self, what: str, value: float, unit: str, limit: float, **more: float) -> None:
        """Add a figure with the limit that it has to keep."""
        kept = value <= limit
        if unit == "of bare speed":
            kept = value >= limit
        self._rows.append({"what": what, "value": round(value, 3), "unit": unit, "limit": limit, "kept": kept, **more})
        extra = "  ".join(f"{name} {figure:.3f}" for name, figure in more.items())
        print(f"{'ok  ' if kept else 'MISS'} {what:<58} {value:7.3f} {unit:<14} limit {limit}   {extra}", flush=True)

    def write(self) -> None:
        """Write the rows."""
        record = {"python": platform.python_version(), "cores": os.cpu_count(), "rows": self._rows}
        self._path.write_text(json.dumps(record, indent=1) + "\n")
        print(f"written to {self._path.name}")
