"""The child processes of the debugged program: each registers here, and can get a debug session of its own.

The children's side is in child.py and child_session.py. Messages are single lines. The children's sessions run through
this process's adapter, which announces each to the attached debugger (the event ``debugpyAttach``).
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Set, Tuple

from . import imports
from .announce import warn
from .child import ATTENDED_VARIABLE, SOCKET_VARIABLE

if TYPE_CHECKING:
    from .debugger import Debugger
    from .event_loop import EventLoop

#: Seconds that a child may take to let the debugger in, which is work of its own.
JOINING_SECONDS = 60.0
#: Seconds that a debugger may take to attach to a child that it has been told of.
ATTEND_SECONDS = 10.0
#: Seconds that it may take from its first message on, if it is debugpy that does not answer.
ATTACHING_SECONDS = 30.0
#: Children with a debugger of their own at the same time; the others run on.
MOST = 32
_LINE_BYTES = 4096
#: Bytes of a child's answer to where it stands, and children that are asked at once.
_STACKS_BYTES = 2 * 1024 * 1024
_ASKED = 256


class _Child:
    """One child process."""

    def __init__(self) -> None:
        self.pid = 0
        self.unread = b""
        #: Whether it has been told to let the debugger in.
        self.is_joined = False
        #: Until when the debugger may take to attach to it, while it waits for that.
        self.until: Optional[float] = None
        #: The session of a debugger with it, which may end later than the next one begins.
        self.session: Any = None
        #: Requests for its stacks that it has not answered yet: what is called with the answer, by number.
        self.asked: Dict[int, Callable[[int, int, Optional[Dict[str, Any]]], None]] = {}


class Children:
    """Listens for this process's children. All methods belong to the loop's thread, but :meth:`open`.

    Args:
        loop: Where it waits.
        debugger: Whose adapter they are connected to.
        announce: Called with the event ``child-failed`` (message).
        folder: Where a file may be made by which the children see that they are wanted.
    """

    def __init__(
        self, loop: EventLoop, debugger: Debugger, announce: Callable[..., None], folder: Optional[str]
    ) -> None:
        self._loop, self._debugger, self._announce, self._folder = loop, debugger, announce, folder
        self._listener: Optional[socket.socket] = None
        #: Whether a debugger is attached that wants to see children. There is a file as long as that is so.
        self._is_wanted = False
        self._file: Optional[str] = None
        self._children: Dict[socket.socket, _Child] = {}
        #: Whether the attached debugger does not attach to the children that it is told of, and whether it has done so.
        self._is_ignored = False
        self._is_attended = False

    def open(self) -> None:
        """Listen, and tell the children where by this process's environment."""
        name = "azureml-debuggee-{}-{}".format(os.getpid(), os.urandom(12).hex())
        try:
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            # A name that is no file's.
            listener.bind("\0" + name)
            listener.listen(1024)
        except (AttributeError, OSError):
            return  # Not a system that has such names.
        listener.setblocking(False)
        self._loop.register(listener, selectors.EVENT_READ, self._on_connection)
        self._listener = listener
        os.environ[SOCKET_VARIABLE] = "@" + name
        if self._folder is not None:
            self._file = os.environ[ATTENDED_VARIABLE] = os.path.join(self._folder, name)
        self._mark()

    @property
    def socket_and_file(self) -> Optional[Tuple[str, str]]:
        """The socket's name and the file's, as the children's environment has them; None where it does not listen."""
        return None if self._listener is None else (os.environ[SOCKET_VARIABLE], os.environ.get(ATTENDED_VARIABLE, ""))

    def _mark(self) -> None:
        """Make or remove the file by which children see whether they are wanted."""
        try:
            if self._file is not None and self._is_wanted:
                os.close(os.open(self._file, os.O_WRONLY | os.O_CREAT, 0o600))
            elif self._file is not None:
                os.unlink(self._file)
        except OSError:
            pass  # The folder has gone, or has no room.

    def sockets(self) -> List[socket.socket]:
        """All that it has."""
        return [*([] if self._listener is None else [self._listener]), *self._children]

    def clear(self) -> None:
        """Listen anew, after the program has closed every descriptor; the sockets have been detached."""
        self._children.clear()
        if self._listener is not None:
            self.open()

    def clear_after_fork(self) -> None:
        """Forget all in a forked child, where the sockets have been closed."""
        self._children, self._listener, self._file = {}, None, None

    def deadlines(self) -> List[float]:
        """When it has something to do, whatever happens on its sockets."""
        return [child.until for child in self._children.values() if child.until is not None]

    def handle_deadlines(self, now: float) -> None:
        """Do what is due at this moment."""
        for end, child in list(self._children.items()):
            if child.until is not None and child.until <= now:
                self._is_ignored = not self._is_attended
                warn("child process {} runs on: no debugger has attached to it".format(child.pid))
                self._leave(end, child)

    def drop_failed(self, end: Any) -> None:
        """Let go of a child with which something unforeseen has happened."""
        if end in self._children:
            self._lose(end)

    # Debuggers

    def session_began(self) -> None:
        """A debugger has attached that wants to see children: those that are there, and those to come."""
        self._is_ignored = self._is_attended = False
        self._is_wanted = True
        self._mark()
        for end, child in list(self._children.items()):
            self._join(end, child)

    def session_ended(self) -> None:
        """It has left."""
        self._is_wanted = False
        self._mark()
        for end, child in list(self._children.items()):
            if child.is_joined:
                self._leave(end, child)

    def attaching(self, pid: int) -> None:
        """A debugger has begun to attach to a child."""
        for child in self._children.values():
            if child.pid == pid and child.until is not None:
                child.until = time.monotonic() + ATTACHING_SECONDS

    def attached(self, pid: int, session: Any) -> None:
        """A debugger has attached to a child; ``session`` is anything that tells its session from others."""
        self._is_attended = True
        for child in self._children.values():
            if child.pid == pid:
                child.until, child.session = None, session

    def left(self, session: Any) -> None:
        """A debugger has left a child."""
        for end, child in list(self._children.items()):
            if child.session is session:
                self._leave(end, child)

    # Children

    def _on_connection(self, listener: socket.socket, mask: int) -> None:
        for _ in range(64):
            try:
                end, _address = listener.accept()
            except OSError:
                return
            if not _is_of_this_user(end):
                end.close()
                continue
            end.setblocking(False)
            self._children[end] = _Child()
            self._loop.register(end, selectors.EVENT_READ, self._on_line)

    def _on_line(self, end: socket.socket, mask: int) -> None:
        child = self._children[end]
        try:
            received = end.recv(_LINE_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            received = b""
        child.unread += received
        if not received or len(child.unread) > (_STACKS_BYTES if child.asked else 4 * _LINE_BYTES):
            self._lose(end)
            return
        *lines, child.unread = child.unread.split(b"\n")
        for line in lines:
            self._take(end, child, line.decode("utf-8", "replace"))

    def _take(self, end: socket.socket, child: _Child, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word.isdigit():
            child.pid = int(word)
            # One that waits, or may, says so itself.
            if self._is_wanted and not rest:
                self._join(end, child)
        elif word == "waits":
            child.until = time.monotonic() + JOINING_SECONDS
            if not self._is_wanted or self._is_ignored or not self._join(end, child):
                child.until = None
                self._send(end, "go")
        elif word == "joined" and child.until is not None:
            child.until = time.monotonic() + ATTEND_SECONDS
        elif word == "stacks":
            self._take_stacks(child, rest)
        elif word in ("declined", "failed"):
            child.is_joined, child.until = False, None
            if word == "failed":
                self._announce("child-failed", message=rest)
                warn(rest)

    # Where they stand

    def request_stacks(
        self, number: int, text: str, answer: Callable[[int, int, Optional[Dict[str, Any]]], None]
    ) -> Set[int]:
        """Ask all children where they stand.

        Args:
            number: The request's number.
            text: Its JSON.
            answer: Called with the number, a child's process id, and what it says; None where it has ended instead.

        Returns:
            The process ids of those that have been asked.
        """
        asked = [(end, child) for end, child in self._children.items() if child.pid][:_ASKED]
        for end, child in asked:
            child.asked[number] = answer
            self._send(end, "stacks {} {}".format(number, text))
        return {child.pid for _end, child in asked}

    def _take_stacks(self, child: _Child, rest: str) -> None:
        number, _, text = rest.partition(" ")
        answer = child.asked.pop(int(number), None) if number.isdigit() else None
        if answer is None:
            return
        try:
            found = imports.get("json").loads(text)
        except ValueError:
            found = None
        answer(int(number), child.pid, found if isinstance(found, dict) else None)

    def _join(self, end: socket.socket, child: _Child) -> bool:
        """Have a child let the debugger in; whether it is to."""
        pydevd_endpoint = self._debugger.pydevd_endpoint()
        if pydevd_endpoint is None or sum(other.is_joined for other in self._children.values()) >= MOST:
            return False
        child.is_joined, child.session = True, None
        self._send(end, "join {} {} {} {}".format(pydevd_endpoint[0], os.getpid(), *pydevd_endpoint[1:]))
        return True

    def _leave(self, end: socket.socket, child: _Child) -> None:
        child.is_joined, child.until, child.session = False, None, None
        self._send(end, "go")

    def _send(self, end: socket.socket, line: str) -> None:
        try:
            end.send(line.encode("utf-8") + b"\n")
        except OSError:
            pass  # It does not read, or has gone.

    def _lose(self, end: socket.socket) -> None:
        self._loop.unregister(end)
        end.close()
        child = self._children.pop(end)
        for number, answer in child.asked.items():
            answer(number, child.pid, None)


def _is_of_this_user(end: socket.socket) -> bool:
    """Whether whoever has connected may know how to reach the adapter."""
    size = struct.calcsize("3i")
    _pid, uid, _gid = struct.unpack("3i", end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return uid in (0, os.geteuid())
