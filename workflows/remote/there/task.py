"""A task: started, held beside the connection, its output kept, and tidied away."""

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

from .machine import alive, boot, for_this_user, is_over, new_reports, read_json, started, write_json
from .wire import HEADER, Failure

#: Seconds between two looks at what grows.
LOOK_SECONDS = 0.02
#: Bytes set aside for the last words of a task on a disk that is full by then, and how many of them are kept.
SPARE, LAST_WORDS = 64 * 1024, 16 * 1024
#: Tasks of which the output is kept.
KEPT_TASKS = 10


class Task:
    """A task of the program on this machine, which outlives the connection.

    Attributes:
        folder: Where its output is kept, and what it reports.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder

    @property
    def output(self) -> str:
        """The file of frames: what the task has said so far."""
        return os.path.join(self.folder, "output")

    @property
    def control(self) -> str:
        """The pipe through which it is told what was typed, and how large the terminal is."""
        return os.path.join(self.folder, "control")

    @property
    def reported(self) -> str:
        """The file in which the task tells what the other side has to know, a JSON object a line."""
        return os.path.join(self.folder, "report.jsonl")

    def start(self, request: dict[str, Any]) -> None:
        """Start it under a holder of its own, which sees to its output."""
        os.makedirs(self.folder, mode=0o700)
        ready, told = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                if os.fork():
                    os._exit(0)
                os.close(ready)
                Holder(self, request, told).hold()
            except BaseException:
                import traceback

                with open(os.path.join(self.folder, "holder.log"), "a", opener=for_this_user) as log:
                    traceback.print_exc(file=log)
            finally:
                os._exit(0)
        os.close(told)
        os.waitpid(pid, 0)
        with open(ready, "rb") as answer:
            said = answer.read()
        if said != b"ok":
            raise Failure(
                f"The task cannot be started there: {said.decode(errors='replace') or 'see holder.log'}.",
                "Run it again.",
            )

    def kill(self, number: int) -> None:
        """Send the task's processes a signal."""
        known = read_json(os.path.join(self.folder, "task.json"))
        if known and alive(int(known["pid"]), str(known["started"])):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(known["pid"]), number)

    @property
    def held(self) -> bool:
        """Whether somebody still sees to its output."""
        known = read_json(os.path.join(self.folder, "holder.json"))
        return bool(known) and alive(int(known["pid"]), str(known["started"]))


class Record:
    """The file of frames in which a task's output is kept. It holds whole frames only, also on a full disk.

    What does not fit is lost but for its end, and said to be.
    """

    def __init__(self, path: str) -> None:
        self._spare = path + ".spare"
        with open(self._spare, "wb", opener=for_this_user) as spare:
            spare.write(b"\0" * SPARE)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = 0
        self._full = False
        self._lost = 0
        self._last = bytearray()

    def add(self, kind: bytes, payload: bytes) -> None:
        """Write a frame down."""
        frame = HEADER.pack(kind, len(payload)) + payload
        if not self._full:
            if self._write(frame):
                return
            self._full = True
            os.truncate(self._spare, SPARE // 2)
            self._write(self._note(b"No space is left on the remote disk; what is said from here on may be lost."))
        if kind == b"J":
            # Without what it reports, a command is worth nothing here.
            self._last += frame
            return
        self._lost += len(payload)
        self._last += HEADER.pack(kind, len(payload[-LAST_WORDS:])) + payload[-LAST_WORDS:]
        while len(self._last) > LAST_WORDS + HEADER.size:
            first, length = HEADER.unpack_from(self._last)
            if first == b"J":
                break
            del self._last[: HEADER.size + length]

    def close(self, message: bytes) -> None:
        """Write the last message down."""
        os.unlink(self._spare)
        if self._lost:
            self._write(self._note(b"No space was left on the remote disk for all that was said; its end:"))
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


class Holder:
    """The process that owns a task: it writes down what the task says, whoever listens."""

    def __init__(self, task: Task, request: dict[str, Any], told: int) -> None:
        self._task = task
        self._request = request
        self._told = told
        #: Bytes of its report that were passed on.
        self._reported = 0
        #: What was typed and has not fitted into its terminal yet, and the beginning of a command to this one.
        self._typed = bytearray()
        self._half = b""

    def hold(self) -> None:
        """Start the task and see it to its end."""
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        # Standard input and output of the agent, which the connection would wait for.
        os.closerange(3, self._told)
        os.closerange(self._told + 1, 256)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        request, tty = self._request, self._request.get("tty")
        environ = {**os.environ, **request["environ"], "AZUREML_DEBUG_REPORT": self._task.reported}
        write_json(
            os.path.join(self._task.folder, "holder.json"), {"pid": os.getpid(), "started": started(os.getpid())}
        )
        # Before anybody is told that it has begun: what is typed at once is not to be lost.
        os.mkfifo(self._task.control, 0o600)
        # Opened for both, so that it never ends while nobody writes.
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
                preexec_fn=own_terminal if typed != subprocess.DEVNULL else None,
            )
        except OSError as error:
            os.write(self._told, str(error).encode())
            return
        for descriptor in {out, err}:
            os.close(descriptor)
        write_json(
            os.path.join(self._task.folder, "task.json"),
            {"pid": child.pid, "started": started(child.pid), "boot": boot()},
        )
        os.write(self._told, b"ok")
        os.close(self._told)
        output = Record(self._task.output)
        try:
            self._pump(child, readers, commands, output)
        finally:
            code = child.wait()
            self._tell(output)
            output.close(json.dumps({"exit": code}).encode())

    def _tell(self, output: Record) -> None:
        """Pass on what the task has reported; in its place between what it has said."""
        for offset, value in new_reports(self._task.reported, self._reported):
            self._reported = offset
            output.add(b"J", json.dumps({"report": value, "offset": offset}).encode())

    def _pump(self, child: subprocess.Popen[bytes], readers: dict[int, bytes], commands: int, output: Record) -> None:
        import selectors

        master = next(iter(readers))
        ended = 0.0
        with selectors.DefaultSelector() as selector:
            for descriptor in readers:
                # A terminal takes only so much that nobody reads; its output has to be taken in meanwhile.
                os.set_blocking(descriptor, False)
                selector.register(descriptor, selectors.EVENT_READ)
            selector.register(commands, selectors.EVENT_READ)
            while readers:
                if master in readers:
                    writing = selectors.EVENT_WRITE if self._typed else 0
                    selector.modify(master, selectors.EVENT_READ | writing)
                events = selector.select(LOOK_SECONDS)
                for key, mask in events:
                    if key.fd == commands:
                        self._obey(os.read(commands, 65536), master)
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
                # After what it had said by then: it says nothing more until that is done.
                self._tell(output)
                if child.poll() is None:
                    continue
                # What it has left in the background may keep its output open: a moment for the rest, no more.
                ended = ended or time.monotonic()
                if not any(key.fd in readers for key, _mask in events) and time.monotonic() - ended > 0.05:
                    return

    def _obey(self, data: bytes, master: int) -> None:
        *lines, self._half = (self._half + data).split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError, OSError, TypeError, KeyError, RecursionError, struct.error):
                command = json.loads(line)
                if "typed" in command:
                    self._typed += bytes.fromhex(command["typed"])
                if "columns" in command:
                    resize(master, command["columns"], command["lines"])


def own_terminal() -> None:
    """Make standard input the terminal that Ctrl-C of the person comes from."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def resize(descriptor: int, columns: int, lines: int) -> None:
    """Tell a terminal its size."""
    with contextlib.suppress(OSError):
        fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


def whole_frames(data: bytes) -> tuple[int, bool]:
    """How many bytes of the data are whole frames, and whether the last of them is a task's end."""
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


def tidy(tasks: str) -> None:
    """Forget the output of older tasks that have ended."""
    found = sorted(os.listdir(tasks)) if os.path.isdir(tasks) else []
    for name in found[:-KEPT_TASKS]:
        task = Task(os.path.join(tasks, name))
        if not task.held and not reported_to(task):
            shutil.rmtree(task.folder, ignore_errors=True)


def reported_to(task: Task) -> bool:
    """Whether a run or a service that the task has started may still report to it."""
    then = read_json(os.path.join(task.folder, "task.json")).get("boot", "")
    owners = [
        {**value["configurations"]["owner"], "boot": then}
        for _offset, value in new_reports(task.reported, 0)
        if "configurations" in value
    ]
    return any(not is_over(owner) for owner in owners)
