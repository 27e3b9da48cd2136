"""The driver's side of a worker: its process, pipes and logs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any, Callable, Dict, Iterator, Optional

_WORKER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "worker.py")
_BLOCK = 1 << 16


class Worker:
    """A worker's process.

    Args:
        name: ``process000`` and so on.
        settings: Its settings, which are sent first.
        variables: Its environment.
        logs: The files for its standard output and its standard error.
        echo: Called with complete lines of both, for the step's own log.

    Attributes:
        batch: The mini-batch that it runs; None while it waits.
        until: Its deadline on the monotonic clock; None for no deadline.
        items: The number of items in its mini-batch, if known.
        tries: How often that mini-batch has been tried, this time included.
        ready: Whether its `init()` has returned.
        last: The event of the error at which it holds for a debugger; empty if it does not hold.
    """

    def __init__(
        self,
        name: str,
        settings: Dict[str, Any],
        variables: Dict[str, str],
        logs: "tuple[str, str]",
        echo: Callable[[bytes], None],
    ) -> None:
        self.name, self._echo = name, echo
        self.batch: Optional[Dict[str, Any]] = None
        self.until: Optional[float] = None
        self.items, self.tries, self.ready = 0, 0, False
        self.last: Dict[str, Any] = {}
        commands, self._commands = os.pipe()
        self._events, events = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, _WORKER, str(commands), str(events)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(commands, events),
                env=variables,
            )
        finally:
            os.close(commands)
            os.close(events)
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._logs = {
            self._process.stdout.fileno(): open(logs[0], "ab"),  # noqa: SIM115
            self._process.stderr.fileno(): open(logs[1], "ab"),  # noqa: SIM115
        }
        self._partial_lines = dict.fromkeys((*self._logs, self._events), b"")
        for handle in (*self._partial_lines, self._commands):
            os.set_blocking(handle, handle == self._commands)
        self._send(settings)

    @property
    def handles(self) -> "list[int]":
        """The descriptors to read its events and output from."""
        return list(self._partial_lines)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def exit_code(self) -> Optional[int]:
        """Its exit code; None while it runs."""
        return self._process.poll()

    def send_batch(self, batch: Dict[str, Any], tries: int) -> None:
        """Send it a mini-batch."""
        self.batch, self.tries, self.items = batch, tries, len(batch.get("paths") or ())
        self._send(batch)

    def _send(self, value: Dict[str, Any]) -> None:
        data = (json.dumps(value) + "\n").encode("utf-8")
        try:
            while data:
                data = data[os.write(self._commands, data) :]
        except BrokenPipeError:
            pass  # It has ended, which its exit code shows.

    def read(self, handle: int) -> Iterator[Dict[str, Any]]:
        """Read what is available from a descriptor, log its output, and yield its events."""
        while handle in self._partial_lines:
            try:
                data = os.read(handle, _BLOCK)
            except BlockingIOError:
                return
            if not data:
                rest = self._partial_lines.pop(handle)
                if rest and handle in self._logs:
                    self._echo(rest + b"\n")
                return
            if handle in self._logs:
                self._logs[handle].write(data)
                self._logs[handle].flush()
            lines = (self._partial_lines[handle] + data).split(b"\n")
            self._partial_lines[handle] = lines.pop()
            if handle in self._logs:
                if lines:
                    self._echo(b"\n".join(lines) + b"\n")
                continue
            for line in lines:
                yield json.loads(line)

    def finish(self) -> None:
        """Close its commands, so that it shuts down."""
        if self._commands >= 0:
            os.close(self._commands)
            self._commands = -1

    def kill(self) -> None:
        """Kill the process, if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def close(self) -> "list[Dict[str, Any]]":
        """Close its pipes and logs, once it has ended; returns its remaining events."""
        self.finish()
        events = [event for handle in self.handles for event in self.read(handle)]
        self._process.wait()
        for file in self._logs.values():
            file.close()
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._process.stdout.close()
        self._process.stderr.close()
        os.close(self._events)
        return events


def deadline_after(seconds: Optional[float]) -> Optional[float]:
    """The deadline in so many seconds, on the monotonic clock; None for no deadline."""
    return None if seconds is None else time.monotonic() + seconds
