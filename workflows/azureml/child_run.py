"""Follows one step of a run in a workspace: updates its record here, publishes its events and opens its ports."""

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
from .node_routes import LATER_RETRY_SECONDS, RETRY_SECONDS, NodeRoutes
from .service import ENDED, PipelineService
from .snapshots import fetch_snapshots

#: The service's statuses of a run whose processes have been started.
_RUNNING = ("Running", "Finalizing", "CancelRequested", "NotResponding")
#: Seconds that tags may arrive after the log's lines, in runs where the raised exception matters.
_TAGS_LATER = 5.0
#: Seconds after a step's end during which logs that cannot be read are requested again.
_LOGS_LATER = 20.0
#: Seconds that a step may be queued before its compute is checked, and between two such checks.
_QUEUED, _COMPUTE_AGAIN = 5.0, 60.0
#: Seconds that one round waits for the check of a node that was just announced.
_REACH_SOON = 0.5


class FollowedStep:
    """Follows one step.

    Args:
        run: The run.
        record: The step in it.
        planned: What was submitted; None for a run that was submitted from elsewhere.
        service: The run in the workspace.
        token: The run's token.
        threads: Runs what may take a while.
        routes: Makes the routes to its nodes from the step's state; without it, only the network is used.
        local_nodes: Whether its node may be this machine.
    """

    def __init__(
        self,
        run: RunRecord,
        record: StepRecord,
        planned: PlannedStep | None,
        service: PipelineService,
        token: str,
        threads: Executor,
        routes: Callable[[StepState], NodeRoutes] | None = None,
        local_nodes: bool = False,
    ) -> None:
        self.record = record
        self._run, self._planned, self._service, self._threads = run, planned, service, threads
        self._token = token
        self._state = StepState(local_nodes=local_nodes)
        self._routes = routes(self._state) if routes is not None else NodeRoutes("network", None, token)
        self._state.in_container = self._routes.in_container
        self._tags = TagReader(self._state)
        self._announcements = Announcements(_TAGS_LATER if run.on_error else 0.0)
        self._logs = StepLogs(run, record, service, self._state, threads)
        self._forwards: dict[int, tuple[GateAddress, Forward | None]] = {}
        self._reach_checks: dict[tuple[int, GateAddress], tuple[float, Future[str | None]]] = {}
        #: Ranks that were reported as unreachable.
        self._unreachable_ranks: set[int] = set()
        self._configured: set[int] = set()
        self._preparations: dict[int, Future[None]] = {}
        self._next_compute_check = 0.0
        self._ended = 0.0
        folder = run.step_folder(record.name)
        for name in ("azureml-logs", "announce"):
            make_folder(folder / name)
        self._announced = run.events(record)
        if record.final:
            return
        # A new follower reports everything from the beginning.
        for path in (folder / "azureml-logs").glob("*.txt"):
            path.unlink()
        self._announced.unlink(missing_ok=True)

    @property
    def is_busy(self) -> bool:
        """Whether it runs, or has ended while its logs are still incomplete."""
        return not self.record.final and (self.record.status == records.RUNNING or self._ended > 0)

    @property
    def expects_change(self) -> bool:
        """Whether it should be checked again soon."""
        if self.record.final:
            return False
        if self.record.debugged and self._unconfigured_ranks > 0:
            return True
        return self._logs.is_growing

    @property
    def is_awaited(self) -> bool:
        """Whether its processes run and one that is debugged has not announced its gate yet."""
        return self.record.status == records.RUNNING and self._ended == 0 and self._unconfigured_ranks > 0

    @property
    def _unconfigured_ranks(self) -> int:
        return len(self.record.ports) - len(self._configured)

    def update(self, child: ChildRun, save: Callable[[], None]) -> bool:
        """Update the step from the workspace's current state; returns whether the record has changed.

        Args:
            child: The child run as the workspace describes it now.
            save: Writes the record. It is called before events are written, so that their readers find the record.
        """
        if self.record.final:
            return False
        changed = self._update_record(child)
        if changed:
            # A log that begins in a phase must not be read before the phase is in the record.
            save()
        ended = child.status in ENDED
        if self.record.status == records.RUNNING or ended or "prepar" in child.status.lower():
            self._announcements.add_log_events(self._logs.read(child.run_id, ended), time.monotonic())
        if self.is_awaited:
            self._prepare()
        self._announcements.add_tag_events(self._tags.read(child.tags))
        changed |= self._publish_events(save)
        if ended:
            self._ended = self._ended or time.monotonic()
            if self._logs.is_incomplete and time.monotonic() - self._ended < _LOGS_LATER:
                # The end of the log is missing, which says why a step failed.
                return changed
            self._finish(child)
            changed = True
        return changed

    def finish(self, status: str) -> None:
        """Finalize the step once the run has ended; one that never started is skipped."""
        if not self.record.final and self.record.status == records.NOT_STARTED and status == records.FAILED:
            self.record.status, self.record.reason = records.SKIPPED, "another step failed"
        self.close()

    def close(self) -> None:
        """Close its ports."""
        for _address, forward in self._forwards.values():
            if forward is not None:
                forward.close()
        self._forwards.clear()
        self._routes.close(self.record.run_id)

    # Its record

    def _update_record(self, child: ChildRun) -> bool:
        record, before = self.record, self._visible_values()
        record.run_id = child.run_id
        if not record.phases or record.phases[-1][0] != child.status:
            record.phases.append((child.status, time.time()))
        if child.status in _RUNNING and record.status != records.RUNNING:
            record.status = records.RUNNING
            record.begin()
        elif child.status not in ENDED and child.status not in (*_RUNNING, "NotStarted"):
            record.status = records.PREPARING
        self._check_compute(child)
        return before != self._visible_values()

    def _visible_values(self) -> tuple[object, ...]:
        record = self.record
        return record.status, record.run_id, len(record.phases), record.waits_for

    def _check_compute(self, child: ChildRun) -> None:
        """Record why a step stays queued, where its compute says so."""
        if child.status != "Queued":
            self.record.waits_for = self._routes.state
            return
        now = time.monotonic()
        if time.time() - self.record.phases[-1][1] < _QUEUED or now < self._next_compute_check:
            return
        self._next_compute_check = now + _COMPUTE_AGAIN
        self.record.waits_for = self._service.compute_state(child.target)

    def _finish(self, child: ChildRun) -> None:
        record = self.record
        record.status = ENDED[child.status]
        if not record.started:
            record.begin()
        record.end()
        if record.status == records.FAILED:
            record.reason = _short_error(self._logs.error or child.error)
            self._fetch_snapshots(child.run_id)
        elif child.reused:
            record.reason = "an earlier run's result was reused"
        self.close()

    def _fetch_snapshots(self, run_id: str) -> None:
        """Fetch the snapshots of the step's failure; where that fails, the commands that need them try again."""
        from requests import RequestException

        try:
            fetch_snapshots(self._service, self._run, self.record, run_id)
        except (UserError, OSError, RequestException) as error:
            log(f"the snapshots of {self.record.name} cannot be fetched: {error}")

    # Its debugger

    def _publish_events(self, save: Callable[[], None]) -> bool:
        """Write the events that are due; returns whether the record has changed."""
        due = self._announcements.due(time.monotonic())
        if not due:
            return self._retry_unreached(save)
        changed = False
        ready: list[dict[str, Any]] = []
        until = time.monotonic() + _REACH_SOON
        for rank, events in due.items():
            obstacle = self._reason_unreachable(rank, until) if rank in self.record.ports else ""
            if obstacle is None:
                # A failed gate is reported even where its address is unknown.
                events = [event for event in events if event["event"] == "gate-failed"]
            elif rank in self.record.ports:
                changed |= self._open_route(rank, obstacle)
            if obstacle:
                self._unreachable_ranks.add(rank)
            self._announcements.mark_reported(events)
            ready += [
                self._unreachable_event(event, obstacle) if obstacle and event["event"] == "waiting" else event
                for event in events
            ]
        if ready:
            if self.record.status != records.RUNNING:
                self.record.status, changed = records.RUNNING, True
                self.record.begin()
            save()
            self._write_events(ready)
            self._write_configurations()
        return changed

    def _prepare(self) -> None:
        """Connect to the nodes in advance, so that the connections exist when the gates listen."""
        for node in {self._node(rank) for rank in self.record.ports if self._state.gate(rank) is None}:
            known = self._preparations.get(node)
            if known is None or known.done():
                self._preparations[node] = self._threads.submit(self._routes.prepare, self.record.run_id, node)

    def _reason_unreachable(self, rank: int, until: float) -> str | None:
        """Why a rank's node cannot be reached; empty where it can, None while that is unknown."""
        place = self._state.gate(rank)
        if place is None:
            return None
        node = self._node(rank)
        now = time.monotonic()
        asked, found = self._reach_checks.get((node, place), (0.0, None))
        again = found is None
        if found is not None and found.done():
            known = found.result()
            again = known != "" and now - asked > (RETRY_SECONDS if known is None else LATER_RETRY_SECONDS)
        if again or found is None:
            found = self._threads.submit(self._routes.reason_unreachable, self.record.run_id, node, place)
            self._reach_checks[node, place] = (now, found)
        try:
            return found.result(timeout=max(0.0, until - time.monotonic()))
        except NotYet:
            return None

    def _retry_unreached(self, save: Callable[[], None]) -> bool:
        """Try unreachable nodes again, which may be reachable by now, such as through a VPN.

        Returns whether the record has changed.
        """
        changed = False
        for rank in [rank for rank in self._unreachable_ranks if self._reason_unreachable(rank, 0.0) == ""]:
            self._unreachable_ranks.discard(rank)
            changed |= self._open_route(rank, "")
            save()
            self._write_events([{"event": "waiting", "pid": self._last_pid(rank), "rank": rank}])
            self._write_configurations()
        return changed

    def _last_pid(self, rank: int) -> int:
        from ..debugger.readiness import read_events

        found = [event for event in read_events(self._announced) if int(event.get("rank") or 0) == rank]
        return int(found[-1]["pid"]) if found else 0

    def _open_route(self, rank: int, obstacle: str) -> bool:
        """Open the port that leads to a rank's node; returns whether the record has changed."""
        record, place = self.record, self._state.gate(rank)
        assert place is not None
        before = (dict(record.ports), dict(record.hosts), list(record.mappings))
        if self._state.root and self._planned is not None:
            record.mappings = _mappings(self._planned, self._state.root)
        if not obstacle and self._forwards.get(rank, (None, None))[0] != place:
            old = self._forwards.get(rank)
            if old is not None and old[1] is not None:
                old[1].close()
            if not self._token and not place.in_container:
                record.hosts[rank], record.ports[rank] = place.host, place.port
                self._forwards[rank] = (place, None)
            else:
                wanted = record.ports[rank]
                reservations.release([wanted])
                what = f"{record.name} of {self._run.run_id}"
                transport = self._routes.transport(record.run_id, self._node(rank), place)
                forward = Forward(what, place.host, place.port, wanted, transport)
                self._forwards[rank] = (place, forward)
                record.ports[rank] = forward.local
        return before != (record.ports, record.hosts, record.mappings)

    def _node(self, rank: int) -> int:
        """The node that a rank is on: as it was announced, or computed from the processes of each node."""
        processes = self._planned.processes if self._planned is not None else 1
        return self._state.nodes.get(rank, rank // processes)

    def _unreachable_event(self, event: dict[str, Any], why: str) -> dict[str, Any]:
        place = self._state.gate(int(event.get("rank") or 0))
        assert place is not None
        if place.in_container:
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
            f"then: inv {self._run.kind}.attach {self._run_arguments}",
        }

    @property
    def _run_arguments(self) -> str:
        """The arguments that name the run in a command."""
        name = "" if self._run.kind == "pipeline" else f"{self._run.name} "
        return f"{name}--run {self._run.number}"

    def _write_events(self, events: list[dict[str, Any]]) -> None:
        with open_file(self._announced, "a", encoding="utf-8") as file:
            file.writelines(json.dumps({"time": time.time(), **event}) + "\n" for event in events)

    def _write_configurations(self) -> None:
        """Write the launch configurations when further ranks can be attached to."""
        listening = [one for one in attachable.attachables_of_step(self._run, self.record) if one.is_open]
        ranks = {one.rank or 0 for one in listening}
        if not ranks - self._configured:
            return
        self._configured |= ranks
        try:
            attachable.write_configurations(self._run, listening if self._run.on_error else None)
        except (UserError, OSError) as error:
            # launch.json cannot be changed at this moment; `pipeline.attach` writes it later.
            log(str(error))


def _mappings(planned: PlannedStep, root: str) -> list[tuple[str, str]]:
    """Path mappings from here to the node. The first one that fits is used, so the inner folders come first."""
    includes = [Path(path) for path in planned.includes]
    found = [(str(path), f"{root}/{path.name}") for path in includes if path.is_dir()]
    if planned.code is not None:
        code = Path(planned.code)
        found.append((str(code if code.is_dir() else code.parent), root))
    return found


def _short_error(text: str) -> str:
    """The relevant part of a service's error message."""
    inner = re.search(r"\b\w*(?:JobFailed|NodePreempted|Error): ?(.+)", text)
    return (inner[0] if inner else text or "the workspace does not say why")[:300]
