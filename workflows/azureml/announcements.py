"""Reads what a step on a node announces about its debugger, from tags or its log, and turns it into debuggee events.

For the tags see azureml_debuggee/tags.py. The log has the published lines, such as ``ip_address: …``. An event from a
tag carries the process's own id. An event from the log carries a negative number, since the log does not name its
processes.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .. import received

PREFIX = "azureml_debug."
_PLACE = re.compile(r"(?P<host>[^\s:]+|\[[^\]\s]+\]):(?P<port>[0-9]{1,5})")
_LINES = re.compile(
    r"^(?:azureml_debug: (?P<root>source root .+)|azureml_debug: host key (?P<key>\S+)"
    r"|azureml_debug: node (?P<node>[0-9]{1,5})"
    r"|Timeout for debug connection: (?P<timeout>\S+)|ip_address: (?P<host>\S+)|debug_port: (?P<port>[0-9]{1,5})"
    r"|rank: (?P<rank>[0-9]{1,6})|Debugger attached = (?P<attached>True|False))\s*$"
)
_NUMBER = re.compile(r"[0-9]{1,6}")
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
#: Fingerprints of one step's containers that are kept.
_MAX_KEYS = 4096
#: Characters of a tag that are parsed.
_MAX_TAG_LETTERS = 20_000
#: The port that is assumed where the published lines of a script name none.
PUBLISHED_PORT = 5678


class GateAddress(NamedTuple):
    """Where a gate listens.

    Attributes:
        host: Its address.
        port: Its port.
        in_container: Whether only its own container can reach that address.
    """

    host: str
    port: int
    in_container: bool = False


@dataclass
class StepState:
    """What is known so far about one step's debugger.

    Attributes:
        root: The folder with its code on the node; empty while unknown.
        addresses: Host and port of each gate, by rank.
        network_addresses: Where gates that listen in their own containers are reached over the nodes' network, by rank.
        local_nodes: Whether a node may be this machine.
        in_container: Whether a gate may listen on 127.0.0.1 of its own container.
        nodes: The node that a rank is on, counted from 0, for ranks that announced it.
        keys: Fingerprints of the SSH host keys of its containers, by node.
    """

    root: str = ""
    addresses: dict[int, tuple[str, int]] = field(default_factory=dict)
    network_addresses: dict[int, tuple[str, int]] = field(default_factory=dict)
    local_nodes: bool = False
    in_container: bool = False
    nodes: dict[int, int] = field(default_factory=dict)
    keys: dict[int, set[str]] = field(default_factory=dict)

    def gate(self, rank: int) -> GateAddress | None:
        """Where a rank's gate can be reached; None while that is unknown."""
        if rank in self.network_addresses:
            return GateAddress(*self.network_addresses[rank])
        known = self.addresses.get(rank)
        return (
            GateAddress(*known, in_container=self.in_container and _is_loopback(known[0]))
            if known is not None
            else None
        )

    def node_address(self, host: str, port: str) -> tuple[str, int] | None:
        """The address at which a node says that it listens; None where it cannot be a node's."""
        return node_address(host, port, self.local_nodes or self.in_container)

    def add_host_keys(self, node: int, text: str) -> None:
        """Add the fingerprints that a node announced."""
        found = {word for word in text.split() if _FINGERPRINT.fullmatch(word)}
        if sum(map(len, self.keys.values())) + len(found) <= _MAX_KEYS:
            self.keys.setdefault(node, set()).update(found)


@dataclass
class TagReader:
    """Turns a run's tags into events; each event is returned once."""

    state: StepState
    _seen: dict[int, list[str]] = field(default_factory=dict)

    def read(self, tags: Mapping[str, str | None]) -> list[dict[str, Any]]:
        """The events in the tags that were not returned before."""
        self.state.root = _code_root(tags.get(f"{PREFIX}root")) or self.state.root
        found: list[dict[str, Any]] = []
        for name, value in tags.items():
            number = name.removeprefix(PREFIX)
            about, _dot, which = number.partition(".")
            if about == "hostkeys" and _NUMBER.fullmatch(which) and isinstance(value, str):
                self.state.add_host_keys(int(which), value[:_MAX_TAG_LETTERS])
                continue
            if about == "node" and _NUMBER.fullmatch(which) and _NUMBER.fullmatch(str(value)):
                self.state.nodes[int(which)] = int(str(value))
                continue
            if number.startswith("network.") and isinstance(value, str):
                self._read_network(number.removeprefix("network."), value)
                continue
            if name == number or not re.fullmatch(r"[0-9]{1,6}", number) or not isinstance(value, str):
                continue
            rank = int(number)
            place, _space, listed = value.partition(" ")
            match = _PLACE.fullmatch(place)
            address = self.state.node_address(match["host"].strip("[]"), match["port"]) if match is not None else None
            if address is not None:
                self.state.addresses[rank] = address
            words = [
                word for word in listed[:_MAX_TAG_LETTERS].split(",") if re.fullmatch(r"[0-9]{1,10}:[a-z-]{1,30}", word)
            ]
            error = received.display_text(str(tags.get(f"{PREFIX}error.{rank}") or ""), "an error", 1000)
            for word in _new_entries(self._seen.get(rank, []), words):
                pid, _colon, kind = word.partition(":")
                event: dict[str, Any] = {"event": kind, "pid": int(pid), "rank": rank}
                if kind == "listening" and rank in self.state.addresses:
                    event["host"], event["port"] = self.state.addresses[rank]
                if kind == "raised":
                    event["type"], _colon, event["message"] = error.partition(": ")
                if kind == "gate-failed":
                    event["message"] = error
                found.append(event)
            self._seen[rank] = words
        return found

    def _read_network(self, rank: str, value: str) -> None:
        match = _PLACE.fullmatch(value)
        if match is None or not re.fullmatch(r"[0-9]{1,6}", rank):
            return
        address = node_address(match["host"].strip("[]"), match["port"], self.state.local_nodes)
        if address is not None:
            self.state.network_addresses[int(rank)] = address


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def node_address(host: str, port: str, local_nodes: bool = False) -> tuple[str, int] | None:
    """The address at which a node says that it listens; None where it cannot be a node's.

    The run's token and the editor's messages are sent to that address, so it must be neither a service of this
    machine nor a broadcast address.
    """
    try:
        found = received.address(host, "a node's address"), received.number(int(port), "a node's port", 1024, 65535)
    except received.Refused:
        return None
    try:
        address = ipaddress.ip_address(found[0])
    except ValueError:
        return found if local_nodes or not found[0].lower().rstrip(".").endswith("localhost") else None
    own = (
        (address.is_loopback and not local_nodes)
        or address.is_unspecified
        or address.is_multicast
        or address.is_link_local
    )
    return None if own or str(address) == "255.255.255.255" else found


def _code_root(text: object) -> str:
    """The folder with a step's code on its node; empty where the text is not a path."""
    try:
        return received.absolute_path(text, "a folder")
    except received.Refused:
        return ""


def _new_entries(before: list[str], now: list[str]) -> list[str]:
    """The new entries of a list of which only the last entries are announced."""
    for shift in range(len(before) + 1):
        rest = before[shift:]
        if now[: len(rest)] == rest:
            return now[len(rest) :]
    return now


@dataclass
class LogReader:
    """Turns the published lines of one log into events.

    Args:
        rank: The rank whose log it is. Where several ranks share a log, its own lines name the rank.
    """

    state: StepState
    rank: int = 0
    _host: str = ""
    _port: int = 0
    _node: int = 0
    _rank: int | None = None
    _scripts: int = 0
    _pending: bool = False

    def read(self, lines: list[str]) -> Iterator[dict[str, Any]]:
        """The events in further lines."""
        for line in lines:
            match = _LINES.match(line)
            if self._pending and (match is None or match["attached"]):
                # The gate's address has to be reported before any later event of the program.
                yield from self._gate_events()
            if match is None:
                continue
            if match["root"]:
                self.state.root = _code_root(match["root"].removeprefix("source root ")) or self.state.root
            elif match["node"]:
                self._node = self.state.nodes[self.rank] = int(match["node"])
            elif match["key"]:
                self.state.add_host_keys(self._node, match["key"])
            elif match["timeout"]:
                self._host, self._port, self._rank = "", PUBLISHED_PORT, None
            elif match["host"]:
                self._host, self._pending = match["host"], True
            elif match["port"]:
                self._port = int(match["port"])
            elif match["rank"]:
                self._rank = int(match["rank"])
            elif match["attached"] and self._host:
                kind = "attached" if match["attached"] == "True" else "not-attached"
                yield {"event": kind, "pid": -self._scripts, "rank": self._current_rank}

    def flush(self) -> Iterator[dict[str, Any]]:
        """The events that are still pending when no further line has arrived."""
        if self._pending:
            yield from self._gate_events()

    @property
    def _current_rank(self) -> int:
        return self._rank if self._rank is not None else self.rank

    def _gate_events(self) -> Iterator[dict[str, Any]]:
        self._pending = False
        place = self.state.node_address(self._host.strip("[]"), str(self._port or PUBLISHED_PORT))
        if place is None:
            return
        self._scripts += 1
        self.state.addresses[self._current_rank] = place
        # The log does not name its processes, so they are numbered.
        own = {"pid": -self._scripts, "rank": self._current_rank}
        yield {"event": "listening", **own, "host": place[0], "port": place[1]}
        yield {"event": "waiting", **own}


class Announcements:
    """The events to report for each rank: those of its tags, or those of its log where it has no tags.

    Args:
        patience: Seconds that a rank's tags may arrive after the first lines of its log. Tags say more, such as which
            exception was raised.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._tagged: set[int] = set()
        self._logged: dict[int, float] = {}  # when a rank's log had its first event
        self._pending: list[dict[str, Any]] = []
        self._reported: set[tuple[int, int]] = set()  # ranks and processes that were reported from the log

    def add_log_events(self, events: Iterable[dict[str, Any]], now: float) -> None:
        """Add events from the logs, except those of ranks that have tags.

        Args:
            events: The events.
            now: The time in seconds, by any clock.
        """
        for event in events:
            if event["rank"] not in self._tagged:
                self._logged.setdefault(event["rank"], now)
                self._pending.append(event)

    def add_tag_events(self, events: Iterable[dict[str, Any]]) -> None:
        """Add events from the tags.

        Events from the log of the same ranks are dropped, or revoked where they were already reported.
        """
        events = list(events)
        ranks = {event["rank"] for event in events}
        back = sorted(one for one in self._reported if one[0] in ranks)
        self._reported.difference_update(back)
        self._pending = [event for event in self._pending if event["rank"] not in ranks or not self._is_from_log(event)]
        self._pending += [{"event": "not-attached", "pid": pid, "rank": rank} for rank, pid in back]
        self._pending += events
        self._tagged |= ranks

    def due(self, now: float) -> dict[int, list[dict[str, Any]]]:
        """The events that can be reported by now, by rank and in order, until they are marked as reported."""
        found: dict[int, list[dict[str, Any]]] = {}
        for event in self._pending:
            if not self._is_from_log(event) or now - self._logged[event["rank"]] >= self._patience:
                found.setdefault(event["rank"], []).append(event)
        return found

    def mark_reported(self, events: list[dict[str, Any]]) -> None:
        """Record that these events, out of those that were due, have been reported."""
        self._reported |= {(event["rank"], event["pid"]) for event in events if self._is_from_log(event)}
        self._pending = [event for event in self._pending if event not in events]

    def _is_from_log(self, event: dict[str, Any]) -> bool:
        """Whether an event comes from the log; the events that revoke such a one do not count."""
        return event["pid"] < 0 and event["rank"] not in self._tagged
