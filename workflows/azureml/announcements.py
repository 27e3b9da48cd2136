"""What a step on a node says of its debugger, in tags or in its log, as events of the debuggee.

Tags: see azureml_debuggee/tags.py. The log has the published lines, ``ip_address: …`` and so on. An event of a tag
has the process's own number; one of the log a negative one, since the log does not name its processes.
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
_KEYS = 4096
#: Letters of a tag that are looked at.
_LETTERS = 20_000
#: The published lines name no port where a script says itself where it listens.
PUBLISHED_PORT = 5678


class GateAddress(NamedTuple):
    """Where a gate listens.

    Attributes:
        host: Its address.
        port: Its port.
        inside: Whether that is in its own container only.
    """

    host: str
    port: int
    inside: bool = False


@dataclass
class StepState:
    """What is known of one step so far.

    Attributes:
        root: The folder with its code on the node; empty while unknown.
        places: Host and port of the gates by rank.
        network: Where the nodes' network leads to those that listen in their own containers, by rank.
        here: Whether nodes may be this machine itself.
        inside: Whether a gate may listen in its own container only, on 127.0.0.1 there.
        nodes: The node that a rank is on, counted from 0, where that has been said.
        keys: Fingerprints of the SSH host keys of its containers, by node.
    """

    root: str = ""
    places: dict[int, tuple[str, int]] = field(default_factory=dict)
    network: dict[int, tuple[str, int]] = field(default_factory=dict)
    here: bool = False
    inside: bool = False
    nodes: dict[int, int] = field(default_factory=dict)
    keys: dict[int, set[str]] = field(default_factory=dict)

    def place(self, rank: int) -> GateAddress | None:
        """Where a rank can be reached; None while that is not known."""
        if rank in self.network:
            return GateAddress(*self.network[rank])
        known = self.places.get(rank)
        return GateAddress(*known, inside=self.inside and _is_loopback(known[0])) if known is not None else None

    def node(self, host: str, port: str) -> tuple[str, int] | None:
        """Where a node says that it listens; None for what no node is."""
        return node(host, port, self.here or self.inside)

    def add_host_keys(self, node: int, text: str) -> None:
        """Take a node's fingerprints."""
        found = {word for word in text.split() if _FINGERPRINT.fullmatch(word)}
        if sum(map(len, self.keys.values())) + len(found) <= _KEYS:
            self.keys.setdefault(node, set()).update(found)


@dataclass
class TagReader:
    """Turns a run's tags into events, each once."""

    said: StepState
    _seen: dict[int, list[str]] = field(default_factory=dict)

    def read(self, tags: Mapping[str, str | None]) -> list[dict[str, Any]]:
        """The events that are new in the tags."""
        self.said.root = _root(tags.get(f"{PREFIX}root")) or self.said.root
        found: list[dict[str, Any]] = []
        for name, value in tags.items():
            number = name.removeprefix(PREFIX)
            about, _dot, which = number.partition(".")
            if about == "hostkeys" and _NUMBER.fullmatch(which) and isinstance(value, str):
                self.said.add_host_keys(int(which), value[:_LETTERS])
                continue
            if about == "node" and _NUMBER.fullmatch(which) and _NUMBER.fullmatch(str(value)):
                self.said.nodes[int(which)] = int(str(value))
                continue
            if number.startswith("network.") and isinstance(value, str):
                self._hear_network(number.removeprefix("network."), value)
                continue
            if name == number or not re.fullmatch(r"[0-9]{1,6}", number) or not isinstance(value, str):
                continue
            rank = int(number)
            place, _space, listed = value.partition(" ")
            match = _PLACE.fullmatch(place)
            told = self.said.node(match["host"].strip("[]"), match["port"]) if match is not None else None
            if told is not None:
                self.said.places[rank] = told
            words = [word for word in listed[:_LETTERS].split(",") if re.fullmatch(r"[0-9]{1,10}:[a-z-]{1,30}", word)]
            error = received.display_text(str(tags.get(f"{PREFIX}error.{rank}") or ""), "an error", 1000)
            for word in _new(self._seen.get(rank, []), words):
                pid, _colon, kind = word.partition(":")
                event: dict[str, Any] = {"event": kind, "pid": int(pid), "rank": rank}
                if kind == "listening" and rank in self.said.places:
                    event["host"], event["port"] = self.said.places[rank]
                if kind == "raised":
                    event["type"], _colon, event["message"] = error.partition(": ")
                if kind == "gate-failed":
                    event["message"] = error
                found.append(event)
            self._seen[rank] = words
        return found

    def _hear_network(self, rank: str, value: str) -> None:
        match = _PLACE.fullmatch(value)
        if match is None or not re.fullmatch(r"[0-9]{1,6}", rank):
            return
        told = node(match["host"].strip("[]"), match["port"], self.said.here)
        if told is not None:
            self.said.network[int(rank)] = told


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def node(host: str, port: str, here: bool = False) -> tuple[str, int] | None:
    """Where a node says that it listens; None for what no node is.

    Whoever connects there sends the run's token, and what the editor says: not to this machine's own services, nor to
    everybody on a network.
    """
    try:
        found = received.address(host, "a node's address"), received.number(int(port), "a node's port", 1024, 65535)
    except received.Refused:
        return None
    try:
        address = ipaddress.ip_address(found[0])
    except ValueError:
        return found if here or not found[0].lower().rstrip(".").endswith("localhost") else None
    own = (address.is_loopback and not here) or address.is_unspecified or address.is_multicast or address.is_link_local
    return None if own or str(address) == "255.255.255.255" else found


def _root(text: object) -> str:
    """The folder with a step's code on its node; empty for what is none."""
    try:
        return received.absolute_path(text, "a folder")
    except received.Refused:
        return ""


def _new(before: list[str], now: list[str]) -> list[str]:
    """What has come to a list of which only the last entries are told."""
    for shift in range(len(before) + 1):
        rest = before[shift:]
        if now[: len(rest)] == rest:
            return now[len(rest) :]
    return now


@dataclass
class LogReader:
    """Turns the published lines of one log into events.

    Args:
        rank: The rank whose log it is; a line of the log's own says it where several share one.
    """

    said: StepState
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
                # What is known of the place comes before anything else the program says.
                yield from self._waiting()
            if match is None:
                continue
            if match["root"]:
                self.said.root = _root(match["root"].removeprefix("source root ")) or self.said.root
            elif match["node"]:
                self._node = self.said.nodes[self.rank] = int(match["node"])
            elif match["key"]:
                self.said.add_host_keys(self._node, match["key"])
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
                yield {"event": kind, "pid": -self._scripts, "rank": self._which}

    def flush(self) -> Iterator[dict[str, Any]]:
        """What the lines so far say, when nothing more has come."""
        if self._pending:
            yield from self._waiting()

    @property
    def _which(self) -> int:
        return self._rank if self._rank is not None else self.rank

    def _waiting(self) -> Iterator[dict[str, Any]]:
        self._pending = False
        place = self.said.node(self._host.strip("[]"), str(self._port or PUBLISHED_PORT))
        if place is None:
            return
        self._scripts += 1
        self.said.places[self._which] = place
        # Processes are told apart by number alone: the log does not name them.
        own = {"pid": -self._scripts, "rank": self._which}
        yield {"event": "listening", **own, "host": place[0], "port": place[1]}
        yield {"event": "waiting", **own}


class Announcements:
    """What is to be told of each rank: what its tags say, and what its log says where they say nothing.

    Args:
        patience: Seconds that a rank's tags may come after the first lines of its log; they say more, such as what
            was raised.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._tagged: set[int] = set()
        self._logged: dict[int, float] = {}  # when a rank's log has said something first
        self._pending: list[dict[str, Any]] = []
        self._told: set[tuple[int, int]] = set()  # ranks and processes of which the log has told

    def log(self, events: Iterable[dict[str, Any]], now: float) -> None:
        """Take what the logs say, at a time in seconds by any clock; nothing of a rank that has tags."""
        for event in events:
            if event["rank"] not in self._tagged:
                self._logged.setdefault(event["rank"], now)
                self._pending.append(event)

    def tags(self, events: Iterable[dict[str, Any]]) -> None:
        """Take what the tags say. What the log has said of the same ranks is dropped, or taken back where told."""
        events = list(events)
        ranks = {event["rank"] for event in events}
        back = sorted(one for one in self._told if one[0] in ranks)
        self._told.difference_update(back)
        self._pending = [event for event in self._pending if event["rank"] not in ranks or not self._by_log(event)]
        self._pending += [{"event": "not-attached", "pid": pid, "rank": rank} for rank, pid in back]
        self._pending += events
        self._tagged |= ranks

    def due(self, now: float) -> dict[int, list[dict[str, Any]]]:
        """What can be told by now, by rank, in the order in which it was said; again until it is told."""
        found: dict[int, list[dict[str, Any]]] = {}
        for event in self._pending:
            if not self._by_log(event) or now - self._logged[event["rank"]] >= self._patience:
                found.setdefault(event["rank"], []).append(event)
        return found

    def told(self, events: list[dict[str, Any]]) -> None:
        """Take note that these, of what is due, have been told."""
        self._told |= {(event["rank"], event["pid"]) for event in events if self._by_log(event)}
        self._pending = [event for event in self._pending if event not in events]

    def _by_log(self, event: dict[str, Any]) -> bool:
        """Whether it is the log's; what takes such a one back is not."""
        return event["pid"] < 0 and event["rank"] not in self._tagged
