"""Tasks: started, supervised by a process of their own that records the output, and removed when they are old."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import struct
import subprocess
import termios
import time
from typing import Any

from .machine import boot_id, is_alive, is_over, private_opener, read_json, read_reports, start_time, write_json
from .wire import HEADER, Failure

#: Seconds between two reads of a growing file.
POLL_SECONDS = 0.02
#: Bytes that are reserved for the end of a task's output if the disk becomes full, and bytes of it that are kept.
SPARE, KEPT_END = 64 * 1024, 16 * 1024
#: Number of tasks whose output is kept.
KEPT_TASKS = 10


class Task:
    """A task of the program on this machine. It outlives the connection.

    Attributes:
        folder: The folder of its output and its reports.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder

    @property
    def output(self) -> str:
        """The file with the task's output so far, as frames."""
        return os.path.join(self.folder, "output")

    @property
    def control(self) -> str:
        """The named pipe for the user's input and the size of the terminal."""
        return os.path.join(self.folder, "control")

    @property
    def report_file(self) -> str:
        """The file of the task's reports to the other side, one JSON object a line."""
        return os.path.join(self.folder, "report.jsonl")

    def start(self, request: dict[str, Any]) -> None:
        """Start the task under a supervisor process, which records its output."""
        os.makedirs(self.folder, mode=0o700)
        ready_pipe, status_pipe = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                if os.fork():
                    os._exit(0)
                os.close(ready_pipe)
                Supervisor(self, request, status_pipe).run()
            except BaseException:
                import traceback

                with open(os.path.join(self.folder, "holder.log"), "a", opener=private_opener) as log:
                    traceback.print_exc(file=log)
            finally:
                os._exit(0)
        os.close(status_pipe)
        os.waitpid(pid, 0)
        with open(ready_pipe, "rb") as answer:
            status = answer.read()
        if status != b"ok":
            raise Failure(
                f"The task cannot be started there: {status.decode(errors='replace') or 'see holder.log'}.",
                "Run it again.",
            )

    def send_signal(self, number: int) -> None:
        """Send a signal to the task's processes."""
        known = read_json(os.path.join(self.folder, "task.json"))
        if known and is_alive(int(known["pid"]), str(known["started"])):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(known["pid"]), number)

    @property
    def is_supervised(self) -> bool:
        """Whether its supervisor still runs."""
        known = read_json(os.path.join(self.folder, "holder.json"))
        return bool(known) and is_alive(int(known["pid"]), str(known["started"]))


class OutputFile:
    """The file of frames in which a task's output is kept. It has complete frames only, even on a full disk.

    Of output that does not fit, only the end is kept, and a note says so.
    """

    def __init__(self, path: str) -> None:
        self._spare = path + ".spare"
        with open(self._spare, "wb", opener=private_opener) as spare:
            spare.write(b"\0" * SPARE)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = 0
        self._full = False
        self._lost = 0
        self._last = bytearray()

    def add(self, kind: bytes, payload: bytes) -> None:
        """Append a frame."""
        frame = HEADER.pack(kind, len(payload)) + payload
        if not self._full:
            if self._write(frame):
                return
            self._full = True
            os.truncate(self._spare, SPARE // 2)
            self._write(self._note(b"No space is left on the remote disk; output from here on may be lost."))
        if kind == b"J":
            # Reports are always kept: without them the other side cannot show the result.
            self._last += frame
            return
        self._lost += len(payload)
        self._last += HEADER.pack(kind, len(payload[-KEPT_END:])) + payload[-KEPT_END:]
        while len(self._last) > KEPT_END + HEADER.size:
            first, length = HEADER.unpack_from(self._last)
            if first == b"J":
                break
            del self._last[: HEADER.size + length]

    def close(self, message: bytes) -> None:
        """Append the last message and close the file."""
        os.unlink(self._spare)
        if self._lost:
            self._write(self._note(b"No space was left on the remote disk for all output; its end:"))
        self._write(bytes(self._last))
        self._write(HEADER.pack(b"J", len(message)) + message)
        os.close(self._file)

    def _write(self, data: bytes) -> bool:
        done = 0
        try:
            while done < len(data):
                done += os.write(self._file, data[done:])
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)
            return False
        self._size += done
        return True

    @staticmethod
    def _note(text: bytes) -> bytes:
        text = b"\r\n[" + text + b"]\r\n"
        return HEADER.pack(b"E", len(text)) + text


class Supervisor:
    """The process that runs a task and records its output, with or without a connection."""

    def __init__(self, task: Task, request: dict[str, Any], status_pipe: int) -> None:
        self._task = task
        self._request = request
        self._status_pipe = status_pipe
        #: Bytes of its report file that were passed on.
        self._reported = 0
        #: Input that has not fitted into the terminal yet, and the beginning of an incomplete command.
        self._typed = bytearray()
        self._half = b""

    def run(self) -> None:
        """Start the task and record its output until it ends."""
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        # Close the agent's standard input and output: the connection would wait for them.
        os.closerange(3, self._status_pipe)
        os.closerange(self._status_pipe + 1, 256)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        request, tty = self._request, self._request.get("tty")
        environ = {**os.environ, **request["environ"], "AZUREML_DEBUG_REPORT": self._task.report_file}
        write_json(
            os.path.join(self._task.folder, "holder.json"), {"pid": os.getpid(), "started": start_time(os.getpid())}
        )
        # Created before the start is reported, so that input typed at once is not lost.
        os.mkfifo(self._task.control, 0o600)
        # Opened for reading and writing, so that there is no end of file while there is no writer.
        commands = os.open(self._task.control, os.O_RDWR | os.O_NONBLOCK)
        readers: dict[int, bytes] = {}
        try:
            if tty:
                master, slave = os.openpty()
                resize(master, tty["columns"], tty["lines"])
                environ["TERM"] = tty["term"]
                out = err = slave
                readers[master] = b"O"
            else:
                (out_read, out), (err_read, err) = os.pipe(), os.pipe()
                readers[out_read], readers[err_read] = b"O", b"E"
            typed = slave if tty and request.get("interactive") else subprocess.DEVNULL
            child = subprocess.Popen(
                request["argv"],
                cwd=request["cwd"],
                env=environ,
                stdin=typed,
                stdout=out,
                stderr=err,
                start_new_session=True,
                preexec_fn=make_controlling_terminal if typed != subprocess.DEVNULL else None,
            )
        except OSError as error:
            os.write(self._status_pipe, str(error).encode())
            return
        for descriptor in {out, err}:
            os.close(descriptor)
        write_json(
            os.path.join(self._task.folder, "task.json"),
            {"pid": child.pid, "started": start_time(child.pid), "boot": boot_id()},
        )
        os.write(self._status_pipe, b"ok")
        os.close(self._status_pipe)
        output = OutputFile(self._task.output)
        try:
            self._copy_output(child, readers, commands, output)
        finally:
            code = child.wait()
            self._pass_on_reports(output)
            output.close(json.dumps({"exit": code}).encode())

    def _pass_on_reports(self, output: OutputFile) -> None:
        """Record the task's new reports, in order with its output."""
        for offset, value in read_reports(self._task.report_file, self._reported):
            self._reported = offset
            output.add(b"J", json.dumps({"report": value, "offset": offset}).encode())

    def _copy_output(
        self, child: subprocess.Popen[bytes], readers: dict[int, bytes], commands: int, output: OutputFile
    ) -> None:
        import selectors

        master = next(iter(readers))
        ended = 0.0
        with selectors.DefaultSelector() as selector:
            for descriptor in readers:
                # A terminal's input buffer is limited: its output has to be read while input waits to be written.
                os.set_blocking(descriptor, False)
                selector.register(descriptor, selectors.EVENT_READ)
            selector.register(commands, selectors.EVENT_READ)
            while readers:
                if master in readers:
                    writing = selectors.EVENT_WRITE if self._typed else 0
                    selector.modify(master, selectors.EVENT_READ | writing)
                events = selector.select(POLL_SECONDS)
                for key, mask in events:
                    if key.fd == commands:
                        self._handle_commands(os.read(commands, 65536), master)
                        continue
                    if mask & selectors.EVENT_WRITE:
                        with contextlib.suppress(OSError):
                            del self._typed[: os.write(master, self._typed[:4096])]
                    if not mask & selectors.EVENT_READ:
                        continue
                    try:
                        data = os.read(key.fd, 65536)
                    except BlockingIOError:
                        continue
                    except OSError:  # a terminal whose last program has ended
                        data = b""
                    if data:
                        output.add(readers[key.fd], data)
                    else:
                        selector.unregister(key.fd)
                        os.close(key.fd)
                        del readers[key.fd]
                # Reports come after the output that was written before them: the task waits until one is passed on.
                self._pass_on_reports(output)
                if child.poll() is None:
                    continue
                # A background process of the task may keep the output open, so wait only briefly for the rest.
                ended = ended or time.monotonic()
                if not any(key.fd in readers for key, _mask in events) and time.monotonic() - ended > 0.05:
                    return

    def _handle_commands(self, data: bytes, master: int) -> None:
        *lines, self._half = (self._half + data).split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError, OSError, TypeError, KeyError, RecursionError, struct.error):
                command = json.loads(line)
                if "typed" in command:
                    self._typed += bytes.fromhex(command["typed"])
                if "columns" in command:
                    resize(master, command["columns"], command["lines"])


def make_controlling_terminal() -> None:
    """Make standard input the controlling terminal, so that the user's Ctrl-C reaches this process."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def resize(descriptor: int, columns: int, lines: int) -> None:
    """Set a terminal's size."""
    with contextlib.suppress(OSError):
        fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


def measure_complete_frames(data: bytes) -> tuple[int, bool]:
    """The number of bytes that are complete frames, and whether the last of these is the end of a task."""
    at = 0
    while len(data) - at >= HEADER.size:
        kind, length = HEADER.unpack_from(data, at)
        end = at + HEADER.size + length
        if end > len(data):
            break
        if kind == b"J" and "exit" in json.loads(data[at + HEADER.size : end]):
            return end, True
        at = end
    return at, False


def remove_old_tasks(tasks: str) -> None:
    """Remove the output of older tasks that have ended."""
    found = sorted(os.listdir(tasks)) if os.path.isdir(tasks) else []
    for name in found[:-KEPT_TASKS]:
        task = Task(os.path.join(tasks, name))
        if not task.is_supervised and not can_get_reports(task):
            shutil.rmtree(task.folder, ignore_errors=True)


def can_get_reports(task: Task) -> bool:
    """Whether a run or a service that the task has started may still report to it."""
    then = read_json(os.path.join(task.folder, "task.json")).get("boot", "")
    owners = [
        {**value["configurations"]["owner"], "boot": then}
        for _offset, value in read_reports(task.report_file, 0)
        if "configurations" in value
    ]
    return any(not is_over(owner) for owner in owners)
