"""Access to this machine: the agent's own files, processes, locks, and the SSH server that it runs under."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import platform
import re
import signal
import sys
from collections.abc import Iterator
from typing import Any

from .wire import Failure, checked_name

_FINAL = ("Completed", "Failed", "Canceled", "Interrupted")
#: The Pythons that were found here and cannot be used, and why; set by :func:`workflows.remote.agent.server.main`.
UNUSABLE_PYTHONS = ""


def cache_folder() -> str:
    """The program's cache folder on this machine."""
    home = os.path.expanduser("~")
    if sys.platform == "darwin":
        return os.path.join(home, "Library", "Caches", "azureml-debug")
    return os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache"), "azureml-debug")


def expand_folder(folder: str) -> str:
    """The absolute path of a folder that the user has named, with `~` and variables expanded on this machine.

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
    """The JSON object in a file; {} if there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def make_folder(path: str) -> str:
    """Create a folder and its missing parents with access for this user only, and return its path."""
    if path and not os.path.isdir(path):
        make_folder(os.path.dirname(path))
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
    return path


def private_opener(path: str, flags: int) -> int:
    """An opener for :func:`open` that gives access to this user only."""
    return os.open(path, flags, 0o600)


def write_json(path: str, value: Any) -> None:
    """Write a JSON file atomically."""
    partial = f"{path}.{os.getpid()}"
    try:
        with open(partial, "w", encoding="utf-8", opener=private_opener) as file:
            # json.dump writes in small pieces, which takes eight times as long.
            file.write(json.dumps(value))
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise


def boot_id() -> str:
    """The identifier of the machine's current boot; empty if the system has none."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def start_time(pid: int) -> str:
    """When a process started, in ticks since the boot; empty if it does not run or the system does not say."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in (b"Z", b"X") else fields[19].decode()


def is_alive(pid: int, since: str) -> bool:
    """Whether a process still runs, and is not another one with the same id."""
    if os.path.isdir("/proc/self"):
        return bool(since) and start_time(pid) == since
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def describe_error(error: OSError) -> Failure:
    """The failure that the user reads for an error of the operating system."""
    place = f" ({error.filename})" if error.filename else ""
    if error.errno == errno.ENOSPC:
        return Failure(
            f"No space is left on the remote disk{place}{free_space(error.filename)}.",
            "Free some there, or choose another AML_REMOTE_DIR.",
        )
    if error.errno == errno.EDQUOT:
        return Failure(
            f"Your quota on the remote machine is used up{place}{free_space(error.filename)}.",
            "Remove what you do not need there (quota -s), or choose another AML_REMOTE_DIR.",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Failure(
            f"The remote machine says: {error.strerror}{place}.",
            "Make it writable for you there; the project's folder may also be another one: AML_REMOTE_DIR.",
        )
    return Failure(
        f"The remote machine says: {error.strerror or error}{place}.", "Check it there, then run this again."
    )


def free_space(path: Any) -> str:
    """The free space on the disk of a path, or of the home folder, as text; empty if the system does not say."""
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
def file_lock(path: str) -> Iterator[None]:
    """Hold a file lock. The file is removed with the lock."""
    while True:
        with open(path, "a", opener=private_opener) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not os.fstat(lock.fileno()).st_nlink:
                # The previous holder removed the file after it was opened here, so this lock protects nothing.
                continue
            try:
                yield
            finally:
                with contextlib.suppress(OSError):
                    os.unlink(path)
            return


def find_ssh_server() -> int:
    """The process id of the SSH server that serves this connection; 0 if it was not found."""
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
    """End the earlier, broken connection of a client that has connected again."""
    path = os.path.join(cache_folder(), "connections", f"{checked_name(name)}.json")
    before, own = read_json(path), find_ssh_server()
    if before and before["pid"] != own and is_alive(int(before["pid"]), str(before["started"])):
        with contextlib.suppress(OSError):
            os.kill(int(before["pid"]), signal.SIGTERM)
    if own:
        with contextlib.suppress(OSError):
            make_folder(os.path.dirname(path))
            write_json(path, {"pid": own, "started": start_time(own)})


def is_over(owner: dict[str, Any]) -> bool:
    """Whether the run or service that tunnels lead to has ended."""
    if "run" in owner:
        record = read_json(os.path.join(owner["run"], "run.json"))
        if not record or record.get("status") in _FINAL:
            return True
        runner = read_json(os.path.join(owner["run"], "runner.json"))
        if not runner or runner.get("host") != platform.node():
            return False
        return (runner.get("boot") or boot_id()) != boot_id() or (
            os.path.isdir("/proc/self") and start_time(int(runner["pid"])) != str(int(runner["started"]))
        )
    if "service" in owner:
        session = read_json(os.path.join(owner["service"], "session.json"))
        return not session or session.get("created") != owner["created"] or owner.get("boot", boot_id()) != boot_id()
    return False


def read_reports(path: str, offset: int) -> Iterator[tuple[int, Any]]:
    """The complete lines of a report file from an offset on, each with the offset after it."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            # On a full disk a line may be incomplete, with the next line appended to it.
            with contextlib.suppress(ValueError):
                yield offset, json.loads(line)
