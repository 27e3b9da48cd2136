"""What a run has logged: its metrics over their steps, its tags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..debugger.readiness import read_events


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


def read_logged(path: Path) -> Logged:
    """Read a run's ``metrics.jsonl``; nothing where there is none.

    Rows and tables become one metric for each column: ``row.column``.
    """
    metrics: dict[str, list[Any]] = {}
    tags: dict[str, Any] = {}
    properties: dict[str, Any] = {}
    for event in read_events(path):
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
