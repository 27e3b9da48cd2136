"""Saves the metrics and tags of a run in a workspace, in the same file as for a run of this machine."""

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

#: Seconds between two reads while the run goes on; seconds after its end for which reading is retried.
_POLL_SECONDS, _LATER = 20.0, 30.0
#: The most metrics of a run, and the most values of all metrics together.
_MAX_METRICS, _MAX_VALUES = 1000, 200_000
#: Tags that the services, mlflow and this program set for themselves.
_SYSTEM_TAGS = ("azureml", "_aml_", "mlflow.")


class RunMetrics:
    """Saves the metrics and tags of one run.

    Args:
        history: The workspace's run history.
        run_id: The run's id.
        file: Where they are saved; see :func:`~workflows.experiments.metrics.read_logged`.
    """

    def __init__(self, history: RunHistory, run_id: str, file: Path) -> None:
        self._history, self._run_id, self._file = history, run_id, file
        self._due = self._ended = 0.0
        self._note = ""

    def update(self, ended: bool) -> bool:
        """Read the metrics and tags if they are due; returns False where reading has to be tried again.

        Args:
            ended: Whether the run has ended: then they are read at once, for the last time.
        """
        now = time.monotonic()
        if ended:
            self._ended = self._ended or now
        elif now < self._due:
            return True
        try:
            events, problem = self._events()
            write_bytes(self._file, "".join(json.dumps(event) + "\n" for event in events).encode(), private=True)
            self._set_note(problem)
        except Exception as error:
            # A failure to read metrics must not keep the run from being followed to its end.
            self._set_note(str(getattr(explain(error, "reading the run's metrics"), "problem", error)))
            return not (ended and is_transient(error) and now - self._ended < _LATER)
        finally:
            self._due = time.monotonic() + _POLL_SECONDS
        return True

    def _events(self) -> tuple[list[dict[str, Any]], str]:
        """The logged metrics and tags as events, and a note where some of them are missing."""
        problem = ""
        found: list[dict[str, Any]] = []
        for count, name in enumerate(self._history.metric_names(self._run_id)):
            values = self._history.metric_values(self._run_id, name)
            if count >= _MAX_METRICS or len(found) + len(values) > _MAX_VALUES:
                problem = f"of more than {_MAX_METRICS} metrics, or {_MAX_VALUES:,} values, the first ones are kept"
                break
            found += [{"event": "metric", "name": name, "value": _plain(name, one)} for one in values]
        tags = child_object(self._history.run(self._run_id), "tags")
        found += [
            {"event": "tag", "name": name, "value": value}
            for name, value in tags.items()
            if isinstance(value, str) and not name.startswith(_SYSTEM_TAGS)
        ]
        return found, problem

    def _set_note(self, text: str) -> None:
        if text == self._note:
            return
        self._note = text
        if text:
            log(f"metrics: {text}")
            note_path(self._file).write_text(text, encoding="utf-8")
        else:
            note_path(self._file).unlink(missing_ok=True)


def note_path(file: Path) -> Path:
    """The file that says why a file of metrics is incomplete."""
    return file.with_name(f"{file.stem}.note")


def _plain(name: str, value: Mapping[str, Any]) -> Any:
    """One value of a metric: the value of its own column, or all columns where it is a table."""
    return value[name] if [*value] == [name] else dict(value)
