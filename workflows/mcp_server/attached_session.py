"""One debug session of an agent: what has happened since its last call, and how the session ends."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from ..debugger.sessions import Breakpoint, DebugSession, Function, Happening, Stop
from ..debugger.sessions import model as kinds
from ..errors import UserError
from ..models import DebugEndpoint
from ..runs import agent_sessions
from . import tools

if TYPE_CHECKING:
    from .state import State

#: Seconds between two checks whether a user wants to take over.
_LOOK_SECONDS = 0.2
#: Seconds after which a session that a user wants to take over ends without a stop.
_NEXT_STOP_SECONDS = 5.0
#: Outputs and values that are kept until the agent's next call, and characters of each.
_MOST_KEPT, _MOST_TEXT = 500, 2000
#: Characters of all of them in one answer, and of the JSON around each.
_MOST_TOLD, _ENTRY = 40_000, 60
#: Seconds that the program may take to send its logged values; the kind of the happening that follows them.
_FLUSH_SECONDS, _FLUSHED = 1.0, "asked"
#: Evaluated in a program that holds at an exception, so that it holds again once the debugger has left.
_KEEP = "__import__('sys').modules['azureml_debuggee.postmortem'].hold_again()"


@dataclass(frozen=True)
class Target:
    """What a session debugs.

    Attributes:
        story: ``deploy``, ``pipeline`` or ``experiment``.
        run: The run's number; None for a service.
        run_id: Its id; empty for a service.
        step: The step; an experiment's or the service's name.
        rank: The rank; None if there is one process.
        endpoint: The address for debuggers.
        holds_at: The exception at which it holds; empty if it does not.
    """

    story: str
    run: int | None
    run_id: str
    step: str
    rank: int | None
    endpoint: DebugEndpoint
    holds_at: str = ""

    @property
    def what(self) -> str:
        """Its name in messages."""
        rank = f", rank {self.rank}" if self.rank is not None else ""
        return f"{self.step}{rank}" + (f" of the run {self.run}" if self.run is not None else "")

    @property
    def take_over(self) -> str:
        """The command with which a user takes it over."""
        return agent_sessions.take_over_command(self.story, self.run)

    def as_json(self) -> dict[str, Any]:
        """The JSON object for the agent."""
        run = {} if self.run is None else {"run": self.run, "run_id": self.run_id}
        return {"story": self.story, **run, "step": self.step, "rank": self.rank}


class AttachedSession:
    """A session that lasts until the agent, a user or the program's end ends it.

    Args:
        state: The server's state.
        place: What to attach to.
        breakpoints: Set before the program continues.
        filters: debugpy's filters of exceptions.
        types: Exceptions that stop it where they are raised.
        all_code: Whether libraries are stepped into.
        timeout: Seconds for attaching.

    Raises:
        UserError: As :class:`~workflows.debugger.sessions.DebugSession`.
    """

    def __init__(
        self,
        state: State,
        place: Target,
        breakpoints: Sequence[Breakpoint | Function],
        filters: Sequence[str],
        types: Sequence[str],
        all_code: bool,
        timeout: float,
    ) -> None:
        self.place = place
        self._state = state
        self._changed = threading.Condition()
        self._kept: deque[Happening] = deque(maxlen=_MOST_KEPT)
        self._dropped = 0
        #: The latest stop, until the program continues.
        self._stop: Stop | None = None
        self._goes_on_since = time.monotonic()
        #: Why the session is over, and what the agent should do; None while it is not over.
        self._over: tuple[str, str] | None = None
        self._ending = threading.Lock()
        self._person_asked_at = 0.0
        #: Events to set once all happenings so far have been taken.
        self._flush_waiters: list[threading.Event] = []
        #: Why the session could not begin; None if it could.
        self.refusal: UserError | None = None
        self._mark: agent_sessions.AgentSession | None = None
        self._debug: DebugSession | None = None
        wanted: dict[str, Any] = {
            "breakpoints": breakpoints,
            "filters": filters,
            "types": types,
            "just_my_code": not all_code,
            "timeout": timeout,
            "agent": f"An agent ({state.client}) is attached; to take over: {place.take_over}",
        }
        # A program whose C code holds the GIL accepts no debugger, and no call must wait for that.
        threading.Thread(target=self._run, args=(wanted,), name="agent-session", daemon=True).start()

    def _run(self, wanted: dict[str, Any]) -> None:
        place = self.place
        try:
            session = DebugSession(place.endpoint, **wanted)
        except UserError as error:
            self.refusal = error
            self._mark_over(error.problem, error.remedy)
            return
        try:
            with self._ending:
                if self._over is None:
                    self._mark = self._announce()
                    with self._changed:
                        self._debug = session
                        self._goes_on_since = time.monotonic()
                        self._changed.notify_all()
        except (UserError, OSError) as error:
            self._mark_over(f"it could not be noted that it is there: {error}", "Check the disk, then attach again.")
        if self._debug is None:
            with contextlib.suppress(UserError):
                session.close()
            return
        self._state.log(f"{self._state.client} is attached to {place.what}; to take over: {place.take_over}")
        self._listen(session)

    def _announce(self) -> agent_sessions.AgentSession:
        place, endpoint = self.place, self.place.endpoint
        who = (self._state.client, place.story, place.run_id, place.step, place.rank)
        return agent_sessions.announce(self._state.project, *who, endpoint.host, endpoint.port)

    def _mark_over(self, why: str, then: str) -> None:
        with self._changed:
            if self._over is None:
                self._over = (why, then)
                self._stop = None
            self._changed.notify_all()

    @property
    def debug(self) -> DebugSession:
        """The session of the debugger.

        Raises:
            UserError: It has not begun yet.
        """
        if self._debug is None:
            raise UserError(f"The session with {self.place.what} is still being begun.", "Wait for it with wait.")
        return self._debug

    @property
    def is_attached(self) -> bool:
        """Whether the debugger is attached."""
        return self._debug is not None

    @property
    def is_over(self) -> bool:
        """Whether the session has ended."""
        return self._over is not None

    @property
    def is_stopped(self) -> bool:
        """Whether the program, or a process of it, is stopped."""
        return self._stop is not None

    def summary(self) -> dict[str, Any]:
        """The JSON object that ``status`` shows."""
        word = "over" if self.is_over else "stopped" if self.is_stopped else "running"
        if not self.is_over and not self.is_attached:
            word = "attaching"
        return {**self.place.as_json(), "state": word}

    # What happens

    def _listen(self, session: DebugSession) -> None:
        with contextlib.suppress(Exception):
            while not self.is_over:
                happening = session.wait(_LOOK_SECONDS)
                if happening is not None:
                    self._take(happening)
                self._check_for_person()
            return
        if not self.is_over:
            self.end("its server could not follow it any more", "Attach again.")

    def _take(self, happening: Happening) -> None:
        with self._changed:
            if happening.kind == _FLUSHED:
                for flushed in self._flush_waiters:
                    flushed.set()
                self._flush_waiters.clear()
            elif happening.kind == kinds.STOPPED:
                self._stop = happening.stop
            elif happening.kind == kinds.CONTINUED:
                # The stop may be in another process than the one that continued.
                self._stop = self._stop if self._stop in self.debug.stops else None
            elif happening.kind not in (kinds.ENDED, kinds.LOST):
                self._dropped += happening.dropped + (len(self._kept) == _MOST_KEPT)
                self._kept.append(happening)
            self._changed.notify_all()
        if happening.kind in (kinds.ENDED, kinds.LOST):
            why = f" ({happening.text})" if happening.text else ""
            reason = "the program has ended" if happening.kind == kinds.ENDED else f"the program is gone{why}"
            self.end(
                reason, "See logs, and status for what goes on; a step may start another script: attach again then."
            )

    def _check_for_person(self) -> None:
        if self.is_over or self._mark is None or not agent_sessions.is_takeover_requested(self._mark):
            return
        now = time.monotonic()
        self._person_asked_at = self._person_asked_at or now
        if self._stop is None and now - self._person_asked_at < _NEXT_STOP_SECONDS:
            return
        # So that the user finds it where the agent had stopped it.
        self.keep_holding()
        self.end("a person has taken over", "Leave the program to them; status tells when nobody is attached any more.")

    def keep_holding(self) -> bool:
        """Have a program that holds at an exception hold again after the session; returns whether it will."""
        stop = self._stop
        if stop is None or stop.reason != "exception" or not self.place.holds_at:
            return False
        try:
            return self.debug.evaluate(stop, _KEEP).isdigit()
        except UserError:
            return False

    def end(self, why: str, then: str = "") -> None:
        """End the session; the program continues."""
        with self._ending:
            if self._over is not None:
                return
            self._mark_over(why, then)
            if self._debug is not None:
                with contextlib.suppress(UserError):
                    self._debug.close()
            if self._mark is not None:
                agent_sessions.withdraw(self._mark)
        self._state.log(f"the session with {self.place.what} has ended: {why}")

    def wait_until(self, deadline: float, ready: Callable[[], bool]) -> bool:
        """Wait until ``ready``, the session's end, or a monotonic time; returns False if the time came first."""
        with self._changed:
            while not ready() and not self.is_over:
                left = deadline - time.monotonic()
                if left <= 0 or tools.is_abandoned():
                    return False
                self._changed.wait(min(left, 0.5))
            return True

    # Calls of the agent

    def check(self) -> None:
        """Check that the session is not over.

        Raises:
            UserError: It is over, with the reason.
        """
        if self._over is not None:
            why, then = self._over
            raise UserError(f"The session with {self.place.what} is over: {why}.", then or "Begin another with attach.")

    def stopped(self, process: int | None = None) -> Stop:
        """The current stop.

        Args:
            process: The process id of a child; None for the latest stop of any process.

        Raises:
            UserError: The program is running, or the session is over.
        """
        self.check()
        if process is not None:
            found = next((one for one in self.debug.stops if one.child == process), None)
        else:
            found = self._stop or next(iter(self.debug.stops), None)
        if found is None:
            raise UserError(
                f"{f'Child process {process} of ' if process is not None else ''}{self.place.what} is running.",
                "Wait for a stop with wait, or stop it with pause.",
            )
        return found

    def resume(self, how: str, process: int | None = None) -> None:
        """Let stopped processes run: ``continue`` all of them, or step one ``over``, ``into`` or ``out``.

        Raises:
            UserError: Nothing is stopped.
        """
        stop = self.stopped(process)
        with self._changed:
            self._stop = None
        self._goes_on_since = time.monotonic()
        try:
            if how == "continue":
                for one in [stop] if process is not None else self.debug.stops:
                    self.debug.go_on(one)
            else:
                self.debug.step(stop, how)
        except UserError:
            self.wait_until(time.monotonic() + 1.0, lambda: False)
            self.check()
            raise

    def flush_logged(self) -> None:
        """Wait for the values that were logged up to now: the program collects them before it sends them."""
        if self._debug is None or self.is_over or not any(one.breakpoint.log for one in self._debug.breakpoints):
            return
        with contextlib.suppress(UserError):
            self._debug.settle(_FLUSH_SECONDS)
            flushed = threading.Event()
            with self._changed:
                self._flush_waiters.append(flushed)
            # It is queued behind them.
            self._debug.post(Happening(_FLUSHED))
            flushed.wait(_FLUSH_SECONDS)

    def report_news(self) -> dict[str, Any]:
        """What has happened since the last call, and the current state."""
        with self._changed:
            kept, dropped = list(self._kept), self._dropped
            if not tools.is_abandoned():
                self._kept.clear()
                self._dropped = 0
            stop, over = self._stop, self._over
        news: dict[str, Any] = {**self.place.as_json()}
        if over is not None:
            news |= {"state": "over", "why": over[0], "then": over[1]}
        elif not self.is_attached:
            waits = "the program to let the debugger in, which code that holds the GIL delays; call wait"
            news |= {"state": "attaching", "waits_for": waits}
        elif stop is not None:
            news |= {"state": "stopped", "stopped": self.stop_json(stop)}
        else:
            seconds = time.monotonic() - self._goes_on_since
            news |= {"state": "running", "seconds": round(seconds, 1), "waits_for": self._waits_for(seconds)}
        others = [self.stop_json(one) for one in self.debug.stops if one != stop] if self._debug is not None else []
        if others and over is None:
            news["also_stopped"] = others
        shown: list[dict[str, Any]] = []
        size = 0
        for one in reversed(kept):
            shown.insert(0, self._happening(one))
            size += len(shown[0]["text"]) + _ENTRY
            if size > _MOST_TOLD:
                break
        dropped += len(kept) - len(shown)
        if shown:
            news["happened"] = shown
        if dropped:
            news["left_out"] = f"{dropped} earlier outputs, which came faster than they were asked for"
        return news

    def _waits_for(self, seconds: float) -> str:
        there = [one for one in self.debug.breakpoints if not one.breakpoint.log]
        places = [f"{PurePath(one.breakpoint.file).name}:{one.line}" for one in there]
        what = f"a stop at {', '.join(places[:5])}{' and others' if places[5:] else ''}" if places else "a stop"
        if self._person_asked_at:
            what += "; a person wants to take over, which ends the session at its next stop"
        return f"{what}, or the end of the program, which has been running for {seconds:.0f} s; call wait, or pause"

    def stop_json(self, stop: Stop) -> dict[str, Any]:
        """The JSON object of a stop."""
        leave_out = self._state.secrets
        found: dict[str, Any] = {"reason": stop.reason, **stop.frame.as_json(), "thread": stop.thread}
        if stop.child is not None:
            found["process"] = stop.child
        if stop.breakpoint is not None:
            found["breakpoint"] = stop.breakpoint
        if stop.exception is not None:
            found["exception"] = {
                name: leave_out.mask_text(str(text))[:_MOST_TEXT] for name, text in stop.exception.items()
            }
        return found

    def _happening(self, one: Happening) -> dict[str, Any]:
        text = self._state.secrets.mask_text(one.text)
        found: dict[str, Any] = {"what": one.kind, "at": round(one.at, 3), "text": text[:_MOST_TEXT]}
        if one.breakpoint is not None:
            found["breakpoint"] = one.breakpoint
        if one.child is not None:
            found["process"] = one.child
        if one.is_error:
            found["raised"] = True
        return found
