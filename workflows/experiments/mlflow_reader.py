"""Reads what a run has logged with mlflow from the files of its store, without mlflow.

A metric of a million points is not read completely: the last value is at the end of its file, others are sampled at
even distances, and lines are counted without being parsed. Everything that is read has limits.

The layout is that of mlflow's file store, see :mod:`workflows.engines.mlflow_store`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import FileIO
from itertools import islice
from pathlib import Path

from ..engines.mlflow_store import ARTIFACTS, FOLDER, STORE, mlflow_run_id

#: Points that are read of all metrics together, and the fewest and the most points of one metric.
POINTS, FEWEST, MOST = 20_000, 20, 2_000
#: The most names of a run's metrics, parameters and tags each; the most other runs.
NAMES, RUNS = 2_000, 200
#: The most bytes of a parameter or a tag, of a line of a metric's file, and of a file whose lines are all counted.
TEXT_BYTES, LINE_BYTES, COUNTED_BYTES = 8_192, 512, 256 * 1024 * 1024
_PART = 1024 * 1024
#: mlflow's own tags, which repeat the run's record.
_OWN_TAG = re.compile(r"mlflow\.(?!note\.content$)")
_NAME = re.compile(rb"^run_name: *(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Series:
    """A metric.

    Attributes:
        points: Step and value, in the order in which they were logged. Of a long metric only some, with the last one.
        count: The number of logged points; 0 where they were not counted.
    """

    points: tuple[tuple[int, float], ...]
    count: int


@dataclass(frozen=True)
class TrackedRun:
    """One run in a store.

    Attributes:
        run_id: Its id.
        name: Its name.
        parent: The run that it is nested in; empty for none.
        metrics: By name.
        params: By name.
        tags: By name, without mlflow's own.
    """

    run_id: str
    name: str = ""
    parent: str = ""
    metrics: dict[str, Series] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def last(self) -> dict[str, float]:
        """The last value of each metric."""
        return {name: series.points[-1][1] for name, series in self.metrics.items()}


def read_run(folder: Path, run_id: str, *, last: bool = False) -> TrackedRun:
    """Read a step's own run; it is empty where nothing was logged.

    Args:
        folder: The step's folder.
        run_id: Its id, as in the run's record.
        last: Read nothing but the last value of each metric.
    """
    own = mlflow_run_id(run_id)
    place = next((path for path in _runs(folder) if path.name == own), None)
    return TrackedRun(own) if place is None else _read(place, last=last)


def read_others(folder: Path, run_id: str) -> list[TrackedRun]:
    """Read a step's other runs, mostly nested ones, with the last value of each metric."""
    own = mlflow_run_id(run_id)
    return [_read(path, last=True) for path in islice((one for one in _runs(folder) if one.name != own), RUNS)]


def artifacts(folder: Path, run_id: str) -> list[tuple[str, Path]]:
    """The folders with a step's artifacts, each with its name in the run."""
    own = mlflow_run_id(run_id)
    found = [
        (ARTIFACTS if path.name == own else f"{ARTIFACTS}/{path.name}", path / ARTIFACTS)
        for path in islice(_runs(folder), RUNS)
    ]
    # mlflow 3 keeps a logged model beside the runs.
    models = sorted((folder / FOLDER / STORE).glob(f"*/models/*/{ARTIFACTS}"))
    return [*found, *((f"{ARTIFACTS}/models/{path.parent.name}", path) for path in models)]


def _runs(folder: Path) -> Iterator[Path]:
    for experiment in _folders(folder / FOLDER / STORE):
        for run in _folders(experiment):
            if (run / "metrics").is_dir() and (run / "meta.yaml").is_file():
                yield run


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(Path(entry.path) for entry in os.scandir(folder) if entry.is_dir() and entry.name != ".trash")
    except OSError:
        return []


def _read(place: Path, *, last: bool) -> TrackedRun:
    tags = {name: _text(path) for name, path in _files(place / "tags")}
    files = list(_files(place / "metrics"))
    most = 1 if last else min(MOST, max(FEWEST, POINTS // max(1, len(files))))
    metrics = {name: _series(path, most, last) for name, path in files}
    name = _NAME.search(_bytes(place / "meta.yaml"))
    return TrackedRun(
        run_id=place.name,
        name=name[1].decode("utf-8", "replace").strip().strip("'\"") if name else "",
        parent=tags.get("mlflow.parentRunId", ""),
        metrics={name: series for name, series in metrics.items() if series.points},
        params={name: _text(path) for name, path in _files(place / "params")},
        tags={name: text for name, text in tags.items() if not _OWN_TAG.match(name)},
    )


def _files(root: Path) -> Iterator[tuple[str, Path]]:
    """Files by name, sorted, at most :data:`NAMES`. A name may have slashes."""

    def walk(folder: Path, before: str) -> Iterator[tuple[str, Path]]:
        try:
            entries = sorted(islice(os.scandir(folder), NAMES), key=lambda entry: entry.name)
        except OSError:
            return
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from walk(Path(entry.path), f"{before}{entry.name}/")
            elif entry.is_file(follow_symlinks=False):
                yield before + entry.name, Path(entry.path)

    return islice(walk(root, ""), NAMES)


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(TEXT_BYTES)
    except OSError:
        return b""


def _text(path: Path) -> str:
    return _bytes(path).decode("utf-8", "replace")


def _series(path: Path, most: int, last: bool) -> Series:
    try:
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if last:
                return Series(tuple(_points(_tail(file, size))[-1:]), 0)
            if size <= most * 2 * LINE_BYTES // 16:
                points = _points(_at(file, 0, size))
                return Series(_thinned(points, most), len(points))
            lines = [_line(file, size * number // most) for number in range(most)]
            lines.append(_tail(file, size).rstrip(b"\n").rpartition(b"\n")[2] + b"\n")
            return Series(tuple(_points(b"".join(lines))), _count(file, size))
    except OSError:
        return Series((), 0)


def _at(file: FileIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _tail(file: FileIO, size: int) -> bytes:
    """The last complete lines, without one that is just being written."""
    begin = max(0, size - 2 * LINE_BYTES)
    data = _at(file, begin, size - begin)
    data = data[: data.rfind(b"\n") + 1]
    return data[data.find(b"\n") + 1 :] if begin else data


def _line(file: FileIO, offset: int) -> bytes:
    """The first complete line from an offset on."""
    data = _at(file, max(0, offset - 1), 2 * LINE_BYTES)
    begin = data.find(b"\n") + 1 if offset else 0
    return data[begin : data.find(b"\n", begin) + 1]


def _points(data: bytes) -> list[tuple[int, float]]:
    """Step and value of each complete line, ``TIME VALUE [STEP …]``; lines of another form are omitted."""
    found = []
    for line in data[: data.rfind(b"\n") + 1].split(b"\n"):
        words = line.split(b" ")
        try:
            found.append((int(words[2]) if len(words) > 2 else 0, float(words[1])))
        except (IndexError, ValueError):
            continue
    return found


def _thinned(points: list[tuple[int, float]], most: int) -> tuple[tuple[int, float], ...]:
    if len(points) <= most:
        return tuple(points)
    return (*(points[len(points) * number // most] for number in range(most)), points[-1])


def _count(file: FileIO, size: int) -> int:
    """The number of lines; for a very long file, estimated from its first :data:`COUNTED_BYTES`."""
    counted = min(size, COUNTED_BYTES)
    lines = sum(_at(file, offset, _PART).count(b"\n") for offset in range(0, counted, _PART))
    return lines * size // counted if counted else 0
