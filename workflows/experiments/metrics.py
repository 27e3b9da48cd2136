"""What a run has logged: its metrics over their steps, its tags."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..debugger.readiness import Events


@dataclass(frozen=True)
class Logged:
    """What a script has logged by azureml-core's run.

    Attributes:
        metrics: By name, every value in the order in which it was logged.
        tags: The last value of each.
        properties: The last value of each.
    """

    metrics: Mapping[str, list[Any]] = field(default_factory=dict)
    tags: Mapping[str, Any] = field(default_factory=dict)
    properties: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """What ``--json`` shows: every value of a metric, and tags and properties."""
        metrics = {name: [_finite(value) for value in values] for name, values in self.metrics.items()}
        return {"metrics": metrics, "tags": dict(self.tags), "properties": dict(self.properties)}

    def last(self) -> dict[str, Any]:
        """The last value of each metric."""
        return {name: values[-1] for name, values in self.metrics.items() if values}

    def series(self, name: str) -> list[tuple[float, float]]:
        """A metric as points, by its place among what was logged; what is no number is left out."""
        values: list[Any] = []
        for value in self.metrics.get(name, ()):
            values += value if isinstance(value, list) else [value]
        return [
            (float(number), float(value))
            for number, value in enumerate(values)
            if isinstance(value, int | float) and not isinstance(value, bool)
        ]


def read_logged(path: Path, last: int | None = None) -> Logged:
    """Read a run's ``metrics.jsonl``; nothing where there is none.

    Rows and tables become one metric for each column: ``row.column``.

    Args:
        path: The file.
        last: Read no more than so many bytes at its end, which is enough for the last values.
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


def _finite(value: Any) -> Any:
    """What JSON has no word for, as text."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def shown(value: Any) -> str:
    """A value as people read it in a line."""
    if isinstance(value, float):
        return f"{value:.5g}"
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else text[:59] + "…"
