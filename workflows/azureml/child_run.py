"""One step of a run in a workspace, as it is kept here: its record, its announcements, its ports."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from concurrent.futures import TimeoutError as NotYet  # one of its own before Python 3.11
from pathlib import Path
from typing import Any

from ..background import log
from ..engines import reservations
from ..errors import UserError
from ..private import make_folder, open_file
from ..remote.forwarding import Forward
from ..runs import attachable
from ..runs import record as records
from ..runs.plan import PlannedStep
from ..runs.record import RunRecord, StepRecord
from .announcements import Announcements, GateAddress, StepState, TagReader
from .child_logs import StepLogs
from .cloud_pipeline import ChildRun
from .node_routes import LATER, SOON, NodeRoutes
from .service import ENDED, PipelineService
from .snapshots import fetch_snapshots

#: The service's words for a run whose processes have been started.
_RUNNING = ("Running", "Finalizing", "CancelRequested", "NotResponding")
#: Seconds that tags may come after the log's lines, where what was raised matters.
_TAGS_LATER = 5.0
#: Seconds after a step's end for which its logs are asked for again where they cannot be read.
_LOGS_LATER = 20.0
#: Seconds that a step may be queued before its compute is looked at, and between two such looks.
_QUEUED, _COMPUTE_AGAIN = 5.0, 60.0
#: Seconds for which a round waits for a node that has just been told of.
_REACH_SOON = 0.5


class FollowedStep:
    """Follows one step.

    Args:
        run: The run.
        record: The step in it.
        planned: What was submitted; None for a run from elsewhere.
        service: The run in the workspace.
        token: The run's.
        threads: For what may take a while.
        here: Whether its node may be this machine.
        ways: Makes the ways to its nodes, of what the step says; without, the network is the only one.
    """

    def __init__(
        self,
        run: RunRecord,
        record: StepRecord,
        planned: PlannedStep | None,
        service: PipelineService,
        token: str,
        threads: Executor,
        ways: Callable[[StepState], NodeRoutes] | None = None,
        here: bool = False,
    ) -> None:
        self.record = record
        self._run, self._planned, self._service, self._threads = run, planned, service, threads
        self._token = token
        self._said = StepState(here=here)
        self._ways = ways(self._said) if ways is not None else NodeRoutes("network", None, token)
        self._said.inside = self._ways.inside
        self._tags = TagReader(self._said)
        self._announcements = Announcements(_TAGS_LATER if run.on_error else 0.0)
        self._logs = StepLogs(run, record, service, self._said, threads)
        self._forwards: dict[int, tuple[GateAddress, Forward | None]] = {}
        self._reached: dict[tuple[int, GateAddress], tuple[float, Future[str | None]]] = {}
        #: Ranks of which it has been told that they cannot be reached.
        self._unreached: set[int] = set()
        self._configured: set[int] = set()
        self._prepared: dict[int, Future[None]] = {}
        self._look_at = 0.0
        self._ended = 0.0
        folder = run.step_folder(record.name)
        for name in ("azureml-logs", "announce"):
            make_folder(folder / name)
        self._announced = run.events(record)
        if record.final:
            return
        # A new follower tells all from the beginning.
        for path in (folder / "azureml-logs").glob("*.txt"):
            path.unlink()
        self._announced.unlink(missing_ok=True)

    @property
    def busy(self) -> bool:
        """Whether it runs, or has ended and its logs are still to come."""
        return not self.record.final and (self.record.status == records.RUNNING or self._ended > 0)

    @property
    def expects(self) -> bool:
        """Whether it is worth while to look again soon."""
        if self.record.final:
            return False
        if self.record.debugged and self._left > 0:
            return True
        return self._logs.growing

    @property
    def awaited(self) -> bool:
        """Whether its processes run and somebody waits for one of them to say where it listens."""
        return self.record.status == records.RUNNING and self._ended == 0 and self._left > 0

    @property
    def _left(self) -> int:
        return len(self.record.ports) - len(self._configured)

    def take(self, child: ChildRun, save: Callable[[], None]) -> bool:
        """What the workspace says of it now; whether the record has changed.

        Args:
            child: What it says.
            save: Writes the record; called before an announcement is, so that whoever sees that finds the rest.
        """
        if self.record.final:
            return False
        changed = self._phase(child)
        if changed:
            # A log that begins in a phase is seen after the one before has ended.
            save()
        ended = child.status in ENDED
        if self.record.status == records.RUNNING or ended or "prepar" in child.status.lower():
            self._announcements.log(self._logs.read(child.run_id, ended), time.monotonic())
        if self.awaited:
            self._prepare()
        self._announcements.tags(self._tags.read(child.tags))
        changed |= self._announce(save)
        if ended:
            self._ended = self._ended or time.monotonic()
            if self._logs.behind and time.monotonic() - self._ended < _LOGS_LATER:
                # What is missing is the end, which says why a step failed.
                return changed
            self._finish(child)
            changed = True
        return changed

    def finish(self, status: str) -> None:
        """The run is over; what never came to this step's turn is over, too."""
        if not self.record.final and self.record.status == records.NOT_STARTED and status == records.FAILED:
            self.record.status, self.record.reason = records.SKIPPED, "another step failed"
        self.close()

    def close(self) -> None:
        """End its ports."""
        for _address, forward in self._forwards.values():
            if forward is not None:
                forward.close()
        self._forwards.clear()
        self._ways.close(self.record.run_id)

    # Its record

    def _phase(self, child: ChildRun) -> bool:
        record, before = self.record, self._shown()
        record.run_id = child.run_id
        if not record.phases or record.phases[-1][0] != child.status:
            record.phases.append((child.status, time.time()))
        if child.status in _RUNNING and record.status != records.RUNNING:
            record.status = records.RUNNING
            record.begin()
        elif child.status not in ENDED and child.status not in (*_RUNNING, "NotStarted"):
            record.status = records.PREPARING
        self._look_at_compute(child)
        return before != self._shown()

    def _shown(self) -> tuple[object, ...]:
        record = self.record
        return record.status, record.run_id, len(record.phases), record.waits_for

    def _look_at_compute(self, child: ChildRun) -> None:
        """Keep why a step stays queued, as far as its compute tells."""
        if child.status != "Queued":
            self.record.waits_for = self._ways.state
            return
        now = time.monotonic()
        if time.time() - self.record.phases[-1][1] < _QUEUED or now < self._look_at:
            return
        self._look_at = now + _COMPUTE_AGAIN
        self.record.waits_for = self._service.compute_state(child.target)

    def _finish(self, child: ChildRun) -> None:
        record = self.record
        record.status = ENDED[child.status]
        if not record.started:
            record.begin()
        record.end()
        if record.status == records.FAILED:
            record.reason = _reason(self._logs.error or child.error)
            self._bring_snapshots(child.run_id)
        elif child.reused:
            record.reason = "an earlier run's result was taken"
        self.close()

    def _bring_snapshots(self, run_id: str) -> None:
        """Bring what the step has left of its failure; whoever asks for it tries again where that is not to be had."""
        from requests import RequestException

        try:
            fetch_snapshots(self._service, self._run, self.record, run_id)
        except (UserError, OSError, RequestException) as error:
            log(f"the snapshots of {self.record.name}: {error}")

    # Its debugger

    def _announce(self, save: Callable[[], None]) -> bool:
        """Tell what can be told by now; whether the record has changed."""
        due = self._announcements.due(time.monotonic())
        if not due:
            return self._look_again(save)
        changed = False
        ready: list[dict[str, Any]] = []
        until = time.monotonic() + _REACH_SOON
        for rank, events in due.items():
            reached = self._reach(rank, until) if rank in self.record.ports else ""
            if reached is None:
                # Where it listens need not be known to say that nobody is let in.
                events = [event for event in events if event["event"] == "gate-failed"]
            elif rank in self.record.ports:
                changed |= self._way(rank, reached)
            if reached:
                self._unreached.add(rank)
            self._announcements.told(events)
            ready += [
                self._out_of_reach(event, reached) if reached and event["event"] == "waiting" else event
                for event in events
            ]
        if ready:
            if self.record.status != records.RUNNING:
                self.record.status, changed = records.RUNNING, True
                self.record.begin()
            save()
            self._write(ready)
            self._configure()
        return changed

    def _prepare(self) -> None:
        """Have the connections made by the time that the gates are there."""
        for node in {self._node(rank) for rank in self.record.ports if self._said.place(rank) is None}:
            known = self._prepared.get(node)
            if known is None or known.done():
                self._prepared[node] = self._threads.submit(self._ways.prepare, self.record.run_id, node)

    def _reach(self, rank: int, until: float) -> str | None:
        """Why a rank's node cannot be reached, empty where it can; None while that is not known."""
        place = self._said.place(rank)
        if place is None:
            return None
        node = self._node(rank)
        now = time.monotonic()
        asked, found = self._reached.get((node, place), (0.0, None))
        again = found is None
        if found is not None and found.done():
            known = found.result()
            again = known != "" and now - asked > (SOON if known is None else LATER)
        if again or found is None:
            found = self._threads.submit(self._ways.reason_unreachable, self.record.run_id, node, place)
            self._reached[node, place] = (now, found)
        try:
            return found.result(timeout=max(0.0, until - time.monotonic()))
        except NotYet:
            return None

    def _look_again(self, save: Callable[[], None]) -> bool:
        """Whether a node that could not be reached can be by now, such as by a VPN that has been started."""
        changed = False
        for rank in [rank for rank in self._unreached if self._reach(rank, 0.0) == ""]:
            self._unreached.discard(rank)
            changed |= self._way(rank, "")
            save()
            self._write([{"event": "waiting", "pid": self._last_pid(rank), "rank": rank}])
            self._configure()
        return changed

    def _last_pid(self, rank: int) -> int:
        from ..debugger.readiness import read_events

        found = [event for event in read_events(self._announced) if int(event.get("rank") or 0) == rank]
        return int(found[-1]["pid"]) if found else 0

    def _way(self, rank: int, reached: str) -> bool:
        """Make the way to a rank's node; whether the record has changed."""
        record, place = self.record, self._said.place(rank)
        assert place is not None
        before = (dict(record.ports), dict(record.hosts), list(record.mappings))
        if self._said.root and self._planned is not None:
            record.mappings = _mappings(self._planned, self._said.root)
        if not reached and self._forwards.get(rank, (None, None))[0] != place:
            old = self._forwards.get(rank)
            if old is not None and old[1] is not None:
                old[1].close()
            if not self._token and not place.inside:
                record.hosts[rank], record.ports[rank] = place.host, place.port
                self._forwards[rank] = (place, None)
            else:
                wanted = record.ports[rank]
                reservations.release([wanted])
                what = f"{record.name} of {self._run.run_id}"
                transport = self._ways.transport(record.run_id, self._node(rank), place)
                forward = Forward(what, place.host, place.port, wanted, transport)
                self._forwards[rank] = (place, forward)
                record.ports[rank] = forward.local
        return before != (record.ports, record.hosts, record.mappings)

    def _node(self, rank: int) -> int:
        """The node that a rank is on: the launcher's word, or by how many each node has."""
        processes = self._planned.processes if self._planned is not None else 1
        return self._said.nodes.get(rank, rank // processes)

    def _out_of_reach(self, event: dict[str, Any], why: str) -> dict[str, Any]:
        place = self._said.place(int(event.get("rank") or 0))
        assert place is not None
        if place.inside:
            message = f"{self.record.name} holds for a debugger in its container, which is not reached ({why})."
        else:
            message = (
                f"{self.record.name} holds for a debugger on {place.host}:{place.port}, which cannot be reached from "
                f"this machine ({why}): the compute is in a virtual network."
            )
        return {
            **event,
            "event": "out-of-reach",
            "message": message,
            "remedy": "Go through a compute instance in it (AML_REMOTE_HOST, --remote), or connect to the network, "
            f"then: inv {self._run.kind}.attach {self._named}",
        }

    @property
    def _named(self) -> str:
        """The run, as commands name it."""
        name = "" if self._run.kind == "pipeline" else f"{self._run.name} "
        return f"{name}--run {self._run.number}"

    def _write(self, events: list[dict[str, Any]]) -> None:
        with open_file(self._announced, "a", encoding="utf-8") as file:
            file.writelines(json.dumps({"time": time.time(), **event}) + "\n" for event in events)

    def _configure(self) -> None:
        """Write the launch configurations once every rank that has come can be attached to."""
        listening = [one for one in attachable.attachables_of_step(self._run, self.record) if one.is_open]
        ranks = {one.rank or 0 for one in listening}
        if not ranks - self._configured:
            return
        self._configured |= ranks
        try:
            attachable.write_configurations(self._run, listening if self._run.on_error else None)
        except (UserError, OSError) as error:
            # launch.json is broken at this moment; `pipeline.attach` writes it later.
            log(str(error))


def _mappings(planned: PlannedStep, root: str) -> list[tuple[str, str]]:
    """Where the code lies on the node: the first one that fits counts, so what lies inside comes first."""
    includes = [Path(path) for path in planned.includes]
    found = [(str(path), f"{root}/{path.name}") for path in includes if path.is_dir()]
    if planned.code is not None:
        code = Path(planned.code)
        found.append((str(code if code.is_dir() else code.parent), root))
    return found


def _reason(text: str) -> str:
    """What matters of an error of the service."""
    inner = re.search(r"\b\w*(?:JobFailed|NodePreempted|Error): ?(.+)", text)
    return (inner[0] if inner else text or "the workspace does not say why")[:300]
