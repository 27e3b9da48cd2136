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

#: Seconds that a child may take to connect to the adapter, which includes importing debugpy.
JOINING_SECONDS = 60.0
#: Seconds that a debugger may take to attach to a child that has been announced to it.
ATTEND_SECONDS = 10.0
#: Seconds that it may take from its first message on, while debugpy does not answer.
ATTACHING_SECONDS = 30.0
#: Children that are debugged at the same time at most; further ones run on.
MOST_DEBUGGED = 32
_LINE_BYTES = 4096
#: Bytes of a child's stacks, and children that are asked for them at once.
_STACKS_BYTES = 2 * 1024 * 1024
_MOST_ASKED = 256


class _Child:
    """One child process."""

    def __init__(self) -> None:
        self.pid = 0
        self.unread = b""
        #: Whether it has been sent ``join``.
        self.is_joined = False
        #: When it is sent ``go`` if no debugger has attached by then; None if it does not wait.
        self.until: Optional[float] = None
        #: The session of its debugger, which may end after the next one has begun.
        self.session: Any = None
        #: Callbacks for its stacks that it has not sent yet, by the number of the request.
        self.pending_stacks: Dict[int, Callable[[int, int, Optional[Dict[str, Any]]], None]] = {}


class Children:
    """Listens for this process's children. All methods but :meth:`open` belong to the loop's thread.

    Args:
        loop: The event loop.
        debugger: The debugger whose adapter the children are connected to.
        announce: Called with the event ``child-failed`` (message).
        folder: A folder for the marker file that tells new children to wait for the debugger; None for no file.
    """

    def __init__(
        self, loop: EventLoop, debugger: Debugger, announce: Callable[..., None], folder: Optional[str]
    ) -> None:
        self._loop, self._debugger, self._announce, self._folder = loop, debugger, announce, folder
        self._listener: Optional[socket.socket] = None
        #: Whether a debugger is attached that debugs children. The marker file exists as long as that is so.
        self._debugs_children = False
        self._file: Optional[str] = None
        self._children: Dict[socket.socket, _Child] = {}
        #: Whether the attached debugger has ignored an announced child, and whether it has attached to one.
        self._is_ignored = False
        self._is_attended = False

    def open(self) -> None:
        """Listen, and put the address into this process's environment, which children inherit."""
        name = "azureml-debuggee-{}-{}".format(os.getpid(), os.urandom(12).hex())
        try:
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            # An abstract name, which is not a file's.
            listener.bind("\0" + name)
            listener.listen(1024)
        except (AttributeError, OSError):
            return  # This system has no such names.
        listener.setblocking(False)
        self._loop.register(listener, selectors.EVENT_READ, self._on_connection)
        self._listener = listener
        os.environ[SOCKET_VARIABLE] = "@" + name
        if self._folder is not None:
            self._file = os.environ[ATTENDED_VARIABLE] = os.path.join(self._folder, name)
        self._update_marker_file()

    @property
    def socket_and_file(self) -> Optional[Tuple[str, str]]:
        """The names of the socket and the marker file, as children get them; None if this does not listen."""
        return None if self._listener is None else (os.environ[SOCKET_VARIABLE], os.environ.get(ATTENDED_VARIABLE, ""))

    def _update_marker_file(self) -> None:
        """Create or remove the marker file."""
        try:
            if self._file is not None and self._debugs_children:
                os.close(os.open(self._file, os.O_WRONLY | os.O_CREAT, 0o600))
            elif self._file is not None:
                os.unlink(self._file)
        except OSError:
            pass  # The folder has been removed, or the disk is full.

    def sockets(self) -> List[socket.socket]:
        """All its sockets."""
        return [*([] if self._listener is None else [self._listener]), *self._children]

    def clear(self) -> None:
        """Listen again after the program has closed every descriptor; the sockets have been detached."""
        self._children.clear()
        if self._listener is not None:
            self.open()

    def clear_after_fork(self) -> None:
        """Drop everything in a forked child, where the sockets have been closed."""
        self._children, self._listener, self._file = {}, None, None

    def deadlines(self) -> List[float]:
        """The times at which :meth:`handle_deadlines` has something to do."""
        return [child.until for child in self._children.values() if child.until is not None]

    def handle_deadlines(self, now: float) -> None:
        """Handle the deadlines that have passed at this time."""
        for end, child in list(self._children.items()):
            if child.until is not None and child.until <= now:
                self._is_ignored = not self._is_attended
                warn("child process {} runs on: no debugger has attached to it".format(child.pid))
                self._send_go(end, child)

    def drop_failed(self, end: Any) -> None:
        """Drop a child whose handler has raised an exception."""
        if end in self._children:
            self._drop(end)

    # Debuggers

    def on_session_start(self) -> None:
        """Handle that a debugger has attached that debugs children: all current and later ones join."""
        self._is_ignored = self._is_attended = False
        self._debugs_children = True
        self._update_marker_file()
        for end, child in list(self._children.items()):
            self._send_join(end, child)

    def on_session_end(self) -> None:
        """Handle that this debugger has left."""
        self._debugs_children = False
        self._update_marker_file()
        for end, child in list(self._children.items()):
            if child.is_joined:
                self._send_go(end, child)

    def on_attaching(self, pid: int) -> None:
        """Handle that a debugger has begun to attach to a child."""
        for child in self._children.values():
            if child.pid == pid and child.until is not None:
                child.until = time.monotonic() + ATTACHING_SECONDS

    def on_attached(self, pid: int, session: Any) -> None:
        """Handle that a debugger has attached to a child; ``session`` identifies its session."""
        self._is_attended = True
        for child in self._children.values():
            if child.pid == pid:
                child.until, child.session = None, session

    def on_left(self, session: Any) -> None:
        """Handle that a debugger has left a child."""
        for end, child in list(self._children.items()):
            if child.session is session:
                self._send_go(end, child)

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
        if not received or len(child.unread) > (_STACKS_BYTES if child.pending_stacks else 4 * _LINE_BYTES):
            self._drop(end)
            return
        *lines, child.unread = child.unread.split(b"\n")
        for line in lines:
            self._handle_line(end, child, line.decode("utf-8", "replace"))

    def _handle_line(self, end: socket.socket, child: _Child, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word.isdigit():
            child.pid = int(word)
            # A child that waits sends ``waits`` as well.
            if self._debugs_children and not rest:
                self._send_join(end, child)
        elif word == "waits":
            child.until = time.monotonic() + JOINING_SECONDS
            if not self._debugs_children or self._is_ignored or not self._send_join(end, child):
                child.until = None
                self._send(end, "go")
        elif word == "joined" and child.until is not None:
            child.until = time.monotonic() + ATTEND_SECONDS
        elif word == "stacks":
            self._handle_stacks(child, rest)
        elif word in ("declined", "failed"):
            child.is_joined, child.until = False, None
            if word == "failed":
                self._announce("child-failed", message=rest)
                warn(rest)

    # Stacks

    def request_stacks(
        self, number: int, text: str, answer: Callable[[int, int, Optional[Dict[str, Any]]], None]
    ) -> Set[int]:
        """Request the stacks of all children.

        Args:
            number: The request's number.
            text: Its JSON.
            answer: Called with the number, a child's process id, and its stacks; None if it has ended instead.

        Returns:
            The process ids of the children that the request was sent to.
        """
        asked = [(end, child) for end, child in self._children.items() if child.pid][:_MOST_ASKED]
        for end, child in asked:
            child.pending_stacks[number] = answer
            self._send(end, "stacks {} {}".format(number, text))
        return {child.pid for _end, child in asked}

    def _handle_stacks(self, child: _Child, rest: str) -> None:
        number, _, text = rest.partition(" ")
        answer = child.pending_stacks.pop(int(number), None) if number.isdigit() else None
        if answer is None:
            return
        try:
            found = imports.standard_module("json").loads(text)
        except ValueError:
            found = None
        answer(int(number), child.pid, found if isinstance(found, dict) else None)

    def _send_join(self, end: socket.socket, child: _Child) -> bool:
        """Have a child connect to the adapter; False if it cannot be debugged now."""
        pydevd_endpoint = self._debugger.pydevd_endpoint()
        if pydevd_endpoint is None or sum(other.is_joined for other in self._children.values()) >= MOST_DEBUGGED:
            return False
        child.is_joined, child.session = True, None
        self._send(end, "join {} {} {} {}".format(pydevd_endpoint[0], os.getpid(), *pydevd_endpoint[1:]))
        return True

    def _send_go(self, end: socket.socket, child: _Child) -> None:
        child.is_joined, child.until, child.session = False, None, None
        self._send(end, "go")

    def _send(self, end: socket.socket, line: str) -> None:
        try:
            end.send(line.encode("utf-8") + b"\n")
        except OSError:
            pass  # It does not read, or has ended.

    def _drop(self, end: socket.socket) -> None:
        self._loop.unregister(end)
        end.close()
        child = self._children.pop(end)
        for number, answer in child.pending_stacks.items():
            answer(number, child.pid, None)


def _is_of_this_user(end: socket.socket) -> bool:
    """Whether the connected process may be sent the adapter's token."""
    size = struct.calcsize("3i")
    _pid, uid, _gid = struct.unpack("3i", end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return uid in (0, os.geteuid())
