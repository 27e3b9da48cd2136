"""What a run in a workspace has logged, kept here as a run of this machine keeps it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..background import log
from ..project import write_bytes
from .errors import explain, is_transient
from .history import RunHistory, child_object

#: Seconds between two looks at a run that goes on; seconds after its end for which they are tried to be read.
_EVERY, _LATER = 20.0, 30.0
#: Metrics of a run, and values of them all.
_METRICS, _VALUES = 1000, 200_000
#: Tags that the services, mlflow and this program set for themselves.
_OWN = ("azureml", "_aml_", "mlflow.")


class RunMetrics:
    """Keeps the metrics and tags of one run.

    Args:
        history: The workspace's run history.
        run_id: The run's id.
        file: Where they are kept; see :func:`~workflows.experiments.metrics.read_logged`.
    """

    def __init__(self, history: RunHistory, run_id: str, file: Path) -> None:
        self._history, self._run_id, self._file = history, run_id, file
        self._due = self._ended = 0.0
        self._told = ""

    def update(self, ended: bool) -> bool:
        """Read them where it is time to; whether all is done that can be.

        Args:
            ended: Whether the run has ended: they are read at once, and for the last time.
        """
        now = time.monotonic()
        if ended:
            self._ended = self._ended or now
        elif now < self._due:
            return True
        try:
            events, wrong = self._events()
            write_bytes(self._file, "".join(json.dumps(event) + "\n" for event in events).encode(), private=True)
            self._tell(wrong)
        except Exception as error:
            # A run goes on, and ends, whether or not somebody can tell what it has logged.
            self._tell(str(getattr(explain(error, "reading the run's metrics"), "problem", error)))
            return not (ended and is_transient(error) and now - self._ended < _LATER)
        finally:
            self._due = time.monotonic() + _EVERY
        return True

    def _events(self) -> tuple[list[dict[str, Any]], str]:
        """What has been logged; and what of it is not here, empty where all is."""
        wrong = ""
        found: list[dict[str, Any]] = []
        for count, name in enumerate(self._history.metrics(self._run_id)):
            values = self._history.metric(self._run_id, name)
            if count >= _METRICS or len(found) + len(values) > _VALUES:
                wrong = f"of more than {_METRICS} metrics, or {_VALUES:,} values, the first ones are kept"
                break
            found += [{"event": "metric", "name": name, "value": _plain(name, one)} for one in values]
        tags = child_object(self._history.run(self._run_id), "tags")
        found += [
            {"event": "tag", "name": name, "value": value}
            for name, value in tags.items()
            if isinstance(value, str) and not name.startswith(_OWN)
        ]
        return found, wrong

    def _tell(self, text: str) -> None:
        if text == self._told:
            return
        self._told = text
        if text:
            log(f"metrics: {text}")
            note_path(self._file).write_text(text, encoding="utf-8")
        else:
            note_path(self._file).unlink(missing_ok=True)


def note_path(file: Path) -> Path:
    """Where it is kept why not all metrics are in a file of them."""
    return file.with_name(f"{file.stem}.note")


def _plain(name: str, value: Mapping[str, Any]) -> Any:
    """One value of a metric: that of its own column, or of all where it is a table."""
    return value[name] if [*value] == [name] else dict(value)
