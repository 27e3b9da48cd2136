"""What the agent needs of this machine: files of its own, processes, locks, its own server."""

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

from .wire import Failure, one_part

_FINAL = ("Completed", "Failed", "Canceled", "Interrupted")
#: The Pythons that were found here and will not do, and why; see agent.py.
PYTHONS = ""


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
        f"The remote machine says: {error.strerror or error}{place}.", "Check it there, then run this again."
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
