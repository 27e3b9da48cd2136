"""The logs of one step of a run in a workspace: read as they grow, kept here, searched for announcements."""

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

#: Logs of a step's processes, in each of the layouts that the service has had.
_DRIVER = re.compile(r"(?:azureml-logs/70_driver_log|user_logs/std_log)(?:_(?:process_)?([0-9]{1,6}))?\.txt")
_BUILD = re.compile(r"(?:.*/)?20_image_build_log\.txt|.*image[-_]build.*\.(?:txt|log)")
#: Seconds after which where the logs are is asked for again: the addresses expire.
_ADDRESSES_SECONDS = 60.0
_LINE_LETTERS = 1 << 16
#: Seconds between two looks at a log that has nothing new, growing.
_IDLE = (1.0, 2.0, 3.0, 5.0)


@dataclass
class _Log:
    """One log of the service, and its copy here.

    Attributes:
        path: The copy.
        url: Where it is read.
        offset: Bytes read.
        idle: How many times in a row nothing was new.
        due: When to look again, by the monotonic clock.
        reader: Looks for the published lines; None for a log that has none.
    """

    path: Path
    url: str
    offset: int = 0
    idle: int = 0
    due: float = 0.0
    reader: LogReader | None = None
    _rest: str = ""

    def take(self, data: bytes) -> list[dict[str, Any]]:
        """Keep what is new; the events in it."""
        with open_file(self.path, "ab") as file:
            file.write(data)
        self.offset += len(data)
        if self.reader is None:
            return []
        *lines, self._rest = (self._rest + data.decode("utf-8", "replace")).split("\n")
        # What is looked for is short; a line that never ends is not kept.
        self._rest = self._rest[-_LINE_LETTERS:]
        return [*self.reader.read(lines), *self.reader.flush()]


class StepLogs:
    """The logs of one step.

    Args:
        run: The run.
        record: The step in it.
        service: The run in the workspace.
        said: Takes what the logs say of the step's place.
        threads: For reading several at once.

    Attributes:
        error: Why the step failed, as far as the service says it where it says where the logs are.
        behind: Whether one could not be read the last time.
    """

    def __init__(
        self, run: RunRecord, record: StepRecord, service: PipelineService, said: StepState, threads: Executor
    ) -> None:
        self.error, self.behind = "", False
        self._run, self._record, self._service, self._said, self._threads = run, record, service, said, threads
        self._logs: dict[str, _Log] = {}
        self._asked = 0.0

    @property
    def growing(self) -> bool:
        """Whether one has just had something new."""
        return any(log.idle == 0 for log in self._logs.values())

    def read(self, run_id: str, ended: bool) -> list[dict[str, Any]]:
        """Read what is due by now; the events in it.

        Args:
            run_id: The child run's id.
            ended: Whether it has ended: then all is read.
        """
        now = time.monotonic()
        expected = self._record.ranks
        have = sum(log.reader is not None for log in self._logs.values())
        if ended or now - self._asked > (_IDLE[0] if have < expected else _ADDRESSES_SECONDS):
            self._asked = now
            addresses, self.error = self._service.details(run_id)
            for name, url in addresses.items():
                self._address(name, url)
        events: list[dict[str, Any]] = []
        due = [log for log in self._logs.values() if ended or log.due <= now]
        self.behind = False
        for log, data in zip(due, self._threads.map(self._new_in, due), strict=True):
            if data is None:
                # The address may have expired.
                self._asked, self.behind = 0.0, True
                continue
            if log.offset > LOG_BYTES:
                raise Refused(f"more than {LOG_BYTES >> 30} GB in one log")
            self.behind |= ended and len(data) >= PART_BYTES
            log.idle = 0 if data else min(log.idle + 1, len(_IDLE))
            log.due = now + (_IDLE[log.idle - 1] if log.idle else 0.0)
            events += log.take(data)
        return events

    def _address(self, name: str, url: str) -> None:
        if name in self._logs:
            self._logs[name].url = url
            return
        match = _DRIVER.fullmatch(name)
        if match is not None:
            rank = int(match[1] or 0)
            if rank < self._record.ranks:
                path = self._run.log(self._record, rank)
                self._logs[name] = _Log(path, url, reader=LogReader(self._said, rank))
        elif _BUILD.fullmatch(name):
            known = [log for log in self._logs.values() if log.reader is None]
            if not known:
                self._logs[name] = _Log(self._run.build_log(self._record), url)

    def _new_in(self, log: _Log) -> bytes | None:
        from requests import RequestException

        try:
            return self._service.read(log.url, log.offset)
        except RequestException:
            return None
