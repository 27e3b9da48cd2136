"""Inspecting a running program in one command: at stops, by logged values, and line by line."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from workflows.debugger.frames import Frame
from workflows.debugger.inspect_stop import (
    TRIGGER_DONE,
    Inspection,
    NotReached,
    Trigger,
    check_still_reachable,
    read_stop,
)
from workflows.debugger.locations import ALWAYS, Condition
from workflows.debugger.places import Place
from workflows.debugger.sessions import ATTACH_TIMEOUT, EVALUATION_LIMIT, DebugSession, Happening, Stop, model
from workflows.errors import UserError
from workflows.models import DebugEndpoint

#: Stands for the number of a breakpoint if no place is named; real numbers begin at 1.
_ANYWHERE = 0
#: Seconds after which a step counts as not coming back.
_STEP_SECONDS = 10.0

_NOT_REACHED_MESSAGES = NotReached()

Report = Callable[[str, dict[str, Any]], None]
"""Called with ``stop``, ``step`` or ``log`` and the object to show, as it happens."""


@dataclass(frozen=True)
class InspectOptions:
    """The options of an inspection.

    Attributes:
        condition: When a breakpoint stops.
        expressions: Evaluated at each stop, in this order.
        times: How often to stop, or log, at each place.
        log: An expression whose value is logged, without a stop; empty to stop.
        steps: How many lines to step after a stop.
        into: Whether to step into calls.
        every_frame: Whether the variables of every frame of the user's code are read.
        depth: How many levels of containers are opened.
        sets: Names and the expressions for their new values.
        all_code: Whether libraries are included.
        all_locals: Whether modules, functions and classes count as variables of a module's frame.
        raised: The type of exceptions to stop at where they are raised; empty for any, None for none.
        timeout: Seconds, each, for a stop to come, an expression, and the trigger's end.
    """

    condition: Condition = ALWAYS
    expressions: tuple[str, ...] = ()
    times: int = 1
    log: str = ""
    steps: int = 0
    into: bool = False
    every_frame: bool = False
    depth: int = 0
    sets: tuple[tuple[str, str], ...] = ()
    all_code: bool = False
    all_locals: bool = False
    raised: str | None = None
    timeout: float = 60.0


@dataclass
class InspectResult:
    """The result of an inspection.

    Attributes:
        stops: In order.
        logged: Values, in order: ``at``, ``place``, ``count``, ``value``.
        missed: Places that were not reached.
        result: What the trigger returned.
    """

    stops: list[Inspection] = field(default_factory=list)
    logged: list[dict[str, Any]] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    result: Any = None

    def as_json(self) -> dict[str, Any]:
        """The part that ``--json`` shows: the first stop, and all stops if there are more."""
        empty: dict[str, Any] = {"stopped": None, "stack": [], "locals": {}, "values": {}}
        told = self.stops[0].as_json() if self.stops else empty
        if len(self.stops) > 1:
            told["stops"] = [stop.as_json() for stop in self.stops]
        if self.logged:
            told["logged_values"] = self.logged
        if self.missed:
            told["not_reached"] = self.missed
        return told


def inspect_places(
    endpoint: DebugEndpoint,
    places: Sequence[Place],
    wanted: InspectOptions,
    *,
    report: Report,
    is_own: Callable[[Frame], bool],
    trigger: Callable[[], Any] | None = None,
    summarize: Callable[[Any], tuple[str, Sequence[str]]] = lambda value: (str(value), ()),
    messages: NotReached = _NOT_REACHED_MESSAGES,
    attach_timeout: float = ATTACH_TIMEOUT,
    wait_for_ranks: Callable[[], None] = lambda: None,
) -> InspectResult:
    """Inspect a program, and always let it continue.

    Args:
        endpoint: The program's address for debuggers, and its path mappings.
        places: Where to stop; none to stop at exceptions, or else where the code calls ``breakpoint()``.
        wanted: What to do there.
        report: Called with what happens, as it happens.
        is_own: Whether a frame is of the user's code.
        trigger: As of :func:`~workflows.debugger.inspect_stop.inspect_stop`, like the next three.
        summarize: Returns a summary of the trigger's result.
        messages: The error where no place is reached.
        attach_timeout: Seconds for connecting and attaching.
        wait_for_ranks: Called at each stop once it has been read, before the program goes on.

    Raises:
        UserError: No place is reached; a condition raises; an expression does not end; as of
            :class:`~workflows.debugger.sessions.DebugSession`. What the trigger raises passes through.
    """
    most = wanted.times if wanted.log else 0
    breakpoints = [place.breakpoint(endpoint.path_mappings, wanted.condition, wanted.log, most) for place in places]
    filters = ("raised",) if wanted.raised == "" else ()
    # Own code matters for steps and exceptions only; a breakpoint in a library stops like any other.
    mine = not wanted.all_code and (wanted.raised is not None or (wanted.steps > 0 and all(map(_is_own, places))))
    with DebugSession(
        endpoint,
        breakpoints=breakpoints,
        filters=filters,
        types=(wanted.raised,) if wanted.raised else (),
        just_my_code=mine,
        timeout=attach_timeout,
        # So that a slow evaluation is reported before the inspection's own timeout.
        limit=min(EVALUATION_LIMIT, wanted.timeout / 2),
    ) as session:
        session.everything = wanted.all_locals
        numbers = {placed.number: place for placed, place in zip(session.breakpoints, places, strict=True)}
        running = Trigger(trigger, session) if trigger else None
        inspector = _Inspector(session, numbers, wanted, report, is_own, wait_for_ranks)
        try:
            inspector.run(running, summarize, messages)
        finally:
            session.release()
        if running is not None:
            inspector.found.result = running.result(wanted.timeout)
            # Values that it logged may arrive only now.
            session.settle()
            inspector.take_logged()
    return inspector.found


def _is_own(place: Place) -> bool:
    return place.source is not None and not {"site-packages", "dist-packages"} & set(place.source.parts)


class _Inspector:
    """An inspection in progress."""

    def __init__(
        self,
        session: DebugSession,
        places: Mapping[int, Place],
        wanted: InspectOptions,
        report: Report,
        is_own: Callable[[Frame], bool],
        wait_for_ranks: Callable[[], None],
    ) -> None:
        self._session, self._places, self._wanted = session, places, wanted
        self._report, self._is_own_frame, self._wait_for_ranks = report, is_own, wait_for_ranks
        self._left = dict.fromkeys([*places, *([] if places else [_ANYWHERE])], wanted.times)
        self._counts: dict[int, int] = {}
        self._exception = ""
        self.found = InspectResult()

    @property
    def _description(self) -> str:
        names = [place.text for place in self._places.values()]
        if names or self._wanted.raised is not None:
            return " and ".join(names) or self._wanted.raised or "an exception"
        return "breakpoint()"

    def run(
        self, running: Trigger | None, summarize: Callable[[Any], tuple[str, Sequence[str]]], messages: NotReached
    ) -> None:
        """Inspect until each place has been reached as often as requested, or no more stops can come."""
        deadline = time.monotonic() + self._wanted.timeout
        while self._left:
            happening = self._session.wait(max(0.0, deadline - time.monotonic()))
            if happening is None:
                if not self._has_seen:
                    raise UserError(*messages.late(self._description, self._wanted.timeout))
                break
            if happening.kind == TRIGGER_DONE and running is not None:
                self._session.settle()
                self.take_logged()
                if not self._has_seen:
                    summary, lines = summarize(running.result(0.0))
                    raise UserError(*messages.ended(self._description, " ".join(summary.split())[:200]), details=lines)
                break
            if happening.kind in (model.ENDED, model.LOST) and self._has_seen:
                break
            check_still_reachable(self._session, happening, self._description)
            if happening.kind == model.LOGGED:
                self._log(happening)
            elif happening.stop is not None and self._on_stop(happening.stop):
                deadline = time.monotonic() + self._wanted.timeout
        reached = {number for number, left in self._left.items() if left < self._wanted.times}
        self.found.missed = [
            place.text for number, place in self._places.items() if number in self._left and number not in reached
        ]

    @property
    def _has_seen(self) -> bool:
        return bool(self.found.stops or self.found.logged)

    # Values

    def take_logged(self) -> None:
        """Collect the values that have been logged so far."""
        while (happening := self._session.wait(0.0)) is not None and happening.kind not in (model.ENDED, model.LOST):
            if happening.kind == model.CONDITION:
                check_still_reachable(self._session, happening, self._description)
            if happening.kind == model.LOGGED:
                self._log(happening)

    def _log(self, happening: Happening) -> None:
        number = happening.breakpoint or 0
        if number not in self._left:
            return
        count = self._counts[number] = self._counts.get(number, 0) + 1
        told: dict[str, Any] = {
            "at": datetime.fromtimestamp(happening.at).isoformat(timespec="milliseconds"),
            "place": self._places[number].text,
            "count": count,
            "value": happening.text,
        }
        told.update({"error": True} if happening.is_error else {})
        told.update({} if happening.child is None else {"child": happening.child})
        told.update({"dropped": happening.dropped} if happening.dropped else {})
        self.found.logged.append(told)
        self._report("log", told)
        self._count_stop(number)

    def _count_stop(self, number: int) -> None:
        self._left[number] -= 1
        if not self._left[number]:
            del self._left[number]
            if number == _ANYWHERE:
                self._session.set_exceptions()
            else:
                self._session.remove(number)

    # Stops

    def _on_stop(self, stop: Stop) -> bool:
        """Read a stop and let the program continue. Returns whether the stop was one of those requested."""
        number = stop.breakpoint
        if number is None and _ANYWHERE in self._left and self._is_meant(stop):
            number = _ANYWHERE
        if number not in self._left:
            # A child may end at any moment, which ends only its own session.
            with contextlib.nullcontext() if stop.child is None else contextlib.suppress(UserError):
                self._session.go_on(stop)
            return False
        assert number is not None
        session, wanted = self._session, self._wanted
        choose = self._is_own_frame if number == _ANYWHERE else lambda frame: True
        found = read_stop(session, stop, wanted.expressions, wanted.timeout, choose)
        found = replace(found, **self._more(stop, found))
        self._count_stop(number)
        self._wait_for_ranks()
        if wanted.steps:
            self._report("stop", found.as_json())
            stepped = self._step(stop, found)
            self.found.stops.append(replace(found, steps=stepped))
        else:
            self.found.stops.append(found)
            if self._left:
                session.go_on(stop)
            else:
                session.release()
            # Only now, since showing it may take long.
            self._report("stop", found.as_json())
        return True

    def _is_meant(self, stop: Stop) -> bool:
        """Whether a stop at none of the places is one of those requested.

        The debugger stops at an exception again in each frame that it leaves.
        """
        if self._wanted.raised is None or stop.exception is None:
            return self._wanted.raised is None
        told = self._session.evaluate(stop, "id(__exception__[1])", timeout=self._wanted.timeout)
        if told.isdigit() and told == self._exception:
            return False
        self._exception = told
        return True

    def _more(self, stop: Stop, found: Inspection) -> dict[str, Any]:
        """Read what was requested beyond the one frame, then set variables."""
        session, wanted, more = self._session, self._wanted, dict[str, Any]()
        if wanted.every_frame:
            frames = [
                frame for frame in found.stack if wanted.all_code or self._is_own_frame(frame) or frame is found.stopped
            ]
            more["frames"] = tuple((frame, session.locals(stop, frame)) for frame in frames)
        if wanted.depth:
            more["variables"] = tuple(session.variables(stop, found.stopped, depth=wanted.depth))
        if wanted.sets:
            more["changed"] = {
                name: session.set_variable(stop, name, text, found.stopped, wanted.timeout)
                for name, text in wanted.sets
            }
        return more

    def _step(self, stop: Stop, found: Inspection) -> tuple[dict[str, Any], ...]:
        """Step through the next lines; returns each with the variables that have changed."""
        session, steps = self._session, list[dict[str, Any]]()
        before = {(found.stopped.file, found.stopped.function): {**found.locals, **(found.changed or {})}}
        others: list[Stop] = []
        here: Stop | None = stop
        while here is not None and len(steps) < self._wanted.steps:
            session.step(here, "into" if self._wanted.into else "over")
            here = self._next_stop(here, others)
            if here is None:
                break
            frame = here.frame
            now = session.locals(here)
            known = before.get((frame.file, frame.function))
            changed = {name: value for name, value in now.items() if known is None or known.get(name) != value}
            before[frame.file, frame.function] = now
            steps.append({**frame.as_json(), "changed": changed})
            self._report("step", steps[-1])
        if here is not None:
            session.go_on(here)
        for other in others:
            self._on_stop(other)
        return tuple(steps)

    def _next_stop(self, stop: Stop, others: list[Stop]) -> Stop | None:
        """The stop that a step has led to; None if the program has continued or ended."""
        deadline = time.monotonic() + _STEP_SECONDS
        kept = []
        try:
            while (happening := self._session.wait(max(0.0, deadline - time.monotonic()))) is not None:
                if happening.kind in (TRIGGER_DONE, model.ENDED, model.LOST):
                    kept.append(happening)
                    return None
                if happening.stop is not None and happening.child == stop.child:
                    return happening.stop
                if happening.stop is not None:
                    others.append(happening.stop)
        finally:
            for happening in kept:
                if happening.kind == TRIGGER_DONE:
                    self._session.post(happening)
        return None
