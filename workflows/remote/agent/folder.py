"""The project's folder on this machine: its owner, its content, and the files that are received into it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from typing import Any

from .machine import expand_folder, make_folder, private_opener, read_json, write_json
from .wire import Failure, Wire, bad_request, checked_number, checked_path

STATE = ".azureml-debug"
#: Seconds to wait for another command that is working in the same folder.
LOCK_SECONDS = 60


class Folder:
    """A folder on this machine that is a copy of one on the user's machine.

    Attributes:
        root: The absolute path, with symbolic links resolved.
        state: The recorded state: the files that were sent, as they were sent and as they are here.
    """

    def __init__(self, root: str, state: str) -> None:
        self.root = root
        self._state = state
        self.state: dict[str, Any] = read_json(state) or {"sync": "", "files": {}}
        self._lock: Any = None

    @property
    def files(self) -> dict[str, list[Any]]:
        """By path: size, time and mode as sent, then size and time of the file here."""
        files: dict[str, list[Any]] = self.state["files"]
        return files

    def lock(self, wire: Wire) -> None:
        """Lock the folder against other commands."""
        make_folder(os.path.dirname(self._state))
        deadline, announced = time.monotonic() + LOCK_SECONDS, False
        while True:
            self._lock = open(self._state + ".lock", "a", opener=private_opener)  # noqa: SIM115
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not os.fstat(self._lock.fileno()).st_nlink:
                    # The previous holder removed the file after it was opened here, so this lock protects nothing.
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
                if not announced:
                    announced = True
                    wire.send(line="waiting for another command that sends files to the same folder (Ctrl-C gives up)")
                time.sleep(0.1)

    def unlock(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            # Removed while the lock is held: afterwards the file might be another command's.
            with contextlib.suppress(OSError):
                os.unlink(self._state + ".lock")
            self._lock.close()
            self._lock = None

    def save(self) -> None:
        """Save the state under a new identifier."""
        self.state["sync"] = os.urandom(8).hex()
        write_json(self._state, self.state)

    def find_changed(self) -> list[str]:
        """The files that have changed on this machine since they were received."""
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

    def prepare_path(self, path: str) -> str:
        """Create the parent folders of a file and return its full path.

        Raises:
            Failure: The path leads out of this folder.
        """
        parts = checked_path(path).split("/")
        at = self.root
        for part in parts[:-1]:
            at = os.path.join(at, part)
            if os.path.islink(at) or (os.path.lexists(at) and not os.path.isdir(at)):
                # A link could lead out of the folder.
                self._move_aside(os.path.relpath(at, self.root))
            if not os.path.isdir(at):
                os.mkdir(at)
        return os.path.join(at, parts[-1])

    def _move_aside(self, path: str) -> None:
        """Remove a file, or move it away if it was changed or created on this machine."""
        full = os.path.join(self.root, path)
        entry = self.files.pop(path, None)
        if not os.path.lexists(full):
            return
        seen = os.lstat(full)
        if entry is not None and not stat.S_ISDIR(seen.st_mode) and [seen.st_size, seen.st_mtime_ns] == entry[3:5]:
            os.unlink(full)
            return
        kept = os.path.join(os.path.dirname(self._state), "kept", time.strftime("%Y%m%d-%H%M%S"), path)
        make_folder(os.path.dirname(kept))
        while os.path.lexists(kept):
            kept += "~"
        os.rename(full, kept)
        self.state.setdefault("kept", []).append(kept)

    def delete(self, path: str) -> None:
        """Delete a file that was deleted on the other side, and parent folders that are empty afterwards."""
        full = os.path.join(self.root, checked_path(path))
        if os.path.realpath(os.path.dirname(full)) != os.path.dirname(full):
            self.files.pop(path, None)
            return
        self._move_aside(path)
        parent = os.path.dirname(full)
        while parent != self.root and parent.startswith(self.root + os.sep):
            try:
                os.rmdir(parent)
            except OSError:
                break
            parent = os.path.dirname(parent)

    def receive_file(self, wire: Wire, head: dict[str, Any]) -> None:
        """Receive one file. It replaces the old one atomically."""
        path = checked_path(head.get("path"))
        key: list[Any] = [checked_number(head.get("size")), head.get("time"), checked_number(head.get("mode"))]
        if type(key[1]) is not int:
            raise bad_request("a file without its time")
        if "link" in head:
            # A link may point to another file of the project.
            leads_to = os.path.normpath(os.path.join(os.path.dirname(path), str(head["link"])))
            if os.path.isabs(leads_to) or leads_to.split("/")[0] == ".." or "\0" in leads_to:
                raise bad_request(f"a link that leads out of the project: {ascii(path)[:100]}")
        target = self.prepare_path(path)
        partial = os.path.join(os.path.dirname(target), f".{os.urandom(4).hex()}.azureml-debug")
        try:
            if "link" in head:
                os.symlink(str(head["link"]), partial)
            else:
                self._receive_content(wire, partial, key[0], key[2])
                os.utime(partial, ns=(key[1], key[1]))
            entry = self.files.get(path)
            if os.path.lexists(target):
                seen = os.lstat(target)
                known = entry is not None and [seen.st_size, seen.st_mtime_ns] == entry[3:5]
                if not known and not self._have_same_content(partial, target):
                    self._move_aside(path)
            os.replace(partial, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(partial)
            raise
        seen = os.lstat(target)
        self.files[path] = [*key, seen.st_size, seen.st_mtime_ns]

    @staticmethod
    def _have_same_content(one: str, other: str) -> bool:
        """Whether two files have the same content."""
        if os.path.islink(one) or os.path.islink(other):
            return os.path.islink(one) and os.path.islink(other) and os.readlink(one) == os.readlink(other)
        import filecmp

        return os.path.isfile(other) and filecmp.cmp(one, other, shallow=False)

    @staticmethod
    def _receive_content(wire: Wire, partial: str, size: int, mode: int) -> None:
        left = size
        with open(partial, "wb") as file:
            while left > 0:
                got = wire.next_frame()
                if got is None:
                    raise EOFError
                kind, payload = got
                if kind != b"D" or not 0 < len(payload) <= left:
                    raise bad_request("a file whose content is not what was announced")
                file.write(payload)
                left -= len(payload)
            file.flush()
        os.chmod(partial, mode & 0o777)


def open_folder(request: dict[str, Any]) -> Folder:
    """Open the project's folder; at the first use it is created and marked with the project's owner.

    Raises:
        Failure: It belongs to another project, or has content that is not ours.
        VersionMismatch: Another version of the program created it.
    """
    root = os.path.realpath(expand_folder(request["folder"]))
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
        raise VersionMismatch(str(known.get("version")))
    os.makedirs(root, exist_ok=True)
    make_folder(os.path.dirname(marker))
    ignore = os.path.join(root, STATE, ".gitignore")
    with contextlib.suppress(FileExistsError), open(ignore, "x", opener=private_opener) as file:
        file.write("*\n")
    mark = {"project": request["project"], "owner": request["owner"], "version": request["version"]}
    if {name: known.get(name) for name in mark} != mark:
        write_json(marker, mark)
    return Folder(root, os.path.join(root, STATE, "remote", "files.json"))


class VersionMismatch(Exception):
    """Another version of the program created the folder; the argument is that version."""


def receive_files(wire: Wire, folder: Folder, request: dict[str, Any]) -> dict[str, Any]:
    """Receive files, and delete those that are gone. The state is saved after a failure, too."""
    kept = len(folder.state.get("kept", []))
    folder.state["named"] = sorted({*folder.state.get("named", []), *request.get("named", [])})
    done = False
    try:
        for path in request.get("delete", []):
            folder.delete(path)
        while True:
            head = wire.next_message()
            if head is None:
                raise EOFError
            if head.get("end"):
                break
            folder.receive_file(wire, head)
        done = True
    finally:
        try:
            folder.save()
        except OSError:
            # The disk is full or gone, and the error that is already being raised says so.
            if done:
                raise
    return {"sync": folder.state["sync"], "kept": folder.state.get("kept", [])[kept:]}
