"""What an agent can attach to, and the breakpoints that it asks for."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..debugger.locations import check_line, read_condition, resolve_source
from ..debugger.places import find_function
from ..debugger.readiness import current_state
from ..debugger.sessions import ATTACH_TIMEOUT, Breakpoint, Function, as_mapped
from ..errors import UserError
from ..runs import agent_sessions, attachable
from ..runs.record import RunRecord, StepRecord
from . import runs
from .attached_session import AttachedSession, Target
from .runs import DEPLOY
from .state import State

SECONDS = ATTACH_TIMEOUT
_LOOK_SECONDS = 0.1
#: debugpy's exception filters; all other names are types.
_FILTERS = ("raised", "uncaught", "userUnhandled")


@dataclass(frozen=True)
class AttachTarget(Target):
    """A target that can be attached to now.

    Attributes:
        holds: Whether it waits for a debugger before its first line.
    """

    holds: bool = False


def find_target(
    state: State, story: str | None, run: str | None, step: str | None, rank: int | None, deadline: float
) -> AttachTarget | dict[str, Any]:
    """Find a target to attach to; if there is none in time, the answer that says what is waited for.

    Raises:
        UserError: There is no such run, step or rank, or it cannot be debugged any more.
    """
    if story == DEPLOY:
        return _service(state, step, rank)
    chosen = runs.find_run(state, run, story)
    flow = runs.flow_of(state, chosen.kind)
    runs.step_of(chosen, step)
    while True:
        chosen = flow.refresh(chosen)
        only = runs.step_of(chosen, step)
        _check(chosen, only, rank)
        found = runs.list_attachable(state, chosen, only.name if only else None, rank)
        if found:
            return _of(found[0])
        if time.monotonic() >= deadline:
            break
        time.sleep(_LOOK_SECONDS)
    what = only.name if only is not None else "a step"
    if rank is not None:
        what += f", rank {rank},"
    waits = f"{what} of the run {chosen.number} to let a debugger in; call attach again"
    return {"state": "waiting", "waits_for": waits, "run": runs.run_json(state, chosen)}


def _of(one: attachable.Attachable) -> AttachTarget:
    return AttachTarget(
        one.run.kind,
        one.run.number,
        one.run.run_id,
        one.step.name,
        one.rank,
        one.endpoint,
        one.error_text,
        one.state == attachable.WAITING and not one.error_text,
    )


def _check(run: RunRecord, only: StepRecord | None, rank: int | None) -> None:
    """Check that a run can still be attached to.

    Raises:
        UserError: It is over, it is not debugged, or it has no such rank.
    """
    if run.foreign:
        raise UserError(
            f"The run {run.run_id} came here with a copy of its project; it belongs to the original.", "Attach there."
        )
    steps = [only] if only is not None else run.steps
    debugged = [one for one in steps if one.debugged]
    what = f"{only.name} of the run {run.run_id}" if only is not None else f"The run {run.run_id}"
    if run.final or all(one.final for one in steps):
        status = only.status if only is not None else run.status
        raise UserError(
            f"{what} is over: {status}.", "Start it again with start, or see what it has left: snapshot, logs"
        )
    if not debugged:
        raise UserError(f"{what} runs without a debugger.", "Start it again with start; stacks may be read.")
    if rank is not None and not any(rank in one.ports for one in debugged):
        ranks = ", ".join(map(str, debugged[0].ports))
        raise UserError(
            f"Rank {rank} of {debugged[0].name} is not debugged in this run; debugged: {ranks}.",
            f"Attach to one of these, or start it again with rank={rank} or rank=all.",
        )


def _service(state: State, step: str | None, rank: int | None) -> AttachTarget:
    if step is not None or rank:
        raise UserError("A service has neither steps nor ranks.", "Leave them out.")
    service = runs.present(state).stack_target()  # which also checks that it runs
    there = runs.present(state).running()
    assert there is not None
    holds = current_state(there.events) == "waiting"
    return AttachTarget(DEPLOY, None, "", there.name, None, service.endpoint, "", holds)


def explain_taken(state: State, place: Target, error: UserError) -> UserError:
    """The error for a failed attach; if another debugger is attached, it says whose that is."""
    if "attached to the program" not in error.problem:
        return error
    port = place.endpoint.port
    for name, one in state.sessions().items():
        if one.place.endpoint.port == port and one.is_attached and not one.is_over:
            return UserError(f"{place.what} is debugged in the session {name}.", f"Go on with {name}.")
    other = agent_sessions.session_at_port(state.project, port)
    if other is not None:
        return UserError(
            f"Another agent's session ({other.client}) is attached to {place.what}.",
            f"Leave it to that one, or ask the person: {place.take_over}",
        )
    return UserError(f"A person's editor is attached to {place.what}.", "Ask the person to disconnect it.")


# Where to stop --------------------------------------------------------------------------------------


def split_exceptions(exceptions: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split names of exceptions into debugpy's filters and types.

    Raises:
        UserError: One is neither.
    """
    for one in exceptions:
        if not one.replace(".", "").isidentifier():
            raise UserError(
                f"{one!r} is not a type of exception.", "Write it as ValueError, or as package.module.Error."
            )
    return [one for one in exceptions if one in _FILTERS], [one for one in exceptions if one not in _FILTERS]


def parse_breakpoint(state: State, place: Target, wanted: Mapping[str, Any]) -> Breakpoint | Function:
    """Parse a breakpoint of the agent's.

    Raises:
        UserError: There is no such file, no code on that line, or the condition is not valid.
    """
    if "condition" in wanted:
        _check_expression("condition", str(wanted["condition"]))
    condition = read_condition(wanted.get("condition"), str(wanted["hits"]) if "hits" in wanted else None)
    log, function = str(wanted.get("log", "")), str(wanted.get("function", ""))
    if log:
        if "condition" in wanted and not log.strip():
            raise UserError("A logpoint has an expression.", "Give it in `log`.")
        _check_expression("log", log)
        if secret := state.secrets.names_secret(log):
            raise UserError(f"{log} names {secret}, whose name looks secret.", "Log something else.")
    if "module" in wanted:
        if not function or "file" in wanted or "line" in wanted:
            raise UserError("A module goes with a function, and with nothing else.", "Name file and line in its place.")
        return Function(str(wanted["module"]), function, condition, log)
    if "file" not in wanted or ("line" in wanted) == bool(function):
        raise UserError("A breakpoint has a file and a line, or a file and a function.", "Name both.")
    path = find_source(state, place, str(wanted["file"]))
    mapped = as_mapped(path, place.endpoint.path_mappings)
    if function:
        line, only = find_function(path, function)
        return Breakpoint(mapped, line, condition, log, only)
    check_line(path, int(wanted["line"]))
    return Breakpoint(mapped, int(wanted["line"]), condition, log)


def _check_expression(argument: str, text: str) -> None:
    try:
        compile(text.strip(), f"<{argument}>", "eval", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        why = error.msg if isinstance(error, SyntaxError) else str(error)
        raise UserError(f"`{argument}` must be a Python expression, not {text!r}: {why}.", "Correct it.") from error


def find_source(state: State, place: Target, file: str) -> Path:
    """Find the source file that an agent has named.

    Raises:
        UserError: There is none.
    """
    roots = [mapping.local_root for mapping in place.endpoint.path_mappings]
    return resolve_source(file, cwd=state.project, roots=roots)


def is_own(state: State, place: Target, path: Path) -> bool:
    """Whether a file is Python code of the project or of the debugged program."""
    roots = [state.project, *(mapping.local_root for mapping in place.endpoint.path_mappings)]
    real = path.resolve()
    return real.suffix in (".py", ".pyw", ".pyi") and any(real.is_relative_to(root.resolve()) for root in roots)


def list_breakpoints(session: AttachedSession) -> list[dict[str, Any]]:
    """The breakpoints of a session as JSON objects."""
    found: list[dict[str, Any]] = []
    for one in session.debug.breakpoints if session.is_attached else ():
        wanted = one.breakpoint
        entry: dict[str, Any] = {"number": one.number, "file": wanted.file, "line": one.line}
        more = {"condition": wanted.condition.when, "hits": wanted.condition.hits, "log": wanted.log}
        entry |= {name: value for name, value in more.items() if value}
        entry |= {"message": one.message} if one.message else {}
        found.append(entry)
    return found
