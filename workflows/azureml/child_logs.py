"""The logs of one step of a run in a workspace: read as they grow, copied here and searched for announcements."""

from __future__ import annotations

import re
import time
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..private import open_file
from ..received import Refused
from ..runs.record import RunRecord, StepRecord
from .announcements import LogReader, StepState
from .limited_requests import LOG_BYTES, PART_BYTES
from .service import PipelineService

#: Names of the logs of a step's processes, in every layout that the service has used.
_PROCESS_LOG = re.compile(r"(?:azureml-logs/70_driver_log|user_logs/std_log)(?:_(?:process_)?([0-9]{1,6}))?\.txt")
_BUILD_LOG = re.compile(r"(?:.*/)?20_image_build_log\.txt|.*image[-_]build.*\.(?:txt|log)")
#: Seconds after which the addresses of the logs are requested again: they expire.
_ADDRESSES_SECONDS = 60.0
_LINE_LETTERS = 1 << 16
#: Seconds between two reads of a log that has nothing new; the pause grows.
_IDLE = (1.0, 2.0, 3.0, 5.0)


@dataclass
class _Log:
    """One log of the service and its copy here.

    Attributes:
        path: The copy.
        url: The address that it is read from.
        offset: Bytes read so far.
        idle: How many reads in a row found nothing new.
        due: When to read it again, by the monotonic clock.
        reader: Finds the published lines; None for a log without any.
    """

    path: Path
    url: str
    offset: int = 0
    idle: int = 0
    due: float = 0.0
    reader: LogReader | None = None
    _partial_line: str = ""

    def append(self, data: bytes) -> list[dict[str, Any]]:
        """Append new content to the copy; returns the events in it."""
        with open_file(self.path, "ab") as file:
            file.write(data)
        self.offset += len(data)
        if self.reader is None:
            return []
        *lines, self._partial_line = (self._partial_line + data.decode("utf-8", "replace")).split("\n")
        # The published lines are short, so a line without an end need not be kept.
        self._partial_line = self._partial_line[-_LINE_LETTERS:]
        return [*self.reader.read(lines), *self.reader.flush()]


class StepLogs:
    """The logs of one step.

    Args:
        run: The run.
        record: The step in it.
        service: The run in the workspace.
        state: Updated with what the logs announce.
        threads: Reads several logs at once.

    Attributes:
        error: Why the step failed, where the service says so along with the addresses of the logs.
        is_incomplete: Whether a log could not be read completely the last time.
    """

    def __init__(
        self, run: RunRecord, record: StepRecord, service: PipelineService, state: StepState, threads: Executor
    ) -> None:
        self.error, self.is_incomplete = "", False
        self._run, self._record, self._service, self._state, self._threads = run, record, service, state, threads
        self._logs: dict[str, _Log] = {}
        self._details_at = 0.0

    @property
    def is_growing(self) -> bool:
        """Whether a log had new content at the last read."""
        return any(log.idle == 0 for log in self._logs.values())

    def read(self, run_id: str, ended: bool) -> list[dict[str, Any]]:
        """Read the logs that are due; returns the events in their new content.

        Args:
            run_id: The child run's id.
            ended: Whether the child run has ended: then every log is read.
        """
        now = time.monotonic()
        expected = self._record.ranks
        have = sum(log.reader is not None for log in self._logs.values())
        if ended or now - self._details_at > (_IDLE[0] if have < expected else _ADDRESSES_SECONDS):
            self._details_at = now
            addresses, self.error = self._service.details(run_id)
            for name, url in addresses.items():
                self._add_or_update(name, url)
        events: list[dict[str, Any]] = []
        due = [log for log in self._logs.values() if ended or log.due <= now]
        self.is_incomplete = False
        for log, data in zip(due, self._threads.map(self._read_new, due), strict=True):
            if data is None:
                # The address may have expired.
                self._details_at, self.is_incomplete = 0.0, True
                continue
            if log.offset > LOG_BYTES:
                raise Refused(f"more than {LOG_BYTES >> 30} GB in one log")
            self.is_incomplete |= ended and len(data) >= PART_BYTES
            log.idle = 0 if data else min(log.idle + 1, len(_IDLE))
            log.due = now + (_IDLE[log.idle - 1] if log.idle else 0.0)
            events += log.append(data)
        return events

    def _add_or_update(self, name: str, url: str) -> None:
        if name in self._logs:
            self._logs[name].url = url
            return
        match = _PROCESS_LOG.fullmatch(name)
        if match is not None:
            rank = int(match[1] or 0)
            if rank < self._record.ranks:
                path = self._run.log(self._record, rank)
                self._logs[name] = _Log(path, url, reader=LogReader(self._state, rank))
        elif _BUILD_LOG.fullmatch(name):
            known = [log for log in self._logs.values() if log.reader is None]
            if not known:
                self._logs[name] = _Log(self._run.build_log(self._record), url)

    def _read_new(self, log: _Log) -> bytes | None:
        from requests import RequestException

        try:
            return self._service.read(log.url, log.offset)
        except RequestException:
            return None
