"""Passes a task's output to the other side as it grows, and the user's input to the task."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import time

from .machine import write_json
from .task import POLL_SECONDS, Task, measure_complete_frames
from .wire import Failure, Wire, open_without_waiting, parse_message

CHUNK = 256 * 1024
#: Seconds without a message after which the other side is given up: a broken link may go unnoticed.
SILENT_SECONDS = 60


def follow(wire: Wire, task: Task, offset: int) -> None:
    """Send a task's output from an offset on until the task ends, and pass the user's input to it."""
    while not os.path.exists(task.output):
        if not task.is_supervised:
            raise Failure("The task has ended without a result.", "Look at the remote machine: was it restarted?")
        time.sleep(POLL_SECONDS)
    contact = LastContact()
    with open(task.output, "rb", buffering=0) as output:
        size = CHUNK
        while True:
            # Checked before reading, so that everything written up to the end is read.
            held = task.is_supervised
            while data := os.pread(output.fileno(), size, offset):
                whole, over = measure_complete_frames(data)
                if whole:
                    wire.send_raw(data[:whole])
                    offset += whole
                if over:
                    return
                if not whole:
                    if len(data) < size:
                        break
                    # The frame is longer than the data that was read.
                    size *= 2
            if not held:
                raise Failure("The task has ended without a result.", "Look at the remote machine: was it restarted?")
            if not _pass_on_input(wire, task, contact):
                return


class LastContact:
    """The time of the last message from the other side."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def renew(self) -> None:
        """Note that a message has just arrived."""
        self._last = time.monotonic()

    @property
    def too_long_ago(self) -> bool:
        """Whether the last message is more than :data:`SILENT_SECONDS` old."""
        return time.monotonic() - self._last > SILENT_SECONDS


def _pass_on_input(wire: Wire, task: Task, contact: LastContact) -> bool:
    """Pass one message of the user to the task. Return False if the connection is gone."""
    try:
        got = wire.inbox.get(timeout=POLL_SECONDS)
    except queue.Empty:
        return not contact.too_long_ago
    if got is None:
        wire.inbox.put(None)
        return False
    contact.renew()
    kind, payload = got
    command = {"typed": payload.hex()} if kind == b"I" else parse_message(payload)
    if "alive" in command:
        return True
    if "done" in command:
        with contextlib.suppress(OSError):
            write_json(task.report_file + ".done", command["done"])
    elif "signal" in command:
        if command["signal"] in ("INT", "TERM", "HUP"):
            task.send_signal(signal.Signals["SIG" + command["signal"]])
    else:
        # Without a reader, opening fails instead of blocking.
        with (
            contextlib.suppress(OSError),
            open(task.control, "wb", buffering=0, opener=open_without_waiting) as control,
        ):
            os.set_blocking(control.fileno(), True)
            control.write(json.dumps(command).encode() + b"\n")
    return True
