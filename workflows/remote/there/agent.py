"""The side that runs on the other machine: sent over the SSH channel, and gone when it closes.

It answers one request after the other on standard input and output, in frames (one byte of kind, four of length).
A task that it has started outlives it and the connection: what the task says is kept in a file, from which a later
agent goes on. Standard library only; Python 3.10 or later.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import platform
import queue
import re
import shutil
import signal
import stat
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from typing import Any

HEADER = struct.Struct(">cI")
GREETING = b"\0azureml-debug agent\n"
CHUNK = 256 * 1024
#: Bytes of a message, and of another frame, at the most.
MESSAGE_BYTES, FRAME_BYTES = 64 << 20, 1 << 20
STATE = ".azureml-debug"
#: Seconds to wait for another command that is at work in the same folder.
LOCK_SECONDS = 60
#: Seconds between two looks at what grows.
LOOK_SECONDS = 0.02
#: Seconds between two looks at whether a run is over.
WATCH_SECONDS = 0.3
#: Seconds without a sign of life after which the other side is given up: its link may be cut and nobody told.
SILENT_SECONDS = 60
#: The same while nothing goes on, and a person may be asked something.
IDLE_SECONDS = 3600
#: Bytes set aside for the last words of a task on a disk that is full by then, and how many of them are kept.
SPARE, LAST_WORDS = 64 * 1024, 16 * 1024
#: Seconds for which a service may be away: it is being replaced, and its tunnels serve the next one.
REPLACED_SECONDS = 3.0
#: Seconds after which the files of a version of the program that nobody uses are taken away.
PROGRAM_SECONDS = 30 * 86400
#: Tasks of which the output is kept.
KEPT_TASKS = 10
#: The Pythons that were found here and will not do, and why; as the shell that has started this one has found them.
PYTHONS = ""
_FINAL = ("Completed", "Failed", "Canceled", "Interrupted")

if sys.version_info < (3, 10):  # noqa: UP036
    raise SystemExit("Python 3.10 or later is needed")


class Failure(Exception):
    """Something that the person at the other end can mend: what is wrong, and what to do."""


class Wire:
    """Frames on two file descriptors. A reader thread takes them in, so that a task can be talked to."""

    def __init__(self) -> None:
        self._out = os.dup(1)
        # Whatever prints by itself must not get between the frames.
        os.dup2(2, 1)
        self._lock = threading.Lock()
        self.inbox: queue.Queue[tuple[bytes, bytes] | None] = queue.Queue(maxsize=64)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        stream = sys.stdin.buffer
        while True:
            header = stream.read(HEADER.size)
            if len(header) < HEADER.size:
                break
            kind, length = HEADER.unpack(header)
            if kind not in (b"J", b"I", b"D") or length > (MESSAGE_BYTES if kind == b"J" else FRAME_BYTES):
                # Whoever talks so does not mean this program.
                break
            payload = stream.read(length)
            if len(payload) < length:
                break
            self.inbox.put((kind, payload))
        self.inbox.put(None)

    def raw(self, data: bytes) -> None:
        """Send bytes that are frames already."""
        with self._lock:
            view = memoryview(data)
            while view:
                view = view[os.write(self._out, view) :]

    def frame(self, kind: bytes, payload: bytes) -> None:
        """Send a frame."""
        self.raw(HEADER.pack(kind, len(payload)) + payload)

    def say(self, **value: Any) -> None:
        """Send a message."""
        self.frame(b"J", json.dumps(value).encode())

    def take(self) -> tuple[bytes, bytes] | None:
        """The next frame; None at the end, or where none comes for very long."""
        try:
            got = self.inbox.get(timeout=IDLE_SECONDS)
        except queue.Empty:
            return None
        if got is None:
            # The end stays the end for whoever asks next.
            self.inbox.put(None)
        return got

    def message(self) -> dict[str, Any] | None:
        """The next message; None at the end."""
        while True:
            got = self.take()
            if got is None:
                return None
            if got[0] == b"J":
                return parsed(got[1])


# What is received -----------------------------------------------------------------------------------
# As in workflows/received.py, which is not here.


def parsed(payload: bytes) -> dict[str, Any]:
    """The JSON object of a message.

    Raises:
        Failure: It is none.
    """
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise not_understood("a message that is no JSON object")
    return value


def inside(path: Any) -> str:
    """A path below a folder.

    Raises:
        Failure: It is none, or leads out of it.
    """
    try:
        encoded = os.fsencode(path) if isinstance(path, str) else b""
    except UnicodeEncodeError:
        encoded = b""
    parts = encoded.split(b"/")
    if b"\0" in encoded or len(encoded) > 4096 or any(part in (b"", b".", b"..") or len(part) > 255 for part in parts):
        raise not_understood(f"{ascii(path)[:100]}, which is not a path in the project")
    return str(path)


def one_part(name: Any) -> str:
    """The name of one file or folder.

    Raises:
        Failure: It is none.
    """
    if "/" in inside(name):
        raise not_understood(f"{ascii(name)[:100]}, which is not a name")
    return str(name)


def whole(value: Any) -> int:
    """A number of bytes or the like.

    Raises:
        Failure: It is none.
    """
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise not_understood(f"{ascii(value)[:100]}, which is not a number that can be")
    return int(value)


def not_understood(what: str) -> Failure:
    """What is said to a request that no version of the program makes."""
    return Failure(
        f"The remote machine was sent {what}.",
        "The two sides may be of different versions; else this is an error of the program: please report it.",
    )


def open_plain(path: str) -> Any:
    """Open a file to be read; never a pipe or a device, which would keep everybody waiting.

    Raises:
        OSError: It cannot be read, or is no plain file.
    """
    file = open(path, "rb", opener=at_once)  # noqa: SIM115 - handed on
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a plain file", path)
    return file


# Small things ---------------------------------------------------------------------------------------


def cache() -> str:
    """The folder that the program itself uses as its cache on this machine."""
    home = os.path.expanduser("~")
    if sys.platform == "darwin":
        return os.path.join(home, "Library", "Caches", "azureml-debug")
    return os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache"), "azureml-debug")


def named_folder(folder: str) -> str:
    """A folder as a person has named it: `~`, `$HOME` and other variables mean those here.

    Raises:
        Failure: A variable is not set here.
    """
    home = os.path.expanduser("~")
    os.environ.setdefault("HOME", home)
    found = os.path.expanduser(os.path.expandvars(folder))
    missing = re.search(r"\$(\w+|\{\w+\})", found)
    if missing is not None:
        raise Failure(
            f"AML_REMOTE_DIR names {missing[0]}, which is not set on the remote machine.",
            "Write the folder itself; $HOME and ~ are known there.",
        )
    return os.path.join(home, found)


def read_json(path: str) -> dict[str, Any]:
    """A JSON object from a file; {} where there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def own_folder(path: str) -> str:
    """Make a folder of this program's, with those above it that are missing, for this user alone; the folder."""
    if path and not os.path.isdir(path):
        own_folder(os.path.dirname(path))
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
    return path


def for_this_user(path: str, flags: int) -> int:
    """For ``open(…, opener=for_this_user)``."""
    return os.open(path, flags, 0o600)


def write_json(path: str, value: Any) -> None:
    """Write a file so that a reader sees the old one or the new one."""
    partial = f"{path}.{os.getpid()}"
    try:
        with open(partial, "w", encoding="utf-8", opener=for_this_user) as file:
            # In one piece: bit by bit it takes eight times as long.
            file.write(json.dumps(value))
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise


def boot() -> str:
    """This boot of the machine."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def started(pid: int) -> str:
    """When a process began, in ticks since the boot; empty where there is none, or nobody tells."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in (b"Z", b"X") else fields[19].decode()


def alive(pid: int, since: str) -> bool:
    """Whether a process is still there, and not another one of the same number."""
    if os.path.isdir("/proc/self"):
        return bool(since) and started(pid) == since
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def explained(error: OSError) -> Failure:
    """An operating system's error as the person is to read it."""
    place = f" ({error.filename})" if error.filename else ""
    if error.errno == errno.ENOSPC:
        return Failure(
            f"No space is left on the remote disk{place}{left(error.filename)}.",
            "Free some there, or choose another AML_REMOTE_DIR.",
        )
    if error.errno == errno.EDQUOT:
        return Failure(
            f"Your quota on the remote machine is used up{place}{left(error.filename)}.",
            "Remove what you do not need there (quota -s), or choose another AML_REMOTE_DIR.",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Failure(
            f"The remote machine says: {error.strerror}{place}.",
            "Make it writable for you there; the project's folder may also be another one: AML_REMOTE_DIR.",
        )
    return Failure(
        f"The remote machine says: {error.strerror or error}{place}.", "See to it there, then run this again."
    )


def left(path: Any) -> str:
    """What is left where a path is, or in the home folder, in words; empty where the system does not tell."""
    place = os.path.abspath(path) if isinstance(path, str) else os.path.expanduser("~")
    while not os.path.isdir(place) and os.path.dirname(place) != place:
        place = os.path.dirname(place)
    try:
        found = os.statvfs(place)
    except OSError:
        return ""
    blocks = found.f_bavail if os.geteuid() else found.f_bfree
    files = found.f_favail if os.geteuid() else found.f_ffree
    inodes = f", room for {files} more files" if found.f_files and files < 1000 else ""
    free, size = blocks * found.f_frsize // 1000, found.f_blocks * found.f_frsize // 1000
    return f": {free} kB of {size} kB are free{inodes} in {place}"


@contextlib.contextmanager
def held(path: str) -> Iterator[None]:
    """Hold a lock file, which goes with the lock."""
    while True:
        with open(path, "a", opener=for_this_user) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not os.fstat(lock.fileno()).st_nlink:
                # Who held it has removed it since it was opened here: this one guards nothing.
                continue
            try:
                yield
            finally:
                with contextlib.suppress(OSError):
                    os.unlink(path)
            return


# The connection -------------------------------------------------------------------------------------


def server() -> int:
    """The process of the SSH server that serves this connection; 0 where it cannot be told."""
    pid = os.getppid()
    while pid > 1:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                name, _bracket, fields = file.read().partition(b"(")[2].rpartition(b")")
        except OSError:
            return 0
        if name.startswith(b"sshd"):
            return pid
        pid = int(fields.split()[1])
    return 0


def replace_connection(name: str) -> None:
    """End the connection before this one of somebody who has come back; theirs had been cut."""
    path = os.path.join(cache(), "connections", f"{one_part(name)}.json")
    before, own = read_json(path), server()
    if before and before["pid"] != own and alive(int(before["pid"]), str(before["started"])):
        with contextlib.suppress(OSError):
            os.kill(int(before["pid"]), signal.SIGTERM)
    if own:
        with contextlib.suppress(OSError):
            own_folder(os.path.dirname(path))
            write_json(path, {"pid": own, "started": started(own)})


# The project's folder -------------------------------------------------------------------------------


class Folder:
    """A folder on this machine that is kept like one on the other.

    Attributes:
        root: Absolute, links resolved.
        state: What is known of it: the files that were sent, as they were sent and as they lie here.
    """

    def __init__(self, root: str, state: str) -> None:
        self.root = root
        self._state = state
        self.state: dict[str, Any] = read_json(state) or {"sync": "", "files": {}}
        self._lock: Any = None

    @property
    def files(self) -> dict[str, list[Any]]:
        """By path: size, time and mode as sent; then size and time as it lies here."""
        files: dict[str, list[Any]] = self.state["files"]
        return files

    def lock(self, wire: Wire) -> None:
        """Keep other commands out."""
        own_folder(os.path.dirname(self._state))
        deadline, told = time.monotonic() + LOCK_SECONDS, False
        while True:
            self._lock = open(self._state + ".lock", "a", opener=for_this_user)  # noqa: SIM115
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not os.fstat(self._lock.fileno()).st_nlink:
                    # Who held it has removed it since it was opened here: this one guards nothing.
                    self._lock.close()
                    continue
                self.state = read_json(self._state) or self.state
                return
            except BlockingIOError:
                self._lock.close()
                self._lock = None
                if time.monotonic() > deadline:
                    raise Failure(
                        f"Another command has been sending files to {self.root} for {LOCK_SECONDS} s.",
                        "Let it finish, then run this again.",
                    ) from None
                if not told:
                    told = True
                    wire.say(line="waiting for another command that sends files to the same folder (Ctrl-C gives up)")
                time.sleep(0.1)

    def unlock(self) -> None:
        """Let other commands in."""
        if self._lock is not None:
            # While it is held, so that it is nobody else's.
            with contextlib.suppress(OSError):
                os.unlink(self._state + ".lock")
            self._lock.close()
            self._lock = None

    def save(self) -> None:
        """Keep what is known, under a new name of this state."""
        self.state["sync"] = os.urandom(8).hex()
        write_json(self._state, self.state)

    def drifted(self) -> list[str]:
        """Files that are not any more as they were put here."""
        found = []
        for path, entry in self.files.items():
            try:
                seen = os.lstat(os.path.join(self.root, path))
            except OSError:
                found.append(path)
                continue
            if [seen.st_size, seen.st_mtime_ns] != entry[3:5]:
                found.append(path)
        return found

    def place(self, path: str) -> str:
        """Where a file goes; its folders are made.

        Raises:
            Failure: It would not lie in this folder.
        """
        parts = inside(path).split("/")
        at = self.root
        for part in parts[:-1]:
            at = os.path.join(at, part)
            if os.path.islink(at) or (os.path.lexists(at) and not os.path.isdir(at)):
                # A link could lead out of the folder.
                self._aside(os.path.relpath(at, self.root))
            if not os.path.isdir(at):
                os.mkdir(at)
        return os.path.join(at, parts[-1])

    def _aside(self, path: str) -> None:
        """Take a file out of the way; one that was changed or made here is kept."""
        full = os.path.join(self.root, path)
        entry = self.files.pop(path, None)
        if not os.path.lexists(full):
            return
        seen = os.lstat(full)
        if entry is not None and not stat.S_ISDIR(seen.st_mode) and [seen.st_size, seen.st_mtime_ns] == entry[3:5]:
            os.unlink(full)
            return
        kept = os.path.join(os.path.dirname(self._state), "kept", time.strftime("%Y%m%d-%H%M%S"), path)
        own_folder(os.path.dirname(kept))
        while os.path.lexists(kept):
            kept += "~"
        os.rename(full, kept)
        self.state.setdefault("kept", []).append(kept)

    def delete(self, path: str) -> None:
        """Take away a file that is gone on the other side, and folders that are empty then."""
        full = os.path.join(self.root, inside(path))
        if os.path.realpath(os.path.dirname(full)) != os.path.dirname(full):
            self.files.pop(path, None)
            return
        self._aside(path)
        parent = os.path.dirname(full)
        while parent != self.root and parent.startswith(self.root + os.sep):
            try:
                os.rmdir(parent)
            except OSError:
                break
            parent = os.path.dirname(parent)

    def put(self, wire: Wire, head: dict[str, Any]) -> None:
        """Take one file from the wire; it appears whole or not at all."""
        path = inside(head.get("path"))
        key: list[Any] = [whole(head.get("size")), head.get("time"), whole(head.get("mode"))]
        if type(key[1]) is not int:
            raise not_understood("a file without its time")
        if "link" in head:
            # It may lead to another file of the project.
            leads_to = os.path.normpath(os.path.join(os.path.dirname(path), str(head["link"])))
            if os.path.isabs(leads_to) or leads_to.split("/")[0] == ".." or "\0" in leads_to:
                raise not_understood(f"a link that leads out of the project: {ascii(path)[:100]}")
        target = self.place(path)
        partial = os.path.join(os.path.dirname(target), f".{os.urandom(4).hex()}.azureml-debug")
        try:
            if "link" in head:
                os.symlink(str(head["link"]), partial)
            else:
                self._receive(wire, partial, key[0], key[2])
                os.utime(partial, ns=(key[1], key[1]))
            entry = self.files.get(path)
            if os.path.lexists(target):
                seen = os.lstat(target)
                known = entry is not None and [seen.st_size, seen.st_mtime_ns] == entry[3:5]
                if not known and not self._same(partial, target):
                    self._aside(path)
            os.replace(partial, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(partial)
            raise
        seen = os.lstat(target)
        self.files[path] = [*key, seen.st_size, seen.st_mtime_ns]

    @staticmethod
    def _same(one: str, other: str) -> bool:
        """Whether two files hold the same."""
        if os.path.islink(one) or os.path.islink(other):
            return os.path.islink(one) and os.path.islink(other) and os.readlink(one) == os.readlink(other)
        import filecmp

        return os.path.isfile(other) and filecmp.cmp(one, other, shallow=False)

    @staticmethod
    def _receive(wire: Wire, partial: str, size: int, mode: int) -> None:
        left = size
        with open(partial, "wb") as file:
            while left > 0:
                got = wire.take()
                if got is None:
                    raise EOFError
                kind, payload = got
                if kind != b"D" or not 0 < len(payload) <= left:
                    raise not_understood("a file whose content is not what was announced")
                file.write(payload)
                left -= len(payload)
            file.flush()
        os.chmod(partial, mode & 0o777)


def open_folder(request: dict[str, Any]) -> Folder:
    """The project's folder here, made and marked as ours on the first use.

    Raises:
        Failure: It belongs to somebody else.
    """
    root = os.path.realpath(named_folder(request["folder"]))
    marker = os.path.join(root, STATE, "remote", "project.json")
    known = read_json(marker)
    choose = "Choose another folder with AML_REMOTE_DIR"
    if os.path.lexists(root) and not os.path.isdir(root):
        raise Failure(f"{root} on the remote machine is not a folder.", f"{choose}.")
    if not known and os.path.isdir(root) and os.listdir(root) not in ([], [STATE]):
        raise Failure(
            f"The remote folder {root} holds files that do not come from here.", f"{choose}; it was not touched."
        )
    if known and known.get("project") != request["project"] and not request.get("take"):
        raise Failure(
            f"The remote folder {root} belongs to {known.get('owner')}.",
            f"{choose}, or take it over, with what lies in it: inv remote.sync --take-over",
        )
    if known and known.get("version") != request["version"] and not request.get("update"):
        raise Mismatch(str(known.get("version")))
    os.makedirs(root, exist_ok=True)
    own_folder(os.path.dirname(marker))
    ignore = os.path.join(root, STATE, ".gitignore")
    with contextlib.suppress(FileExistsError), open(ignore, "x", opener=for_this_user) as file:
        file.write("*\n")
    mark = {"project": request["project"], "owner": request["owner"], "version": request["version"]}
    if {name: known.get(name) for name in mark} != mark:
        write_json(marker, mark)
    return Folder(root, os.path.join(root, STATE, "remote", "files.json"))


class Mismatch(Exception):
    """The folder was made by another version of the program."""


def receive(wire: Wire, folder: Folder, request: dict[str, Any]) -> dict[str, Any]:
    """Take files, and delete those that are gone; what was done so far is known also after a failure."""
    kept = len(folder.state.get("kept", []))
    folder.state["named"] = sorted({*folder.state.get("named", []), *request.get("named", [])})
    done = False
    try:
        for path in request.get("delete", []):
            folder.delete(path)
        while True:
            head = wire.message()
            if head is None:
                raise EOFError
            if head.get("end"):
                break
            folder.put(wire, head)
        done = True
    finally:
        try:
            folder.save()
        except OSError:
            # The disk is full, or gone; which is what the person is told then.
            if done:
                raise
    return {"sync": folder.state["sync"], "kept": folder.state.get("kept", [])[kept:]}


# The program's own environment ----------------------------------------------------------------------


_WITH_UV = """
import sys
sys.path.insert(0, sys.argv[1])
from workflows.environments.own import install
sys.exit(install(*sys.argv[2:4], sys.argv[4:]))
"""


def make_environment(wire: Wire, key: str, requirements: list[str], code: str) -> str:
    """The Python of an environment with what the program needs; made once.

    Args:
        wire: Told each line of progress.
        key: Names the environment.
        requirements: What the program needs, uv among it.
        code: The folder with the program's own files, of which a part has uv install the rest.

    Raises:
        Failure: It cannot be made; nothing half made stays.
    """
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    folder = os.path.join(cache(), "program", f"{one_part(key)}-py{version}")
    python = os.path.join(folder, "bin", "python")
    if os.path.exists(os.path.join(folder, "ready")):
        return python
    own_folder(os.path.dirname(folder))
    with held(folder + ".lock"):
        if os.path.exists(os.path.join(folder, "ready")):
            return python
        shutil.rmtree(folder, ignore_errors=True)
        try:
            _run(wire, [sys.executable, "-m", "venv", folder], "venv")
            pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar=off"]
            first = [one for one in requirements if one[:2] == "uv" and one[2:3] in "<>=!~;[ "]
            if first:
                _run(wire, [*pip, *first], "pip")
                _run(wire, [python, "-c", _WITH_UV, code, folder, cache(), *requirements], "uv")
            else:
                _run(wire, [*pip, *requirements], "pip")
            with open(os.path.join(folder, "ready"), "w"):
                pass
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return python


def _run(wire: Wire, argv: list[str], what: str) -> None:
    """Run a program, its output shown line by line."""
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as child:
        assert child.stdout is not None
        lines: list[str] = []
        try:
            for line in child.stdout:
                lines = [*lines[-14:], line.rstrip()]
                wire.say(line=line.rstrip())
        except BaseException:
            child.kill()
            raise
    if child.returncode:
        text = "\n".join(lines)
        if what == "venv" and "ensurepip" in text:
            raise Failure(
                f"Python there cannot make a virtual environment{f': {PYTHONS}' if PYTHONS else ''}.",
                "Install it there: sudo apt install python3-venv, or name another Python: AML_REMOTE_PYTHON.",
            )
        if "No space left" in text or "Disk quota exceeded" in text:
            raise Failure(
                f"No space is left on the remote disk{left(cache())}.", "Free some there, then run this again."
            )
        wire.say(details=lines)
        raise Failure(
            f"The program's environment cannot be made on the remote machine: {what} ended with {child.returncode}.",
            "See the lines above; it needs a package index that the remote machine reaches.",
        )


def forget_programs(folder: str) -> None:
    """Take away the program's files of versions that nobody has used for long."""
    for entry in os.scandir(folder):
        if entry.name.startswith("files-") and abs(time.time() - entry.stat().st_mtime) > PROGRAM_SECONDS:
            shutil.rmtree(entry.path, ignore_errors=True)


# A task ---------------------------------------------------------------------------------------------


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


def at_once(path: str, flags: int) -> int:
    """Opens a pipe without waiting for somebody at its other end."""
    return os.open(path, flags | os.O_NONBLOCK)


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


# Watching what tunnels belong to --------------------------------------------------------------------


def is_over(owner: dict[str, Any]) -> bool:
    """Whether a run or a service, which tunnels lead to, has ended."""
    if "run" in owner:
        record = read_json(os.path.join(owner["run"], "run.json"))
        if not record or record.get("status") in _FINAL:
            return True
        runner = read_json(os.path.join(owner["run"], "runner.json"))
        if not runner or runner.get("host") != platform.node():
            return False
        return (runner.get("boot") or boot()) != boot() or (
            os.path.isdir("/proc/self") and started(int(runner["pid"])) != str(int(runner["started"]))
        )
    if "service" in owner:
        session = read_json(os.path.join(owner["service"], "session.json"))
        return not session or session.get("created") != owner["created"] or owner.get("boot", boot()) != boot()
    return False


def watch(wire: Wire, request: dict[str, Any]) -> None:
    """Tell when one of several owners is over, and what tasks report after their command has returned."""
    owners: dict[str, dict[str, Any]] = {}
    heard = Heard()
    while not heard.silent:
        try:
            got = wire.inbox.get(timeout=WATCH_SECONDS)
            if got is None:
                wire.inbox.put(None)
                return
            heard.now()
            asked = parsed(got[1])
            if "owner" in asked:
                owners[asked["name"]] = asked
                asked["reports"] |= earlier_reports(asked["reports"], asked["owner"])
            owners.pop(asked.get("forget", ""), None)
        except queue.Empty:
            pass
        for name, entry in list(owners.items()):
            for path, before in entry["reports"].items():
                for offset, value in new_reports(path, before):
                    entry["reports"][path] = offset
                    wire.say(name=name, report=value, path=path, offset=offset)
            now = time.monotonic()
            if not is_over(entry["owner"]):
                entry["over"] = 0.0
            elif now - (entry.get("over") or now) >= (REPLACED_SECONDS if "service" in entry["owner"] else 0):
                del owners[name]
                wire.say(name=name, over=True, number=entry.get("number", 0))
            else:
                entry["over"] = entry.get("over") or now


def earlier_reports(reports: dict[str, int], owner: dict[str, Any]) -> dict[str, int]:
    """The reports of other commands that have started or attached to the same, and where to go on in each.

    A run goes on to report to the command that has started it, whoever asks for its tunnels by now.
    """
    found: dict[str, int] = {}
    for path in reports:
        tasks = os.path.dirname(os.path.dirname(path))
        since = os.stat(path).st_mtime_ns if os.path.exists(path) else 0
        for name in sorted(os.listdir(tasks)) if os.path.isdir(tasks) else []:
            other = Task(os.path.join(tasks, name)).reported
            lines = [(0, {}), *new_reports(other, 0)] if other not in reports else []
            owners = [value["configurations"]["owner"] for _offset, value in lines if "configurations" in value]
            if any(one.items() <= owner.items() for one in owners):
                # Its last word is said again if the others may not have heard it.
                unheard = os.stat(other).st_mtime_ns > since
                found[other] = lines[-2 if unheard else -1][0]
    return found


def new_reports(path: str, offset: int) -> Iterator[tuple[int, Any]]:
    """Whole lines of a report from an offset on, each with the offset after it."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            # What was written on a full disk may be half a line, and the next one behind it.
            with contextlib.suppress(ValueError):
                yield offset, json.loads(line)


# What else is asked ---------------------------------------------------------------------------------


def nearest(folder: str) -> str:
    """A folder, or the one above it that there is."""
    place = os.path.realpath(named_folder(folder))
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    return place


def facts(folder: str) -> dict[str, Any]:
    """What `remote.check` wants to know of this machine."""
    place = nearest(folder)
    usage = shutil.disk_usage(place)
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401

        can_make = True
    except ImportError:
        can_make = False
    return {
        "free": usage.free,
        "total": usage.total,
        "place": place,
        "writable": os.access(place, os.W_OK),
        "venv": can_make,
        "pythons": PYTHONS,
        "docker": _docker(),
        "sdk": _sdk(),
        "git": shutil.which("git") is not None,
    }


def _docker() -> dict[str, Any]:
    if shutil.which("docker") is None:
        return {"state": "missing"}
    try:
        done = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"state": "silent", "word": str(error)}
    if done.returncode:
        word = (done.stderr.strip().splitlines() or ["it does not say why"])[-1]
        return {"state": "refused" if "permission denied" in word else "silent", "word": word}
    return {"state": "answers", "version": done.stdout.strip()}


def _sdk() -> str:
    """The version of azureml-core that this machine's environments have; empty where none was found."""
    import glob

    homes = ["/anaconda/envs/*", os.path.join(cache(), "program", "*"), sys.prefix]
    for home in homes:
        for path in glob.glob(os.path.join(home, "lib", "python3*", "site-packages", "azureml_core-*.dist-info")):
            return os.path.basename(path).removeprefix("azureml_core-").removesuffix(".dist-info")
    return ""


def send_files(wire: Wire, paths: list[str]) -> None:
    """Send files as they are, one after the other."""
    for path in paths:
        with open_plain(path) as file:
            seen = os.fstat(file.fileno())
            wire.say(size=seen.st_size, mode=stat.S_IMODE(seen.st_mode))
            left = seen.st_size
            while left > 0:
                # One that is cut meanwhile keeps the length that was promised.
                data = file.read(min(CHUNK, left)) or b"\0" * min(CHUNK, left)
                wire.frame(b"D", data)
                left -= len(data)


def digest(path: str) -> str:
    """Hex digest of a file; empty where there is none."""
    import hashlib

    try:
        with open_plain(path) as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError:
        return ""


class Agent:
    """Answers the requests of one connection."""

    def __init__(self) -> None:
        self._wire = Wire()
        self._folder: Folder | None = None

    def serve(self) -> None:
        """Answer until the connection ends."""
        wire = self._wire
        wire.raw(GREETING)
        wire.say(
            python=list(sys.version_info[:3]), executable=sys.executable, home=os.path.expanduser("~"),
            node=platform.node(), time=time.time(), system=f"{platform.system()} {platform.machine()}",
        )  # fmt: skip
        while True:
            request: dict[str, Any] | None = {}
            try:
                request = wire.message()
                if request is None:
                    return
                if "do" not in request:
                    # A sign of life, or a word for a task that has just ended.
                    continue
                action = getattr(self, f"do_{request['do']}", None)
                if action is None:
                    raise not_understood("a request that it does not know")
                answer = action(request)
            except Failure as failure:
                wire.say(failure=list(failure.args))
                if "delete" in (request or {}):
                    # The rest of the files may be under way: whoever sends them is to stop.
                    return
            except Mismatch as mismatch:
                wire.say(mismatch=str(mismatch))
            except EOFError:
                return
            except BrokenPipeError:
                return
            except OSError as error:
                wire.say(failure=list(explained(error).args))
                if "delete" in (request or {}):
                    return
            except Exception:
                # A bug, here or in who has asked: told there, where a person reads it.
                import traceback

                wire.say(details=traceback.format_exc().splitlines()[-15:])
                wire.say(failure=list(not_understood("a request that it cannot do").args))
                if "delete" in (request or {}):
                    return
            else:
                wire.say(done=True, **(answer or {}))

    def do_open(self, request: dict[str, Any]) -> dict[str, Any]:
        """Open the project's folder and keep others out until the files are there."""
        folder = self._folder = open_folder(request)
        folder.lock(self._wire)
        known = {"root": folder.root, "sync": folder.state["sync"], "named": folder.state.get("named", [])}
        if folder.state["sync"] == request.get("sync"):
            return {**known, "drifted": folder.drifted()}
        return {**known, "files": folder.files, "drifted": folder.drifted()}

    def do_program(self, request: dict[str, Any]) -> dict[str, Any]:
        """Open the folder of the program's own files."""
        root = os.path.join(cache(), "program", one_part(request.get("key")))
        own_folder(root)
        os.utime(root)
        forget_programs(os.path.dirname(root))
        folder = Folder(os.path.realpath(root), os.path.join(root + ".files", "files.json"))
        if request.get("files"):
            folder.lock(self._wire)
            try:
                receive(self._wire, folder, request)
            finally:
                folder.unlock()
            return {"root": folder.root, "there": True}
        return {"root": folder.root, "there": bool(folder.files) and not folder.drifted()}

    def do_files(self, request: dict[str, Any]) -> dict[str, Any]:
        """Take files into the project's folder."""
        assert self._folder is not None
        return receive(self._wire, self._folder, request)

    def do_close(self, request: dict[str, Any]) -> None:
        """Let other commands send files."""
        assert self._folder is not None
        self._folder.unlock()

    def do_environment(self, request: dict[str, Any]) -> dict[str, Any]:
        """Have the program's environment made."""
        return {"python": make_environment(self._wire, request["key"], request["requirements"], request["code"])}

    def do_task(self, request: dict[str, Any]) -> None:
        """Run a task to its end."""
        tasks = os.path.join(request["root"], STATE, "remote", "tasks")
        own_folder(tasks)
        tidy(tasks)
        task = Task(os.path.join(tasks, one_part(request.get("task"))))
        task.start(request)
        self._wire.say(started=task.folder, boot=boot())
        follow(self._wire, task, 0)

    def do_resume(self, request: dict[str, Any]) -> None:
        """Go on with a task that a connection was lost from."""
        folder = os.path.join(request["root"], STATE, "remote", "tasks", one_part(request.get("task")))
        if not os.path.isdir(folder):
            raise Failure("The task that was running there is not known there any more.", "Run it again.")
        follow(self._wire, Task(folder), whole(request.get("offset")))

    def do_watch(self, request: dict[str, Any]) -> None:
        """Watch runs and services until the connection ends."""
        replace_connection(request["keeper"])
        watch(self._wire, request)

    def do_facts(self, request: dict[str, Any]) -> dict[str, Any]:
        """Tell of this machine."""
        return facts(request["folder"])

    def do_get(self, request: dict[str, Any]) -> None:
        """Send files."""
        send_files(self._wire, request["paths"])

    def do_digests(self, request: dict[str, Any]) -> dict[str, Any]:
        """Digests of the files that match a pattern below a folder."""
        import glob

        found = glob.glob(os.path.join(glob.escape(request["root"]), request["pattern"]))
        digests = {os.path.relpath(path, request["root"]): digest(path) for path in sorted(found)}
        return {"digests": {path: value for path, value in digests.items() if value}}

    def do_try(self, request: dict[str, Any]) -> None:
        """Write a small file where the project goes, and where environments go, and take it away."""
        import tempfile

        for folder in (request["folder"], cache()):
            place = nearest(folder)
            try:
                with tempfile.NamedTemporaryFile(dir=place) as file:
                    file.write(b"\0" * 65536)
                    file.flush()
            except OSError as error:
                error.filename = place
                raise


if __name__ == "__main__":
    PYTHONS = "".join(sys.argv[1:])
    Agent().serve()
    # At once: the thread that reads would be in the way of an orderly end.
    os._exit(0)
