"""What a task says, shown to the other side as it grows, and what that has to say to the task."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import time

from .machine import write_json
from .task import LOOK_SECONDS, Task, whole_frames
from .wire import Failure, Wire, at_once, parsed

CHUNK = 256 * 1024
#: Seconds without a sign of life after which the other side is given up: its link may be cut and nobody told.
SILENT_SECONDS = 60


def follow(wire: Wire, task: Task, offset: int) -> None:
    """Send what a task says from an offset of its output on, until its end; and pass on what it is told."""
    while not os.path.exists(task.output):
        if not task.held:
            raise Failure("The task has ended without a word.", "Look at the remote machine: was it restarted?")
        time.sleep(LOOK_SECONDS)
    heard = Heard()
    with open(task.output, "rb", buffering=0) as output:
        size = CHUNK
        while True:
            # Asked before the look: what was written by then is seen.
            held = task.held
            while data := os.pread(output.fileno(), size, offset):
                whole, over = whole_frames(data)
                if whole:
                    wire.raw(data[:whole])
                    offset += whole
                if over:
                    return
                if not whole:
                    if len(data) < size:
                        break
                    # A frame that is longer than what was read.
                    size *= 2
            if not held:
                raise Failure("The task has ended without a word.", "Look at the remote machine: was it restarted?")
            if not _listen(wire, task, heard):
                return


class Heard:
    """When the other side was heard of last."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def now(self) -> None:
        """It has just been heard of."""
        self._last = time.monotonic()

    @property
    def silent(self) -> bool:
        """Whether that was too long ago."""
        return time.monotonic() - self._last > SILENT_SECONDS


def _listen(wire: Wire, task: Task, heard: Heard) -> bool:
    """Pass on what the person does; False where the connection is gone."""
    try:
        got = wire.inbox.get(timeout=LOOK_SECONDS)
    except queue.Empty:
        return not heard.silent
    if got is None:
        wire.inbox.put(None)
        return False
    heard.now()
    kind, payload = got
    command = {"typed": payload.hex()} if kind == b"I" else parsed(payload)
    if "alive" in command:
        return True
    if "done" in command:
        with contextlib.suppress(OSError):
            write_json(task.reported + ".done", command["done"])
    elif "signal" in command:
        if command["signal"] in ("INT", "TERM", "HUP"):
            task.kill(signal.Signals["SIG" + command["signal"]])
    else:
        # Where nobody reads any more, opening fails instead of waiting.
        with contextlib.suppress(OSError), open(task.control, "wb", buffering=0, opener=at_once) as control:
            os.set_blocking(control.fileno(), True)
            control.write(json.dumps(command).encode() + b"\n")
    return True
