"""The project's folder here: whose it is, what is in it, what is received into it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from typing import Any

from .machine import for_this_user, named_folder, own_folder, read_json, write_json
from .wire import Failure, Wire, inside, not_understood, whole

STATE = ".azureml-debug"
#: Seconds to wait for another command that is at work in the same folder.
LOCK_SECONDS = 60


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
