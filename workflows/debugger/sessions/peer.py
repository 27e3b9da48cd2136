"""One process of a debug session: the program itself, or a child process of its."""

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

#: Seconds for what is said once more to a program that is let go.
RELEASE_TIMEOUT = 5.0
#: Ends, from debugpy's own thread, what a paused thread evaluates: pydevd takes the exception for the expression's.
_INTERRUPT = """\
import sys as _sys, ctypes as _ctypes
for _ident, _frame in _sys._current_frames().items():
    while _frame is not None and _frame.f_code.co_name != "internal_evaluate_expression_json":
        _frame = _frame.f_back
    if _frame is not None and _frame.f_locals.get("frame_id") is not None:
        _ctypes.pythonapi.PyThreadState_SetAsyncExc(_ctypes.c_ulong(_ident), _ctypes.py_object(KeyboardInterrupt))
"""


class Peer:
    """A session with one process.

    Args:
        client: The connection.
        child: Its process id; None for the program itself.
    """

    def __init__(self, client: DapClient, child: int | None) -> None:
        self.client, self.child = client, child
        #: Where it stands; None while it runs.
        self.stop: Stop | None = None
        #: The numbers of what is set, by the adapter's own numbers and by place.
        self._numbers: dict[int, int] = {}
        self._places: dict[tuple[str, int], int] = {}
        #: The numbers of those of which it has been told what to evaluate, and of those that log.
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
        """Begin; ``before_start`` is called before a program that waits for a debugger goes on."""
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
            wanted: All of its breakpoints.
            timeout: Seconds for each answer.
            limit: Seconds that the program may take to evaluate a condition or a value.
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
        """Where an event ``stopped`` says that it stands."""
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
                # Not every version of debugpy says which one.
                number = self._places.get((_base(frames[0].file), frames[0].line))
        exception = None
        if reason == "exception":
            info = self.client.request("exceptionInfo", {"threadId": thread})
            # Behind the name pydevd may say where the program really is.
            kind = str(info.get("exceptionId") or "").split(" ")[0]
            exception = {"type": kind, "message": str(info.get("description") or "")}
        return Stop(reason, thread, frames[0], self.child, number, exception)

    def evaluate(self, frame: Frame, expression: str, timeout: float, shown: str = "") -> str:
        """``repr`` of an expression's value in a frame, or type and text of the error that it raises.

        Args:
            frame: Of what stands.
            expression: What is evaluated.
            timeout: Seconds.
            shown: What is said to be evaluated, where that is not the expression itself.

        Raises:
            EvaluationTimeout: It did not end in time, and has been told to.
        """
        try:
            return evaluate(self.client, frame, expression, timeout)
        except DapTimeout as error:
            with contextlib.suppress(DapError):
                self.client.request("evaluate", {"expression": _INTERRUPT, "context": "repl"}, RELEASE_TIMEOUT)
            shown = " ".join((shown or expression).split())
            raise EvaluationTimeout(f"{shown} did not end within {timeout:g} s and was interrupted") from error

    def ask_program(self, expression: str, timeout: float) -> str:
        """``str`` of an expression's value outside of any frame, also while it runs.

        It is evaluated by a thread of debugpy's: nothing that could wait for another thread is to be asked.
        """
        return str(self.client.request("evaluate", {"expression": expression, "context": "repl"}, timeout)["result"])

    def settle(self, number: int, timeout: float) -> None:
        """Have a number told, behind all that the program has said up to now."""
        self.ask_program(evaluated_values.INSTALL, timeout)
        self.ask_program(evaluated_values.settle(number), timeout)

    def flush(self, timeout: float) -> None:
        """Have logged values sent that have come together."""
        if self._logged:
            self.ask_program(evaluated_values.FLUSH, timeout)

    def go_on(self, stop: Stop, command: str = "continue") -> None:
        """Let it run; nothing else than what is stopped can be: debugpy never answers that."""
        self.client.request(command, {"threadId": stop.thread})

    def release(self, paths: Iterable[str]) -> None:
        """Take breakpoints away and let it run, as far as the connection still allows."""
        with contextlib.suppress(DapError):
            client, stop = self.client, self.stop
            # All are on their way before one is waited for, so that a second Ctrl-C changes nothing.
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
    """A breakpoint as the Debug Adapter Protocol has it (SourceBreakpoint)."""
    wanted = placed.breakpoint
    if is_evaluated(wanted):
        return {"line": wanted.line, "condition": evaluated_values.condition_of(placed.number)}
    hits = wanted.condition.hits
    return {"line": wanted.line, **({"hitCondition": f">= {hits}"} if hits else {})}


def is_evaluated(wanted: Breakpoint) -> bool:
    """Whether something is evaluated in the program where the breakpoint's line is passed."""
    return bool(wanted.log or wanted.condition.when)


def require_file(view: Json, path: str, endpoint: DebugEndpoint) -> None:
    """Refuse a breakpoint of which the program says that it has no such file.

    Raises:
        UserError: It says so.
    """
    if view.get("verified", True) or "does not exist" not in str(view.get("message", "")):
        return
    roots = ", ".join(f"{m.local_root} is {m.remote_root}" for m in endpoint.path_mappings) or "none"
    raise UserError(f"The program has no file {path}", f"Check the path mappings: {roots}.")


def _base(path: str) -> str:
    return PurePosixPath(path.replace("\\", "/")).name
