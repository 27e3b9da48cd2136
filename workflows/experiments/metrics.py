"""What a run has logged through azureml-core or mlflow: metrics over their steps, parameters and tags."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..debugger.readiness import Events
from ..engines.mlflow_store import FOLDER
from ..runs.record import RunRecord
from . import mlflow_reader
from .mlflow_reader import TrackedRun


@dataclass(frozen=True)
class Logged:
    """What a script has logged.

    Attributes:
        metrics: By name, the values in the order in which they were logged. Of long metrics of mlflow only some.
        tags: The last value of each.
        properties: The last value of each.
        params: Parameters, by name.
        counts: The number of logged values of each metric that :attr:`metrics` has only a part of.
        steps: The steps at which a metric's values were logged, where the script has named them.
        nested: The script's other runs of mlflow, mostly nested ones.
    """

    metrics: Mapping[str, list[Any]] = field(default_factory=dict)
    tags: Mapping[str, Any] = field(default_factory=dict)
    properties: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    steps: Mapping[str, list[int]] = field(default_factory=dict)
    nested: tuple[TrackedRun, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The object for ``--json``: the values of each metric, parameters, tags and properties."""
        found: dict[str, Any] = {
            "metrics": {name: [as_json_value(value) for value in values] for name, values in self.metrics.items()},
            "params": dict(self.params),
            "tags": dict(self.tags),
            "properties": dict(self.properties),
        }
        if self.counts:
            found["metric_counts"] = dict(self.counts)
        if self.nested:
            found["nested_runs"] = [
                {
                    "run_id": one.run_id,
                    "name": one.name,
                    "parent": one.parent or None,
                    "metrics": {name: as_json_value(value) for name, value in one.last().items()},
                    "params": one.params,
                    "tags": one.tags,
                }
                for one in self.nested
            ]
        return found

    def count(self, name: str) -> int:
        """How many values were logged of a metric."""
        return self.counts.get(name, len(self.metrics[name]))

    def last(self) -> dict[str, Any]:
        """The last value of each metric."""
        return {name: values[-1] for name, values in self.metrics.items() if values}

    def series(self, name: str) -> list[tuple[float, float]]:
        """A metric as points: the step or the index of each value, and the value. Only numbers are included."""
        if name in self.steps:
            pairs = zip(self.steps[name], self.metrics[name], strict=True)
            return sorted(((float(step), float(value)) for step, value in pairs), key=lambda point: point[0])
        values: list[Any] = []
        for value in self.metrics.get(name, ()):
            values += value if isinstance(value, list) else [value]
        return [
            (float(number), float(value))
            for number, value in enumerate(values)
            if isinstance(value, int | float) and not isinstance(value, bool)
        ]


def read_logged(path: Path, last: int | None = None) -> Logged:
    """Read a run's ``metrics.jsonl``; empty where there is none.

    Rows and tables become one metric for each column: ``row.column``.

    Args:
        path: The file.
        last: Read only this many bytes at its end, which is enough for the last values.
    """
    offset = 0
    if last is not None and path.exists():
        offset = max(0, path.stat().st_size - last)
    metrics: dict[str, list[Any]] = {}
    tags: dict[str, Any] = {}
    properties: dict[str, Any] = {}
    for event in Events(path, offset).read():
        name, value = str(event.get("name")), event.get("value")
        if event["event"] == "tag":
            tags[name] = value
        elif event["event"] == "property":
            properties[name] = value
        elif event["event"] == "metric" and isinstance(value, dict):
            for column, inner in value.items():
                entry = metrics.setdefault(f"{name}.{column}", [])
                entry += inner if isinstance(inner, list) else [inner]
        elif event["event"] == "metric" and isinstance(value, list):
            metrics.setdefault(name, []).extend(value)
        elif event["event"] == "metric":
            metrics.setdefault(name, []).append(value)
    return Logged(metrics, tags, properties)


def read_all(run: RunRecord, last: int | None = None) -> Logged:
    """Read what an experiment's run has logged through azureml-core and mlflow.

    Args:
        run: The run.
        last: As for :func:`read_logged`. Of mlflow's metrics, only the last values are read then.
    """
    logged = read_logged(run.metrics, last)
    if not (run.folder / FOLDER).is_dir():
        return logged
    tracked = mlflow_reader.read_run(run.folder, run.run_id, last=last is not None)
    metrics = {name: list(values) for name, values in logged.metrics.items()}
    counts, steps = dict[str, int](), dict[str, list[int]]()
    for name, series in tracked.metrics.items():
        before = metrics.get(name, [])
        metrics[name] = [*before, *(value for _step, value in series.points)]
        if series.count > len(series.points):
            counts[name] = len(before) + series.count
        # Where all values have the same step, it is mlflow's default, and the script has named none.
        at = [step for step, _value in series.points]
        if not before and len(set(at)) > 1:
            steps[name] = at
    return Logged(
        metrics,
        {**logged.tags, **tracked.tags},
        logged.properties,
        tracked.params,
        counts,
        steps,
        tuple(mlflow_reader.read_others(run.folder, run.run_id)) if last is None else (),
    )


def as_json_value(value: Any) -> Any:
    """A value for JSON: numbers that are not finite become text."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def format_value(value: Any) -> str:
    """A value as short text on one line."""
    if isinstance(value, float):
        return f"{value:.5g}"
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else text[:59] + "…"
