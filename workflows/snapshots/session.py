"""One editor's session with a snapshot: the responses to requests of the Debug Adapter Protocol.

Message formats: https://microsoft.github.io/debug-adapter-protocol/specification. It uses no sockets: messages to send
are returned.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .arrays import Missing
from .expression import Evaluator, Refused
from .model import Raised, Snapshot
from .sources import Sources, mappings_from, recorded_text
from .variables import VariableNumbers, displayable, list_stacks

Json = dict[str, Any]

#: The error for requests that would continue or change the program.
NOTHING_RUNS = (
    "This is a snapshot of a failure: nothing of it runs any more, so there is nothing to step or to continue."
)
#: Requests that would continue or change the program.
_MOVES = frozenset(
    (
        *("continue", "next", "stepIn", "stepOut", "stepBack", "reverseContinue", "goto", "pause", "restart"),
        *("restartFrame", "setVariable", "setExpression", "stepInTargets", "gotoTargets", "terminateThreads"),
    )
)
_CAPABILITIES = {
    "supportsConfigurationDoneRequest": True,
    "supportsEvaluateForHovers": True,
    "supportsExceptionInfoRequest": True,
    # If VS Code fetches the first frame alone, it may fetch all meanwhile, and then shows no exception at its line.
    "supportsDelayedStackTraceLoading": False,
    "supportsValueFormattingOptions": False,
    "supportsSetVariable": False,
    "supportsTerminateRequest": False,
    "supportTerminateDebuggee": False,
}
#: Seconds until the stop, from the client's configuration and from its first request for threads. VS Code requests them
#: once it is configured; if the stop comes meanwhile, it fetches the stack twice and shows no exception at its line.
STOP_LATER, STOP_SOON = 0.5, 0.1
#: Depth of nested inner exceptions that are sent.
_MOST_INNER = 20


class Failed(Exception):
    """A request that is refused; the text is for the user."""


class Session:
    """The session of one client.

    Args:
        snapshot: The snapshot.
        sources: Finds its files on this machine.

    Attributes:
        attached: Whether the client has attached: the server ends with its last attached client.
        over: Whether the client has disconnected.
        stops_at: When to send the event ``stopped``, by the monotonic clock; None if it was sent, or is not due yet.
    """

    def __init__(self, snapshot: Snapshot, sources: Sources) -> None:
        self.attached = self.over = False
        self.stops_at: float | None = None
        self._snapshot, self._sources = snapshot, sources
        self._opened = VariableNumbers(snapshot)
        self._stacks = list_stacks(snapshot)
        #: Places of the frames whose recorded lines are sent as sources, by number.
        self._recorded: list[int] = []
        self._stack_of = {place: one.frames for one in reversed(self._stacks) for place in one.frames}
        self._lines_from = self._columns_from = 1
        self._pending: Json | None = None
        self._number = 0

    def take(self, message: Mapping[str, Any]) -> Iterator[Json]:
        """Handle a message; yields the messages to send."""
        if message.get("type") != "request":
            return
        command, arguments = str(message.get("command")), message.get("arguments")
        given = arguments if isinstance(arguments, dict) else {}
        try:
            if command in _MOVES:
                raise Failed(NOTHING_RUNS)
            answer: Callable[[Json], Json | None] | None = getattr(self, f"_on_{command}", None)
            if answer is None:
                raise Failed(f"A snapshot has no answer to {command[:100]}.")
            body = answer(given)
        except Failed as refused:
            # With `showUser`, VS Code shows the error where the button was pressed.
            error = {"id": 1, "format": str(refused).replace("{", "(").replace("}", ")"), "showUser": command in _MOVES}
            yield self._response(message, {"error": error}, str(refused))
            return
        if command in ("attach", "launch"):
            # Answered once the client is configured, like debugpy.
            self._pending = dict(message)
            yield self._event("initialized", {})
            return
        yield self._response(message, body)
        if command == "configurationDone" and self._pending is not None:
            yield self._response(self._pending, None)
            self._pending = None
            self.stops_at = time.monotonic() + STOP_LATER
        if command == "threads" and self.stops_at is not None:
            self.stops_at = min(self.stops_at, time.monotonic() + STOP_SOON)

    # The session

    def _on_initialize(self, given: Json) -> Json:
        self._lines_from = 0 if given.get("linesStartAt1") is False else 1
        self._columns_from = 0 if given.get("columnsStartAt1") is False else 1
        return dict(_CAPABILITIES)

    def _on_attach(self, given: Json) -> None:
        self.attached = True
        self._sources.prefer(mappings_from(given.get("pathMappings")))

    _on_launch = _on_attach

    def _on_configurationDone(self, given: Json) -> None:
        return None

    def _on_disconnect(self, given: Json) -> None:
        self.over = True

    _on_terminate = _on_disconnect

    def _on_setBreakpoints(self, given: Json) -> Json:
        wanted = given.get("breakpoints")
        many = len(wanted) if isinstance(wanted, list) else 0
        return {"breakpoints": [{"verified": False, "message": "a snapshot runs no line"}] * many}

    def _on_setFunctionBreakpoints(self, given: Json) -> Json:
        return self._on_setBreakpoints(given)

    def _on_setExceptionBreakpoints(self, given: Json) -> Json:
        return {}

    # What there is

    def _on_threads(self, given: Json) -> Json:
        return {
            "threads": [{"id": number, "name": displayable(one.name)} for number, one in enumerate(self._stacks, 1)]
        }

    def _on_stackTrace(self, given: Json) -> Json:
        number = _number(given, "threadId")
        if not 1 <= number <= len(self._stacks):
            raise Failed("There is no such thread in the snapshot.")
        places = self._stacks[number - 1].frames
        start, levels = _number(given, "startFrame"), _number(given, "levels")
        wanted = places[start : start + levels] if levels else places[start:]
        return {"stackFrames": [self._frame(place) for place in wanted], "totalFrames": len(places)}

    def _frame(self, place: int) -> Json:
        frame = self._snapshot.frames[place]
        name = displayable(frame.file.replace("\\", "/").rpartition("/")[2] or frame.file)
        source: Json = {"name": name, "path": self._sources.path(frame)}
        if not self._sources.is_same(frame):
            if place not in self._recorded:
                self._recorded.append(place)
            source |= {"sourceReference": self._recorded.index(place) + 1, "origin": "as recorded in the snapshot"}
            # With a local path, the editor would show a file of that name on this machine.
            source["path"] = frame.file
        if not frame.own:
            # The editor selects the innermost frame without this hint.
            source["presentationHint"] = "deemphasize"
        return {
            "id": place + 1,
            "name": displayable(frame.function),
            "line": frame.line - 1 + self._lines_from,
            "column": self._columns_from,
            "source": source,
            **({} if frame.own else {"presentationHint": "subtle"}),
        }

    def _on_scopes(self, given: Json) -> Json:
        place = self._place(given)
        found: list[Json] = [
            {
                "name": "Locals",
                "presentationHint": "locals",
                "variablesReference": self._opened.of_frame(place),
                "namedVariables": len(self._snapshot.frames[place].locals),
                "expensive": False,
            }
        ]
        stack = next((one for one in self._stacks if one.raised is not None and place in one.frames), None)
        if stack is not None and stack.raised is not None:
            number = next(at for at, one in enumerate(self._snapshot.exceptions) if one is stack.raised)
            found.append(
                {"name": "Exception", "variablesReference": self._opened.of_exception(number), "expensive": False}
            )
        return {"scopes": found}

    def _on_variables(self, given: Json) -> Json:
        which = given.get("filter")
        try:
            listed = self._opened.answer(
                _number(given, "variablesReference"),
                _number(given, "start"),
                _number(given, "count"),
                which if which in ("named", "indexed") else "",
            )
        except LookupError:
            raise Failed("There is no such variable in the snapshot.") from None
        return {"variables": listed}

    def _on_evaluate(self, given: Json) -> Json:
        if "frameId" in given:
            place = self._place(given)
        elif self._stacks[0].frames:
            place = self._stacks[0].frames[0]
        else:
            raise Failed("The snapshot has no frame to look it up in.")
        evaluator = Evaluator(self._snapshot, self._snapshot.frames[place], self._stack_of.get(place, ()))
        try:
            found = self._opened.shown(evaluator.value(str(given.get("expression", ""))))
        except Missing as error:
            raise Failed(displayable(str(error))) from None
        except Refused as error:
            raise Failed(displayable(f"{error.problem} {error.remedy}")) from None
        found["result"] = found.pop("value")
        return found

    def _on_exceptionInfo(self, given: Json) -> Json:
        number = _number(given, "threadId") or 1
        raised = self._stacks[number - 1].raised if number <= len(self._stacks) else None
        if raised is None:
            raise Failed("This thread has not raised.")
        return {
            "exceptionId": displayable(raised.name),
            "description": displayable("\n".join([raised.text, *raised.notes])),
            "breakMode": "unhandled",
            "details": self._details(raised, 0),
        }

    def _details(self, raised: Raised, depth: int) -> Json:
        snapshot = self._snapshot
        inner = raised.cause if raised.cause is not None else None if raised.suppressed else raised.context
        lines = []
        for place in snapshot.stack(raised)[:100][::-1]:
            frame = snapshot.frames[place]
            lines.append(f'  File "{self._sources.path(frame)}", line {frame.line}, in {frame.function}')
            lines += [
                f"    {frame.lines[at].strip()}" for at in [frame.line - frame.first] if 0 <= at < len(frame.lines)
            ]
        found: Json = {
            "message": displayable("\n".join([raised.text, *raised.notes])),
            "typeName": displayable(raised.name),
            "fullTypeName": displayable(f"{raised.module}.{raised.type}" if raised.module else raised.type),
            "stackTrace": displayable("\n".join(lines)),
        }
        if inner is not None and depth < _MOST_INNER:
            found["innerException"] = [self._details(snapshot.exceptions[inner], depth + 1)]
        return found

    def _on_source(self, given: Json) -> Json:
        source = given.get("source")
        number = _number(given, "sourceReference") or _number(
            source if isinstance(source, dict) else {}, "sourceReference"
        )
        if not 1 <= number <= len(self._recorded):
            raise Failed("There is no such source in the snapshot.")
        frame = self._snapshot.frames[self._recorded[number - 1]]
        return {"content": recorded_text(self._snapshot.frames, frame), "mimeType": "text/x-python"}

    # Parts

    def _place(self, given: Json) -> int:
        number = _number(given, "frameId")
        if not 1 <= number <= len(self._snapshot.frames):
            raise Failed("There is no such frame in the snapshot.")
        return number - 1

    def stopped(self) -> Json:
        """The event ``stopped``, due at ``stops_at``."""
        self.stops_at = None
        raised = self._snapshot.raised
        body = {
            "reason": "exception",
            "threadId": 1,
            "allThreadsStopped": True,
            "description": displayable(f"Snapshot of {raised.name}"),
            "text": displayable(raised.line),
        }
        return self._event("stopped", body)

    def ended(self) -> Json:
        """The event ``terminated``."""
        return self._event("terminated", {})

    def _event(self, name: str, body: Json) -> Json:
        self._number += 1
        return {"seq": self._number, "type": "event", "event": name, "body": body}

    def _response(self, message: Mapping[str, Any], body: Json | None, refused: str = "") -> Json:
        self._number += 1
        found: Json = {
            "seq": self._number,
            "type": "response",
            "request_seq": message.get("seq"),
            "command": message.get("command"),
            "success": not refused,
        }
        if refused:
            found["message"] = refused
        if body is not None:
            found["body"] = body
        return found


def _number(given: Mapping[str, Any], name: str) -> int:
    """A number in a request; 0 if it is missing or invalid."""
    found = given.get(name)
    return found if type(found) is int and 0 <= found < 1 << 53 else 0
