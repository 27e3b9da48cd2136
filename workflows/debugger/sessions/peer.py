"""The connection with one process of a debug session: the program itself, or one of its child processes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePosixPath

from workflows.debugger.dap import DapClient, DapError, DapEvent, DapTimeout, Json
from workflows.debugger.frames import Frame, evaluate, read_stack
from workflows.debugger.sessions import evaluated_values
from workflows.debugger.sessions.errors import EvaluationTimeout
from workflows.debugger.sessions.model import Breakpoint, Placed, Stop
from workflows.errors import UserError
from workflows.models import DebugEndpoint

#: Seconds for each request to a program that is released.
RELEASE_TIMEOUT = 5.0
#: Interrupts a paused thread's evaluation from debugpy's own thread: pydevd reports the exception as the expression's.
_INTERRUPT = """\
import sys as _sys, ctypes as _ctypes
for _ident, _frame in _sys._current_frames().items():
    while _frame is not None and _frame.f_code.co_name != "internal_evaluate_expression_json":
        _frame = _frame.f_back
    if _frame is not None and _frame.f_locals.get("frame_id") is not None:
        _ctypes.pythonapi.PyThreadState_SetAsyncExc(_ctypes.c_ulong(_ident), _ctypes.py_object(KeyboardInterrupt))
"""


class Peer:
    """The connection with one process.

    Args:
        client: The connection.
        child: The child's process id; None for the program itself.
    """

    def __init__(self, client: DapClient, child: int | None) -> None:
        self.client, self.child = client, child
        #: The current stop; None while it runs.
        self.stop: Stop | None = None
        #: The numbers of the breakpoints that are set, by the adapter's ids and by file and line.
        self._numbers: dict[int, int] = {}
        self._places: dict[tuple[str, int], int] = {}
        #: The numbers of those whose expressions are installed in the program, and of those that log.
        self._evaluated: set[int] = set()
        self._logged: set[int] = set()
        self._paths: dict[str, tuple[list[int], list[tuple[str, int]]]] = {}

    def attach(
        self,
        endpoint: DebugEndpoint,
        before_start: Callable[[], None],
        just_my_code: bool,
        children: bool,
        timeout: float,
    ) -> None:
        """Attach; ``before_start`` is called before a program that waits for a debugger continues."""
        self.client.attach(
            path_mappings=[mapping.as_json() for mapping in endpoint.path_mappings],
            before_start=before_start,
            just_my_code=just_my_code,
            sub_process=children,
            sub_process_id=self.child,
            timeout=timeout,
        )

    def put(self, path: str, wanted: Sequence[Placed], timeout: float, limit: float) -> list[Json]:
        """Replace the breakpoints of a file. Returns the adapter's view of each.

        Args:
            path: The file.
            wanted: All breakpoints of the file.
            timeout: Seconds for each answer.
            limit: Seconds that evaluating a condition or a logged value may take.
        """
        for one in wanted:
            if is_evaluated(one.breakpoint) and one.number not in self._evaluated:
                if not self._evaluated:
                    self.ask_program(evaluated_values.INSTALL, timeout)
                self.ask_program(evaluated_values.want(one.number, one.breakpoint, limit), timeout)
                self._evaluated.add(one.number)
                if one.breakpoint.log:
                    self._logged.add(one.number)
        found = self.client.set_breakpoints(path, [_as_dap(one) for one in wanted], timeout)
        numbers, places = self._paths.pop(path, ([], []))
        for number in numbers:
            self._numbers.pop(number, None)
        for place in places:
            self._places.pop(place, None)
        for one, view in zip(wanted, found, strict=False):
            if "id" in view:
                self._numbers[view["id"]] = one.number
            # The adapter may have moved it to another line.
            self._places[_base(path), int(view.get("line") or one.breakpoint.line)] = one.number
        ids = [view["id"] for view in found if "id" in view]
        lines = [(_base(path), int(view.get("line") or 0)) for view in found]
        self._paths[path] = (ids, lines)
        return found

    def read_stop(self, event: DapEvent) -> Stop:
        """The stop for an event ``stopped``."""
        thread = int(event.body.get("threadId", 0))
        reason = str(event.body.get("reason", ""))
        frames = read_stack(self.client, thread, levels=1)
        if not frames:
            raise DapError("it gave no stack for the stopped thread")
        number = None
        if reason == "breakpoint":
            hit = event.body.get("hitBreakpointIds")
            if hit:
                number = next((self._numbers[one] for one in hit if one in self._numbers), None)
            else:
                # Not all versions of debugpy send the breakpoint's id.
                number = self._places.get((_base(frames[0].file), frames[0].line))
        exception = None
        if reason == "exception":
            info = self.client.request("exceptionInfo", {"threadId": thread})
            # pydevd may add the real place behind the name.
            kind = str(info.get("exceptionId") or "").split(" ")[0]
            exception = {"type": kind, "message": str(info.get("description") or "")}
        return Stop(reason, thread, frames[0], self.child, number, exception)

    def evaluate(self, frame: Frame, expression: str, timeout: float, shown: str = "") -> str:
        """The ``repr`` of an expression's value in a frame, or type and text of the error that it raises.

        Args:
            frame: A frame of the stop.
            expression: The expression.
            timeout: Seconds.
            shown: The expression for messages, if that is another one.

        Raises:
            EvaluationTimeout: It did not end in time, and was interrupted.
        """
        try:
            return evaluate(self.client, frame, expression, timeout)
        except DapTimeout as error:
            with contextlib.suppress(DapError):
                self.client.request("evaluate", {"expression": _INTERRUPT, "context": "repl"}, RELEASE_TIMEOUT)
            shown = " ".join((shown or expression).split())
            raise EvaluationTimeout(f"{shown} did not end within {timeout:g} s and was interrupted") from error

    def ask_program(self, expression: str, timeout: float) -> str:
        """Evaluate an expression outside of any frame, also while the program runs; returns the value's ``str``.

        A thread of debugpy evaluates it, so it must not wait for another thread.
        """
        return str(self.client.request("evaluate", {"expression": expression, "context": "repl"}, timeout)["result"])

    def settle(self, number: int, timeout: float) -> None:
        """Have the program send a number, after all output so far."""
        self.ask_program(evaluated_values.INSTALL, timeout)
        self.ask_program(evaluated_values.settle(number), timeout)

    def flush(self, timeout: float) -> None:
        """Have the program send the logged values that it has collected."""
        if self._logged:
            self.ask_program(evaluated_values.FLUSH, timeout)

    def go_on(self, stop: Stop, command: str = "continue") -> None:
        """Let a stopped process continue. For a running one debugpy would never answer."""
        self.client.request(command, {"threadId": stop.thread})

    def release(self, paths: Iterable[str]) -> None:
        """Remove breakpoints and let the process continue, as far as the connection still works."""
        with contextlib.suppress(DapError):
            client, stop = self.client, self.stop
            # All requests are sent before waiting for the first response, so that a second Ctrl-C changes nothing.
            sent = [
                client.send("setBreakpoints", {"source": {"path": path}, "breakpoints": []}) for path in sorted(paths)
            ]
            sent.append(client.send("setExceptionBreakpoints", {"filters": []}))
            if stop is not None:
                sent.append(client.send("continue", {"threadId": stop.thread}))
                self.stop = None
            for number in sent:
                client.wait_response(number, RELEASE_TIMEOUT)


def _as_dap(placed: Placed) -> Json:
    """A breakpoint in the Debug Adapter Protocol (SourceBreakpoint)."""
    wanted = placed.breakpoint
    if is_evaluated(wanted):
        return {"line": wanted.line, "condition": evaluated_values.condition_of(placed.number)}
    hits = wanted.condition.hits
    return {"line": wanted.line, **({"hitCondition": f">= {hits}"} if hits else {})}


def is_evaluated(wanted: Breakpoint) -> bool:
    """Whether the breakpoint has a condition or a logged expression, which the program evaluates."""
    return bool(wanted.log or wanted.condition.when)


def require_file(view: Json, path: str, endpoint: DebugEndpoint) -> None:
    """Refuse a breakpoint if the program has no such file.

    Raises:
        UserError: The program has no such file.
    """
    if view.get("verified", True) or "does not exist" not in str(view.get("message", "")):
        return
    roots = ", ".join(f"{m.local_root} is {m.remote_root}" for m in endpoint.path_mappings) or "none"
    raise UserError(f"The program has no file {path}", f"Check the path mappings: {roots}.")


def _base(path: str) -> str:
    return PurePosixPath(path.replace("\\", "/")).name
