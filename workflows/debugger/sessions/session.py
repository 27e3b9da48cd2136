"""A long-lived debug session: breakpoints at any time, happenings in order, and nothing left paused at the end."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from types import TracebackType

from workflows.debugger.children import ANNOUNCED, ChildSessions
from workflows.debugger.dap import REQUEST_TIMEOUT, DapClient, DapClosed, DapError, DapEvent, DapTimeout
from workflows.debugger.sessions import evaluated_values, model, module_functions
from workflows.debugger.sessions.errors import as_user_errors
from workflows.debugger.sessions.happening_queue import HappeningQueue
from workflows.debugger.sessions.model import Breakpoint, Function, Happening, Placed, Stop
from workflows.debugger.sessions.peer import RELEASE_TIMEOUT, Peer, require_file
from workflows.debugger.sessions.stop_reader import StopReader
from workflows.errors import UserError
from workflows.models import DebugEndpoint

ATTACH_TIMEOUT = 60.0
"""Seconds for connecting and attaching: a program whose C code holds the GIL was seen to need 30."""

_ENDINGS = ("terminated", "exited")
_SILENCE = 3600.0
_FLUSH_SECONDS = 0.2
_STEPS = {"over": "next", "into": "stepIn", "out": "stepOut"}


#: Seconds that a condition or a logged expression may take.
EVALUATION_LIMIT = 10.0


class DebugSession(StopReader):
    """A session with a program and its children. A context manager; any thread may call, one may wait.

    Every method raises errors as :class:`UserError`. At the end all breakpoints are removed and all processes continue.

    Args:
        endpoint: The program's address for debuggers, and its path mappings.
        breakpoints: Set before a program that waits for a debugger continues.
        filters: debugpy's ``raised``, ``uncaught``, ``userUnhandled``.
        types: Types of exceptions to stop at where they are raised, by their names in the program.
        just_my_code: Leave out libraries.
        children: Debug child processes, too.
        timeout: Seconds for connecting and attaching.
        limit: Seconds after which the evaluation of a condition or a logged value is interrupted.
        agent: For an agent's session: the message to others who try to attach; empty for a user's session.

    Raises:
        UserError: An editor is attached already; nothing answers, or not as a debugger; the program has no such file
            or function.
    """

    def __init__(
        self,
        endpoint: DebugEndpoint,
        *,
        breakpoints: Iterable[Breakpoint | Function] = (),
        filters: Sequence[str] = (),
        types: Sequence[str] = (),
        just_my_code: bool = False,
        children: bool = True,
        timeout: float = ATTACH_TIMEOUT,
        limit: float = EVALUATION_LIMIT,
        agent: str = "",
    ) -> None:
        self.endpoint = endpoint
        self.where = f"{endpoint.host}:{endpoint.port}"
        self._just_my_code, self._timeout, self._limit = just_my_code, timeout, limit
        self._exceptions = model.exception_filters(types, filters)
        #: Held while breakpoints are changed, and while the one that was hit is looked up.
        self._changing = threading.RLock()
        self._numbers = itertools.count(1)
        self._placed: dict[int, Placed] = {}
        self._peers: dict[int | None, Peer] = {}
        self._happenings = HappeningQueue()
        self._settling: dict[int, threading.Event] = {}
        self._closing = threading.Event()
        self._is_flushing = False
        self._children: ChildSessions | None = None
        with self._errors():
            client = DapClient.connect(endpoint.host, endpoint.port, timeout)
            client.agent = agent
            try:
                program = Peer(client, None)
                self._peers[None] = program
                wanted = list(breakpoints)
                program.attach(endpoint, lambda: self._add_first(wanted), just_my_code, children, timeout)
                if children:
                    self._children = ChildSessions(endpoint, self._begin_child, self._on_child, timeout)
                threading.Thread(target=self._listen, args=(client,), name="debug-session", daemon=True).start()
            except BaseException:
                self.close()
                raise

    def __enter__(self) -> DebugSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the session. Paused processes continue, and all breakpoints are removed."""
        self._closing.set()
        try:
            if self._children is not None:
                self._children.close()
        finally:
            with contextlib.suppress(DapError):
                self._peers[None].client.disconnect(terminate=False, timeout=RELEASE_TIMEOUT)
            self._happenings.end(model.LOST, "the session is closed")

    # Breakpoints

    @property
    def breakpoints(self) -> list[Placed]:
        """The breakpoints that are set, in order of creation."""
        with self._changing:
            return list(self._placed.values())

    def add(self, *wanted: Breakpoint | Function) -> list[Placed]:
        """Add breakpoints, in the program and its children, also while it runs.

        Raises:
            UserError: The program has no such file or function. Then none of them is set.
        """
        with self._errors(), self._changing:
            return self._add(wanted)

    def remove(self, *numbers: int) -> None:
        """Remove breakpoints; unknown numbers are ignored."""
        with self._errors(), self._changing:
            gone = [self._placed.pop(number) for number in numbers if number in self._placed]
            self._put({placed.breakpoint.file for placed in gone})

    def set_exceptions(self, *, types: Sequence[str] = (), filters: Sequence[str] = ()) -> None:
        """Set at which exceptions to stop from now on; arguments as for the class."""
        with self._errors(), self._changing:
            self._exceptions = model.exception_filters(types, filters)
            for peer in self._all():
                with self._ending(peer):
                    peer.client.request("setExceptionBreakpoints", self._exceptions)

    def _add_first(self, wanted: Sequence[Breakpoint | Function]) -> None:
        with self._changing:
            self._peers[None].client.request("setExceptionBreakpoints", self._exceptions)
            self._add(wanted)

    def _add(self, wanted: Iterable[Breakpoint | Function]) -> list[Placed]:
        program = self._peers[None]
        new = []
        for one in wanted:
            found = (
                module_functions.find_function_line(program, one, self._timeout) if isinstance(one, Function) else one
            )
            new.append(Placed(next(self._numbers), found, found.line))
        self._placed.update((placed.number, placed) for placed in new)
        if any(placed.breakpoint.log for placed in new) and not self._is_flushing:
            self._is_flushing = True
            threading.Thread(target=self._flush, name="debug-values", daemon=True).start()
        try:
            self._put({placed.breakpoint.file for placed in new})
        except BaseException:
            for placed in new:
                self._placed.pop(placed.number, None)
            # Set the file's breakpoints again without the new ones, as far as that works.
            with contextlib.suppress(DapError, UserError):
                self._put({placed.breakpoint.file for placed in new})
            raise
        return [self._placed[placed.number] for placed in new]

    def _put(self, paths: Iterable[str]) -> None:
        """Set the breakpoints of these files in every process."""
        for path in sorted(paths):
            wanted = [placed for placed in self._placed.values() if placed.breakpoint.file == path]
            for peer in self._all():
                with self._ending(peer):
                    views = peer.put(path, wanted, REQUEST_TIMEOUT, self._limit)
                    if peer.child is not None:
                        continue
                    for placed, view in zip(wanted, views, strict=False):
                        require_file(view, path, self.endpoint)
                        line = int(view.get("line") or placed.line)
                        message = "" if view.get("verified", True) else str(view.get("message", ""))
                        self._placed[placed.number] = replace(placed, line=line, message=message)

    def _all(self) -> list[Peer]:
        return list(self._peers.values())

    # What happens

    def wait(self, timeout: float) -> Happening | None:
        """Take the next happening; None if there is none in time.

        Once the program has ended or is lost, every call returns that.

        Args:
            timeout: Seconds.
        """
        return self._happenings.wait(timeout)

    def post(self, happening: Happening) -> None:
        """Add a happening of the caller's, so that one wait covers both kinds."""
        self._happenings.post(happening)

    def settle(self, timeout: float = RELEASE_TIMEOUT) -> None:
        """Wait until all output of the program up to now can be taken, as far as it still answers."""
        for peer in self._all():
            number = next(self._numbers)
            heard = self._settling[number] = threading.Event()
            with contextlib.suppress(DapError):
                # By its output: in the adapter, a response may overtake earlier output.
                peer.settle(number, timeout)
                heard.wait(timeout)
            del self._settling[number]

    @property
    def stops(self) -> list[Stop]:
        """The current stops of the program and its children."""
        return [peer.stop for peer in list(self._peers.values()) if peer.stop is not None]

    # Going on

    def go_on(self, stop: Stop) -> None:
        """Let a stopped process continue."""
        self._go_on(stop, "continue")

    def step(self, stop: Stop, how: str = "over") -> None:
        """Step ``over``, ``into`` or ``out``. Wait for the stop there like for any other."""
        self._go_on(stop, _STEPS[how])

    def pause(self, child: int | None = None) -> None:
        """Pause the program or one of its children; the stop comes with its next line of Python."""
        with self._errors():
            peer = self._peer(child)
            threads = peer.client.request("threads").get("threads", [])
            if threads:
                peer.client.request("pause", {"threadId": threads[0]["id"]})

    def release(self) -> None:
        """Remove all breakpoints and let all processes continue, but keep the session."""
        with self._changing:
            paths = {placed.breakpoint.file for placed in self._placed.values()}
            self._placed.clear()
            self._exceptions = model.exception_filters((), ())
            for peer in self._all():
                peer.release(paths)

    def _go_on(self, stop: Stop, command: str) -> None:
        with self._errors():
            peer = self._stopped(stop)
            peer.stop = None
            peer.go_on(stop, command)

    # Inside

    def _errors(self) -> contextlib.AbstractContextManager[None]:
        return as_user_errors(self.where)

    def _ending(self, peer: Peer) -> contextlib.AbstractContextManager[None]:
        """A context for requests to a process: errors of a child, which may end at any moment, are ignored."""
        return contextlib.nullcontext() if peer.child is None else contextlib.suppress(DapError)

    def _peer(self, child: int | None) -> Peer:
        peer = self._peers.get(child)
        if peer is None:
            raise UserError(f"Child process {child} has ended", "Wait for another one.")
        return peer

    def _stopped(self, stop: Stop) -> Peer:
        peer = self._peer(stop.child)
        if peer.stop is not stop:
            raise UserError("The program has gone on since that stop.", "Wait for the next one, or pause it.")
        return peer

    def _listen(self, client: DapClient) -> None:
        """Thread: handle the program's events in order."""
        program = self._peers[None]
        while True:
            try:
                event = client.wait_event(None, _SILENCE)
            except DapTimeout:
                continue
            except DapClosed as error:
                self._happenings.end(model.LOST, error.reason)
                return
            if event.name == ANNOUNCED and self._children is not None:
                self._children.follow(event)
            elif event.name in _ENDINGS:
                self._happenings.end(model.ENDED)
                return
            else:
                self._hear(program, event)

    def _hear(self, peer: Peer, event: DapEvent) -> None:
        if event.name == "stopped":
            # The program may end at any moment; another event reports that.
            with contextlib.suppress(DapError):
                self._on_stop(peer, event)
        elif event.name == "output":
            text = str(event.body.get("output", ""))
            if (number := evaluated_values.read_settled(text)) is not None:
                if number in self._settling:
                    self._settling[number].set()
            elif (logged := evaluated_values.read_values(text, peer.child)) is not None:
                for one in logged:
                    self._on_logged(peer, one)
            elif event.body.get("category") != "telemetry":
                self.post(Happening(model.OUTPUT, child=peer.child, text=text))
        elif event.name == "continued":
            self.post(Happening(model.CONTINUED, child=peer.child))

    def _flush(self) -> None:
        """Thread: fetch logged values that the program has collected but not sent yet."""
        while not self._closing.wait(_FLUSH_SECONDS):
            for peer in self._all():
                with contextlib.suppress(DapError):
                    peer.flush(RELEASE_TIMEOUT)

    def _on_logged(self, peer: Peer, logged: Happening) -> None:
        with self._changing:
            placed = self._placed.get(logged.breakpoint or 0)
        # The breakpoint may have been removed since.
        if placed is None:
            return
        if logged.kind in (model.CONDITION, model.ENDLESS):
            self._on_condition(placed, logged, peer)
        else:
            self.post(logged)

    def _on_stop(self, peer: Peer, event: DapEvent) -> None:
        # The lock waits for a thread that sets breakpoints, which is when their ids become known.
        with self._changing:
            stop = peer.read_stop(event)
            placed = self._placed.get(stop.breakpoint or 0)
        # Several functions may have code on this line.
        function = placed.breakpoint.function if placed is not None else ""
        if function and stop.frame.function != function:
            peer.go_on(stop)
            return
        peer.stop = stop
        self.post(Happening(model.STOPPED, child=peer.child, stop=stop))

    def _on_condition(self, placed: Placed, told: Happening, peer: Peer) -> None:
        """Remove a breakpoint whose condition or logged expression has raised or did not end, and report it."""
        wanted = placed.breakpoint
        if told.kind == model.CONDITION:
            text = f"--when {wanted.condition.when} raises at {_place(placed)}: {told.text}"
        else:
            what = f"--when {wanted.condition.when}" if wanted.condition.when else f"--log {wanted.log}"
            text = f"{what} {told.text} at {_place(placed)}"
        with contextlib.suppress(UserError):
            self.remove(placed.number)
        self.post(Happening(model.CONDITION, child=peer.child, breakpoint=placed.number, text=text, is_error=True))

    # Children

    def _begin_child(self, client: DapClient, pid: int) -> None:
        """Thread: attach to a child."""
        peer = Peer(client, pid)

        def put() -> None:
            # From here on the child gets changes of breakpoints.
            with self._changing:
                self._peers[pid] = peer
                client.request("setExceptionBreakpoints", self._exceptions)
                files = {placed.breakpoint.file for placed in self._placed.values()}
                for path in files:
                    wanted = [placed for placed in self._placed.values() if placed.breakpoint.file == path]
                    peer.put(path, wanted, REQUEST_TIMEOUT, self._limit)

        try:
            peer.attach(self.endpoint, put, self._just_my_code, True, self._timeout)
        except BaseException:
            self._forget(peer)
            raise

    def _on_child(self, pid: int, event: DapEvent | None) -> None:
        peer = self._peers.get(pid)
        if peer is None:
            return
        if event is None:
            self._forget(peer)
        else:
            self._hear(peer, event)

    def _forget(self, peer: Peer) -> None:
        with self._changing:
            if self._peers.get(peer.child) is peer:
                del self._peers[peer.child]


def _place(placed: Placed) -> str:
    from pathlib import PurePath

    return f"{PurePath(placed.breakpoint.file).name}:{placed.breakpoint.line}"
