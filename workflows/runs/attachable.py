"""Which steps and ranks of a run welcome a debugger, and the launch configurations of those."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from .. import report
from ..debugger.readiness import read_events
from ..models import DebugEndpoint
from . import given
from . import record as records
from .record import NOT_STARTED, PREPARING, RunRecord, StepRecord

COMPOUND = "Azure Machine Learning Compute: all"
_FAMILY = "Azure Machine Learning Compute: remote debug"

#: What a rank's debuggee last said.
LISTENING, WAITING, ATTACHED = "listening", "waiting", "attached"
DETACHED, NOT_ATTACHED, CLOSED = "detached", "not attached", "closed"
#: It welcomes a debugger, and its node cannot be reached from here.
OUT_OF_REACH = "out of reach"
_STATES = {
    "listening": LISTENING,
    "waiting": WAITING,
    "attached": ATTACHED,
    "client-left": DETACHED,
    "not-attached": NOT_ATTACHED,
    "gate-failed": CLOSED,
    "out-of-reach": OUT_OF_REACH,
}


def configuration_name(step: str | None, rank: int | None) -> str:
    """The published name, with step and rank where there are several.

    Args:
        step: The step; None where only one is debugged.
        rank: The rank; None where the step is one process, or one rank of it is debugged.
    """
    if rank is not None:
        return f"{_FAMILY} ({step}, rank {rank})"
    return f"{_FAMILY} ({step})" if step is not None else _FAMILY


def makes_ranks(step: StepRecord) -> bool:
    """Whether the step's own command starts its ranks, one of several of which is debugged, or all."""
    return step.ranks == 1 and step.debugged and [*step.ports] != [0]


def names_of(step: StepRecord) -> dict[int, tuple[str, ...]]:
    """The names of a step's launch configurations by rank: the run's own, and that by which an editor may know it.

    The steps of a pipeline are told apart by name in an editor that was set up for all of them, also where one run
    has but one of them debugged.
    """
    found: dict[int, tuple[str, ...]] = {}
    for rank, name in step.configurations.items():
        other = configuration_name(step.name, rank if step.ranks > 1 or makes_ranks(step) else None)
        found[rank] = (name, other) if name.startswith(_FAMILY) and other != name else (name,)
    return found


def still_debugged(run: RunRecord, left: str) -> list[str]:
    """What of a run is to be debugged, or just is, once an editor has left one configuration.

    Args:
        run: The run.
        left: The configuration's name.

    Returns:
        Steps by name, and the other ranks of the step that was left.
    """
    found = []
    for step in run.steps:
        if not step.debugged or step.final:
            continue
        names = names_of(step)
        if not any(left in some for some in names.values()):
            found.append(step.name)
            continue
        states = {one.rank or 0: one.state for one in of_step(run, step)}
        for rank, some in sorted(names.items()):
            # One that has not said a word is just being started.
            if left not in some and states.get(rank, WAITING) in (WAITING, ATTACHED):
                found.append(f"{step.name}, rank {rank}")
    return found


@dataclass(frozen=True)
class Attachable:
    """One process of a step that a debugger may be let into.

    Attributes:
        run: Its run.
        step: Its step.
        rank: Its rank; None where the step is one process.
        state: One of the words above.
        error: The exception that it holds at, as announced; or why nobody can be let in.
        limit: Seconds that it holds, at most, where it has said so.
        pid: Its process id, where it runs; 0 where it has not said so.
    """

    run: RunRecord
    step: StepRecord
    rank: int | None
    state: str
    error: dict[str, Any] | None = None
    limit: float | None = None
    pid: int = 0

    @property
    def what(self) -> str:
        """The exception that it holds at, in a few words; empty where there is none."""
        if self.error is None or self.error["event"] != "raised":
            return ""
        message = " ".join(str(self.error.get("message") or "").split())
        return f"{self.error.get('type')}: {message[:200]}" if message else str(self.error.get("type"))

    @property
    def child(self) -> int | None:
        """The process id, where it runs, of the child process that holds at an exception; None for the script's own."""
        return int(self.error["pid"]) if self.what and self.error is not None and "process" in self.error else None

    @property
    def port(self) -> int:
        """The port on :attr:`host`."""
        return self.step.ports[self.rank or 0]

    @property
    def host(self) -> str:
        """The address; 127.0.0.1 but for a port on a cluster's network that is open to all."""
        return self.step.host(self.rank or 0)

    @property
    def where(self) -> str:
        """Host and port."""
        return f"{self.host}:{self.port}"

    @property
    def configuration(self) -> str:
        """The name of its launch configuration."""
        return self.step.configurations[self.rank or 0]

    @property
    def endpoint(self) -> DebugEndpoint:
        """Where the debugger is welcome."""
        return DebugEndpoint(self.host, self.port, self.step.path_mappings())

    @property
    def open(self) -> bool:
        """Whether a debugger is welcome now."""
        return self.state not in (CLOSED, OUT_OF_REACH) and self.step.status == "Running"

    def as_json(self) -> dict[str, Any]:
        """The object under ``endpoints``."""
        return {
            "step": self.step.name,
            "rank": self.rank,
            "run_id": self.step.run_id,
            "host": self.host,
            "port": self.port,
            "path_mappings": [mapping.as_json() for mapping in self.step.path_mappings()],
            "launch_configuration": self.configuration,
            "log": str(self.run.log(self.step, self.rank or 0)),
            "state": self.state,
            "error": self.what or None,
        }


def of_step(run: RunRecord, step: StepRecord) -> list[Attachable]:
    """Every rank of a step that has announced itself, in the order of the ranks.

    Several scripts of a step may be a rank one after the other, or at once: the one that holds counts, else
    the last that a debugger is welcome in.
    """
    ranks: dict[int, dict[int, str]] = {}
    errors: dict[tuple[int, int], dict[str, Any]] = {}
    limits: dict[tuple[int, int], float] = {}
    # Whose last client has left; a very short visit is over before the hold that it ended has said so.
    left: set[tuple[int, int]] = set()
    events = read_events(run.events(step)) if step.ports else []
    if events:
        run, step = records.renewed(run, step)
    ranked = set(step.ports) if step.ranks > 1 else {event["rank"] for event in events if event.get("rank") is not None}
    if run.in_workspace and step.ranks == 1 and [*step.ports] == [0]:
        # A tag of a run has a rank in its name, of one process, too.
        ranked.clear()
    for event in events:
        rank, pid, kind = int(event.get("rank") or 0), int(event.get("pid") or 0), event["event"]
        if rank not in step.ports:
            continue
        if kind == "client":
            left.discard((rank, pid))
        elif kind == "client-left":
            left.add((rank, pid))
        if kind in ("raised", "gate-failed", "out-of-reach"):
            errors[rank, pid] = event
        if kind == "waiting" and isinstance(event.get("timeout"), int | float):
            limits[rank, pid] = event["timeout"]
        if kind not in _STATES:
            continue
        states = ranks.setdefault(rank, {})
        before = states.pop(pid, None)
        if before == CLOSED or (before == WAITING and kind == "client-left"):
            # Nobody is let in any more; or one that looked in and left again, during the hold.
            states[pid] = before
        elif kind == "attached" and (rank, pid) in left:
            states[pid] = DETACHED
        else:
            states[pid] = _STATES[kind]
    if errors:
        given.keep_secrets(run)
    return [
        Attachable(
            run,
            step,
            rank if rank in ranked else None,
            states[pid],
            errors.get((rank, pid)),
            limits.get((rank, pid)),
            pid,
        )
        for rank, states in sorted(ranks.items())
        for pid in [_counting(states)]
    ]


def expected(run: RunRecord, step: StepRecord) -> int:
    """How many debugged ranks of a step there will be, as far as those say that are there."""
    if not makes_ranks(step):
        return len(step.ports)
    said = [event for event in read_events(run.events(step)) if event["event"] == "listening"]
    ranks = [int(event.get("world") or event["rank"] + 1) for event in said if event.get("rank") is not None]
    return min(len(step.ports), max(ranks, default=1))


def _counting(states: dict[int, str]) -> int:
    """The process that counts, of those that were a rank; the one heard of last comes last."""
    holding = [pid for pid, state in states.items() if state == WAITING]
    welcome = [pid for pid, state in states.items() if state not in (CLOSED, OUT_OF_REACH)]
    return (holding or welcome or list(states))[-1]


def of_run(run: RunRecord) -> list[Attachable]:
    """Every rank of every step that has announced itself."""
    return [found for step in run.steps for found in of_step(run, step)]


def write_configurations(run: RunRecord, only: Iterable[Attachable] | None = None) -> str:
    """Write the launch configurations of every debugged step, and a compound of all.

    Those of steps that have not started yet are written too, with the ports that they are going to
    have, so that the compound is whole; a step that gets another port when it starts is written again.

    Args:
        run: The run.
        only: Write these alone, such as those that hold at an exception.

    Returns:
        ``added``, ``updated`` or ``unchanged``; ``handed over`` where another machine has asked.

    Raises:
        UserError: launch.json cannot be understood or written.
    """
    from ..debugger import launch_json

    wanted: list[tuple[str, DebugEndpoint]] = []
    if only is not None:
        wanted = [(found.configuration, found.endpoint) for found in only]
    else:
        for step in run.steps:
            if run.in_workspace and step.status in (NOT_STARTED, PREPARING):
                # Where its code lies on its node it says only when it runs.
                continue
            mappings = step.path_mappings()
            known = {one.rank or 0 for one in of_step(run, step)} if makes_ranks(step) else set(step.ports)
            for rank, port in sorted((rank, port) for rank, port in step.ports.items() if rank in known):
                wanted.append((step.configurations[rank], DebugEndpoint(step.host(rank), port, mappings)))
    names = [name for name, _endpoint in wanted]
    compound = f"Azure Machine Learning Experiment: {run.name} (all ranks)" if run.single else COMPOUND
    compounds = [{"name": compound, "configurations": names, "stopAll": False}] if len(names) > 1 else []
    configurations = [launch_json.attach_configuration(name, endpoint, run.project) for name, endpoint in wanted]
    also = {some[0]: some[1] for step in run.steps for some in names_of(step).values() if some[1:]}
    if report.is_wanted():
        in_use = None if run.single else sorted(_in_use(run))
        report.add_configurations({"run": str(run.folder)}, run.run_id, configurations, compounds, in_use, also=also)
        return "handed over"
    return launch_json.write_configurations(run.project, configurations, compounds, _retired(run), also)


def _retired(run: RunRecord) -> Callable[[str], bool]:
    """Whether a configuration of a name belongs to no run any more: its port may be another step's by now."""
    in_use = functools.cache(lambda: _in_use(run))
    return lambda name: not run.single and is_retired(name, in_use())


def is_retired(name: str, in_use: Collection[str]) -> bool:
    """Whether a name is a step's, and none of those that lead somewhere."""
    return name.startswith(_FAMILY) and name not in in_use


def _in_use(run: RunRecord) -> frozenset[str]:
    from .store import active_runs

    runs = [run, *active_runs(run.project, run.kind)]
    return frozenset(name for one in runs for step in one.steps for name in step.configurations.values())
