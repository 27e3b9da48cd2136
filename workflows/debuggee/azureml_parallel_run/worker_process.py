"""The driver's side of a worker: its process, its pipes, its logs."""

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
        settings: What it is told first.
        variables: Its environment.
        logs: Where its standard output and its standard error are kept.
        echo: Takes whole lines of both, for the step's own log.

    Attributes:
        batch: The mini-batch that it has; None while it waits.
        until: When its time is over, on the monotonic clock; None where it has any time.
        items: Items of its mini-batch, as far as known.
        tries: How often that mini-batch has been tried, this time included.
        ready: Whether its `init()` is over.
        last: The error that it holds at for a debugger; empty where it does not.
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
        orders, self._orders = os.pipe()
        self._answers, answers = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, _WORKER, str(orders), str(answers)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(orders, answers),
                env=variables,
            )
        finally:
            os.close(orders)
            os.close(answers)
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._logs = {
            self._process.stdout.fileno(): open(logs[0], "ab"),  # noqa: SIM115
            self._process.stderr.fileno(): open(logs[1], "ab"),  # noqa: SIM115
        }
        self._rests = dict.fromkeys((*self._logs, self._answers), b"")
        for handle in (*self._rests, self._orders):
            os.set_blocking(handle, handle == self._orders)
        self._tell(settings)

    @property
    def handles(self) -> "list[int]":
        """What to look at for news of it."""
        return list(self._rests)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def ended(self) -> Optional[int]:
        """Its exit code, once it has one."""
        return self._process.poll()

    def give(self, batch: Dict[str, Any], tries: int) -> None:
        """Hand it a mini-batch."""
        self.batch, self.tries, self.items = batch, tries, len(batch.get("paths") or ())
        self._tell(batch)

    def _tell(self, value: Dict[str, Any]) -> None:
        data = (json.dumps(value) + "\n").encode("utf-8")
        try:
            while data:
                data = data[os.write(self._orders, data) :]
        except BrokenPipeError:
            pass  # It has ended, which is seen by its exit code.

    def read(self, handle: int) -> Iterator[Dict[str, Any]]:
        """Take in what is there; what it tells the driver is given back."""
        while handle in self._rests:
            try:
                data = os.read(handle, _BLOCK)
            except BlockingIOError:
                return
            if not data:
                rest = self._rests.pop(handle)
                if rest and handle in self._logs:
                    self._echo(rest + b"\n")
                return
            if handle in self._logs:
                self._logs[handle].write(data)
                self._logs[handle].flush()
            lines = (self._rests[handle] + data).split(b"\n")
            self._rests[handle] = lines.pop()
            if handle in self._logs:
                if lines:
                    self._echo(b"\n".join(lines) + b"\n")
                continue
            for line in lines:
                yield json.loads(line)

    def finish(self) -> None:
        """Tell it that there is nothing more to do."""
        if self._orders >= 0:
            os.close(self._orders)
            self._orders = -1

    def kill(self) -> None:
        """End it at once."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def close(self) -> "list[Dict[str, Any]]":
        """Take in what is left of it, once it has ended; what it still told."""
        self.finish()
        told = [event for handle in self.handles for event in self.read(handle)]
        self._process.wait()
        for file in self._logs.values():
            file.close()
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._process.stdout.close()
        self._process.stderr.close()
        os.close(self._answers)
        return told


def after(seconds: Optional[float]) -> Optional[float]:
    """A time on the monotonic clock; None for never."""
    return None if seconds is None else time.monotonic() + seconds
