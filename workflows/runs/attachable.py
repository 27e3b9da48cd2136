"""The steps and ranks of a run that accept a debugger, and their launch configurations."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from .. import report
from ..debugger.readiness import read_events
from ..models import DebugEndpoint
from . import record as records
from . import source_secrets
from .record import NOT_STARTED, PREPARING, RunRecord, StepRecord

COMPOUND = "Azure Machine Learning Compute: all"
_FAMILY = "Azure Machine Learning Compute: remote debug"

#: The last reported state of a rank's debuggee.
LISTENING, WAITING, ATTACHED = "listening", "waiting", "attached"
DETACHED, NOT_ATTACHED, CLOSED = "detached", "not attached", "closed"
#: It accepts a debugger, but its node cannot be reached from here.
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
    """The name of a launch configuration, with step and rank if there are several.

    Args:
        step: The step; None if only one is debugged.
        rank: The rank; None if the step is one process, or one rank of it is debugged.
    """
    if rank is not None:
        return f"{_FAMILY} ({step}, rank {rank})"
    return f"{_FAMILY} ({step})" if step is not None else _FAMILY


def makes_ranks(step: StepRecord) -> bool:
    """Whether the step's own command starts several ranks, of which one or all are debugged."""
    return step.ranks == 1 and step.debugged and [*step.ports] != [0]


def configurations_by_rank(step: StepRecord) -> dict[int, tuple[str, ...]]:
    """The names of a step's launch configurations by rank: the run's own, and the one that an editor may use.

    An editor that was set up for all steps of a pipeline has the step in each name, even if a run only has one of
    them debugged.
    """
    found: dict[int, tuple[str, ...]] = {}
    for rank, name in step.configurations.items():
        other = configuration_name(step.name, rank if step.ranks > 1 or makes_ranks(step) else None)
        found[rank] = (name, other) if name.startswith(_FAMILY) and other != name else (name,)
    return found


def still_debugged(run: RunRecord, left: str) -> list[str]:
    """What of a run is being debugged, or still will be, after an editor has left one configuration.

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
        names = configurations_by_rank(step)
        if not any(left in some for some in names.values()):
            found.append(step.name)
            continue
        states = {one.rank or 0: one.state for one in attachables_of_step(run, step)}
        for rank, some in sorted(names.items()):
            # A rank that has reported nothing is still starting.
            if left not in some and states.get(rank, WAITING) in (WAITING, ATTACHED):
                found.append(f"{step.name}, rank {rank}")
    return found


@dataclass(frozen=True)
class Attachable:
    """One process of a step to which a debugger may attach.

    Attributes:
        run: Its run.
        step: Its step.
        rank: Its rank; None if the step is one process.
        state: One of the states above.
        error: The event of the exception that it holds at, or of the failure that keeps debuggers out.
        limit: How long it holds at most, in seconds; None if it has not reported that.
        pid: Its process id on its own machine or in its container; 0 if it has not reported that.
    """

    run: RunRecord
    step: StepRecord
    rank: int | None
    state: str
    error: dict[str, Any] | None = None
    limit: float | None = None
    pid: int = 0

    @property
    def error_text(self) -> str:
        """The exception that it holds at, in one line; empty if there is none."""
        if self.error is None or self.error["event"] != "raised":
            return ""
        message = " ".join(str(self.error.get("message") or "").split())
        return f"{self.error.get('type')}: {message[:200]}" if message else str(self.error.get("type"))

    @property
    def child_pid(self) -> int | None:
        """The process id of the child process that holds at an exception; None if the script's own process holds."""
        return (
            int(self.error["pid"]) if self.error_text and self.error is not None and "process" in self.error else None
        )

    @property
    def port(self) -> int:
        """The port on :attr:`host`."""
        return self.step.ports[self.rank or 0]

    @property
    def host(self) -> str:
        """The host: 127.0.0.1, except for a port that is open on a cluster's network."""
        return self.step.host(self.rank or 0)

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{self.host}:{self.port}"

    @property
    def configuration(self) -> str:
        """The name of its launch configuration."""
        return self.step.configurations[self.rank or 0]

    @property
    def endpoint(self) -> DebugEndpoint:
        """The address and path mappings for the debugger."""
        return DebugEndpoint(self.host, self.port, self.step.path_mappings())

    @property
    def is_open(self) -> bool:
        """Whether it accepts a debugger now."""
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
            "error": self.error_text or None,
        }


def attachables_of_step(run: RunRecord, step: StepRecord) -> list[Attachable]:
    """Every rank of a step that has reported itself, in the order of the ranks.

    Several scripts of a step may be a rank one after the other, or at once. The one that holds counts, otherwise
    the last one that accepts a debugger.
    """
    ranks: dict[int, dict[int, str]] = {}
    errors: dict[tuple[int, int], dict[str, Any]] = {}
    limits: dict[tuple[int, int], float] = {}
    # Processes whose last client has left. A short session may be over before the hold that it ended reports that.
    left: set[tuple[int, int]] = set()
    events = read_events(run.events(step)) if step.ports else []
    if events:
        run, step = records.reread_if_changed(run, step)
    ranked = set(step.ports) if step.ranks > 1 else {event["rank"] for event in events if event.get("rank") is not None}
    if run.in_workspace and step.ranks == 1 and [*step.ports] == [0]:
        # The name of a run's tag always has a rank, even for a single process.
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
            # No debugger is accepted any more, or a client came and left again during the hold.
            states[pid] = before
        elif kind == "attached" and (rank, pid) in left:
            states[pid] = DETACHED
        else:
            states[pid] = _STATES[kind]
    if errors:
        source_secrets.keep_secrets(run)
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
        for pid in [_decisive_process(states)]
    ]


def count_expected_ranks(run: RunRecord, step: StepRecord) -> int:
    """How many debugged ranks a step will have, according to the ranks that have reported so far."""
    if not makes_ranks(step):
        return len(step.ports)
    events = [event for event in read_events(run.events(step)) if event["event"] == "listening"]
    ranks = [int(event.get("world") or event["rank"] + 1) for event in events if event.get("rank") is not None]
    return min(len(step.ports), max(ranks, default=1))


def _decisive_process(states: dict[int, str]) -> int:
    """The process that counts, of those that were a rank; ``states`` has the last one to report last."""
    holding = [pid for pid, state in states.items() if state == WAITING]
    accepting = [pid for pid, state in states.items() if state not in (CLOSED, OUT_OF_REACH)]
    return (holding or accepting or list(states))[-1]


def attachables_of_run(run: RunRecord) -> list[Attachable]:
    """Every rank of every step that has reported itself."""
    return [found for step in run.steps for found in attachables_of_step(run, step)]


def write_configurations(run: RunRecord, only: Iterable[Attachable] | None = None) -> str:
    """Write the launch configurations of every debugged step, and a compound of all.

    Steps that have not started yet are included with their planned ports, so that the compound is complete. If a
    step gets another port when it starts, its configuration is written again.

    Args:
        run: The run.
        only: Only write these, such as those that hold at an exception.

    Returns:
        ``added``, ``updated`` or ``unchanged``; ``handed over`` if the command runs for another machine.

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
                # The path of its code on its node is only known once it runs.
                continue
            mappings = step.path_mappings()
            known = {one.rank or 0 for one in attachables_of_step(run, step)} if makes_ranks(step) else set(step.ports)
            for rank, port in sorted((rank, port) for rank, port in step.ports.items() if rank in known):
                wanted.append((step.configurations[rank], DebugEndpoint(step.host(rank), port, mappings)))
    names = [name for name, _endpoint in wanted]
    compound = f"Azure Machine Learning Experiment: {run.name} (all ranks)" if run.single else COMPOUND
    compounds = [{"name": compound, "configurations": names, "stopAll": False}] if len(names) > 1 else []
    configurations = [launch_json.attach_configuration(name, endpoint, run.project) for name, endpoint in wanted]
    also = {some[0]: some[1] for step in run.steps for some in configurations_by_rank(step).values() if some[1:]}
    if report.is_wanted():
        in_use = None if run.single else sorted(_names_in_use(run))
        report.add_configurations({"run": str(run.folder)}, run.run_id, configurations, compounds, in_use, also=also)
        return "handed over"
    return launch_json.write_configurations(run.project, configurations, compounds, _retired(run), also)


def _retired(run: RunRecord) -> Callable[[str], bool]:
    """A function that tells whether a configuration belongs to no run any more; another step may have its port now."""
    in_use = functools.cache(lambda: _names_in_use(run))
    return lambda name: not run.single and is_retired(name, in_use())


def is_retired(name: str, in_use: Collection[str]) -> bool:
    """Whether a configuration's name is a step's and is not in use by any run."""
    return name.startswith(_FAMILY) and name not in in_use


def _names_in_use(run: RunRecord) -> frozenset[str]:
    from .store import active_runs

    runs = [run, *active_runs(run.project, run.kind)]
    return frozenset(name for one in runs for step in one.steps for name in step.configurations.values())
