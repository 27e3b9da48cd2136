"""Counts and logs the results of a parallel step's mini-batches, in Azure's files below ``logs``."""

from __future__ import annotations

import csv
import os
import time
from typing import Any, Dict

from .problems import Problem

#: The node's name in the paths of logs; there is only one node.
NODE = "0"
#: Seconds between two lines about the progress.
_PROGRESS_SECONDS = 1.0


class Thresholds:
    """How many failures are allowed; -1 stands for any number.

    Args:
        mini_batches: ``mini_batch_error_threshold``.
        items: ``error_threshold``.
        percent: ``--allowed_failed_percent``.
    """

    def __init__(self, mini_batches: int, items: int, percent: float) -> None:
        self.mini_batches, self.items, self.percent = mini_batches, items, percent


class Outcome:
    """Counts mini-batches and items, and writes the logs.

    Args:
        logs: The step's folder of logs.
        thresholds: How many failures are allowed.
        print_line: Writes a line to the step's own log.
    """

    def __init__(self, logs: str, thresholds: Thresholds, print_line: Any) -> None:
        self._logs, self._thresholds, self._print_line = logs, thresholds, print_line
        self.done = self.failed = self.items = self.failed_items = 0
        #: The event of the first mini-batch that failed.
        self.first: Dict[str, Any] = {}
        self._reported_at = time.monotonic()
        self._last = ""
        report = self.path("sys", "job_report", "processed_mini-batches.csv")
        self._table = open(report, "w", newline="", encoding="utf-8")  # noqa: SIM115
        self._rows = csv.writer(self._table)
        self._rows.writerow(["mini_batch", "process", "status", "items", "results", "tries", "seconds", "error"])

    def path(self, *parts: str) -> str:
        """A path below the logs; its folder is created."""
        found = os.path.join(self._logs, *parts)
        os.makedirs(os.path.dirname(found), exist_ok=True)
        return found

    def note_done(self, index: int, process: str, tries: int, event: Dict[str, Any]) -> None:
        """Record that a mini-batch has been run; it has failed if there are fewer results than items."""
        items, results = int(event["items"]), int(event["results"])
        missing_results = max(0, items - results)
        self.done += 1
        self.items += items
        self.failed_items += missing_results
        status = "failed" if missing_results else "done"
        if missing_results:
            self.failed += 1
            text = "mini-batch {}: {} results for {} items".format(index, results, items)
            self._note_error(text)
            self.first = self.first or {"index": index, "message": "{} results for {} items".format(results, items)}
        self._write_row(index, process, status, items, results, tries, event["seconds"], "")

    def note_failed(self, index: int, process: str, tries: int, items: int, event: Dict[str, Any]) -> None:
        """Record that a mini-batch has failed in all its tries."""
        self.done += 1
        self.failed += 1
        self.items += items
        self.failed_items += items
        self._note_error("mini-batch {}: {}".format(index, _place_and_message(event)))
        self.first = self.first or {"index": index, **event}
        self._write_row(index, process, "failed", items, 0, tries, 0.0, event["message"])

    def note_trace(self, process: str, index: int, event: Dict[str, Any]) -> None:
        """Write the full traceback of an error to the logs."""
        with open(self.path("user", "error", NODE, process + ".txt"), "a", encoding="utf-8") as file:
            file.write("mini-batch {}\n{}\n".format(index, event.get("traceback") or event["message"]))

    def check(self) -> None:
        """Check whether too much has failed already.

        Raises:
            Problem: More has failed than is allowed.
        """
        allowed = self._thresholds
        if 0 <= allowed.mini_batches < self.failed:
            raise Problem(
                self._too_many_mini_batches("mini_batch_error_threshold ({}) allows".format(allowed.mini_batches)), ""
            )
        if 0 <= allowed.items < self.failed_items:
            raise Problem(
                "{} of {} items failed, more than error_threshold ({}) allows{}".format(
                    self.failed_items, self.items, allowed.items, self._first_failure()
                ),
                "",
            )

    def check_all(self) -> None:
        """Check, after the last mini-batch, whether too much has failed.

        Raises:
            Problem: More has failed than is allowed.
        """
        self.check()
        if self.done and 100.0 * self.failed / self.done > self._thresholds.percent:
            raise Problem(
                self._too_many_mini_batches("--allowed_failed_percent ({:g}) allows".format(self._thresholds.percent)),
                "",
            )

    def progress(self, last: bool = False) -> None:
        """Report the progress, at most once a second."""
        now = time.monotonic()
        if not last and now - self._reported_at < _PROGRESS_SECONDS:
            return
        text = "{} mini-batches done, {} failed; {} items, {} failed".format(
            self.done, self.failed, self.items, self.failed_items
        )
        if text == self._last:
            return
        self._reported_at, self._last = now, text
        self._print_line(text)
        with open(self.path("job_progress_overview.txt"), "a", encoding="utf-8") as file:
            file.write("{} {}\n".format(time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()), text))

    def close(self, result: str) -> None:
        """Write the step's result to the logs."""
        self._table.close()
        with open(self.path("job_result.txt"), "w", encoding="utf-8") as file:
            file.write(result + "\n")

    def _too_many_mini_batches(self, allows: str) -> str:
        return "{} of {} mini-batches failed, more than {}{}".format(
            self.failed, self.done, allows, self._first_failure()
        )

    def _first_failure(self) -> str:
        return (
            "; the first: mini-batch {}, {}".format(self.first["index"], _place_and_message(self.first))
            if self.first
            else ""
        )

    def _note_error(self, text: str) -> None:
        with open(self.path("user", "error.txt"), "a", encoding="utf-8") as file:
            file.write(text + "\n")

    def _write_row(self, *values: Any) -> None:
        self._rows.writerow(values)
        self._table.flush()


def _place_and_message(event: Dict[str, Any]) -> str:
    place = event.get("place")
    return "{}: {}".format(place, event["message"]) if place else str(event["message"])
