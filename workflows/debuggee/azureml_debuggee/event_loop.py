"""One thread that waits on all of the gate's sockets, and a second one for work that may block."""

from __future__ import annotations

import queue
import selectors
import socket
import traceback
from typing import Any, Callable, List, Optional, Tuple

from .announce import warn
from .descriptors import identity
from .threads import start_untraced


def report_bug() -> None:
    """Print the current exception, which is a bug in the debuggee; never raises."""
    warn(traceback.format_exc().rstrip())


class EventLoop:
    """Calls a handler when something can be read from or written to its socket.

    All methods but :meth:`run` and :meth:`close_after_fork` belong to the thread that calls :meth:`wait`.

    Args:
        on_error: Called with a socket whose handler has raised an exception, which has been reported.
    """

    def __init__(self, on_error: Callable[[Any], None]) -> None:
        self._on_error = on_error
        #: Selectors whose descriptors the program has closed. They are never released: closing one would close a
        #: descriptor of the program.
        self._lost: List[Any] = []
        self._work: "queue.SimpleQueue[Callable[[], Optional[Callable[[], None]]]]" = queue.SimpleQueue()
        self._done: "queue.SimpleQueue[Callable[[], None]]" = queue.SimpleQueue()
        self._helper: Any = None

    def open(self) -> None:
        """Create the selector, without a socket to wait for.

        Raises:
            OSError: No descriptor is left.
        """
        self._selector = selectors.DefaultSelector()
        self._wakeup_receiver, self._wakeup_sender = socket.socketpair()
        for end in self.sockets():
            end.setblocking(False)
        self._selector.register(self._wakeup_receiver, selectors.EVENT_READ, self._on_wakeup)
        self._opened_as = self._identity()

    def _identity(self) -> Any:
        return identity(self._wakeup_receiver.fileno())

    def sockets(self) -> Tuple[socket.socket, socket.socket]:
        """The loop's own two sockets."""
        return self._wakeup_receiver, self._wakeup_sender

    def reopen(self) -> None:
        """Create a new selector after the program has closed every descriptor; the sockets have been detached."""
        self._lost.append(self._selector)
        self.open()

    def close_after_fork(self) -> None:
        """Close the selector in a forked child, where each socket has been closed.

        The sockets are not unregistered first: parent and child share the selector, so that would affect the parent.
        """
        try:
            self._selector.close()
        except OSError:
            pass

    def register(self, end: socket.socket, events: int, handler: Callable[[Any, int], None]) -> None:
        """Call ``handler`` with the socket and a mask when one of these events happens."""
        self._selector.register(end, events, handler)

    def unregister(self, end: socket.socket) -> None:
        """Stop waiting for this socket, if it is registered."""
        if self._is_registered(end):
            self._selector.unregister(end)

    def _is_registered(self, end: Any) -> bool:
        return end.fileno() != -1 and end in self._selector.get_map()

    def watch(self, end: socket.socket, events: int, handler: Callable[[Any, int], None]) -> None:
        """Wait for exactly these events from now on; 0 stands for none."""
        known = self._selector.get_map().get(end)
        if known is None:
            if events:
                self._selector.register(end, events, handler)
        elif not events:
            self._selector.unregister(end)
        elif known.events != events:
            self._selector.modify(end, events, known.data)

    def wait(self, seconds: float) -> bool:
        """Wait up to so many seconds for events, and call the handlers.

        Returns:
            False if that is not possible: the program has closed every descriptor, the loop's among them.
        """
        try:
            events: List[Tuple[Any, int]] = self._selector.select(seconds)
        except OSError:
            return False
        if self._identity() != self._opened_as:
            return False
        for key, mask in events:
            # An earlier handler of this round may have closed it.
            if self._is_registered(key.fileobj):
                try:
                    key.data(key.fileobj, mask)
                except Exception:
                    report_bug()
                    self._on_error(key.fileobj)
        return True

    # Work that may block

    def run_in_helper(self, work: Callable[[], Optional[Callable[[], None]]]) -> None:
        """Have the helper's thread call ``work``, in order, and then this thread call the function that it returns."""
        self._work.put(work)
        if self._helper is None:
            self._helper = start_untraced(self._run_helper, "azureml-debuggee-helper")

    def _run_helper(self) -> None:
        while True:
            work = self._work.get()
            try:
                following = work()
            except Exception:
                report_bug()
                continue
            if following is not None:
                self.run(following)

    def run(self, following: Callable[[], None]) -> None:
        """From another thread: have the loop's thread call this."""
        self._done.put(following)
        try:
            self._wakeup_sender.send(b"!")
        except OSError:
            pass  # Its buffer is full already, or the program has closed it.

    def _on_wakeup(self, receiver: socket.socket, mask: int) -> None:
        try:
            receiver.recv(4096)
        except (BlockingIOError, InterruptedError):
            pass
        while True:
            try:
                following = self._done.get_nowait()
            except queue.Empty:
                return
            following()
