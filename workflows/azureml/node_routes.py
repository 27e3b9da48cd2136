"""Routes to the gates of one step: first through the relay, then over the network where the relay fails.

With the relay, a gate listens only on 127.0.0.1 of its container. Where the relay fails, a tag asks the node to open a
port on its network that leads to the same gate; see azureml_debuggee/network_port.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any

from ..background import log
from ..debuggee.azureml_debuggee.network_port import WANTED
from ..errors import UserError
from .announcements import GateAddress
from .forwarding import ContainerTransport, NetworkTransport, reason_unreachable
from .relay.container import Container
from .relay.services import SERVICE_LOG, RunRelay

#: Seconds that a job's ssh service may take to come up: 30 to 120 are usual.
RELAY_SECONDS = 180.0
#: Seconds for a node to open a port on its network after it was asked to.
NETWORK_SECONDS = 30.0
#: Seconds between two attempts: while a route may still come up, and after it was given up.
RETRY_SECONDS, LATER_RETRY_SECONDS = 1.0, 15.0


class NodeRoutes:
    """The routes to one step's nodes.

    Args:
        reach: ``auto``, ``relay`` or ``network``.
        relay: The run's relay; None where it has none.
        token: The token that the gates require.
        host_keys: Returns the fingerprints that the step's container on a node has announced by now.
        set_tag: Sets a tag of a job's run, which the job can read.

    Attributes:
        state: What is being waited for, as text for people; empty where nothing is.
    """

    def __init__(
        self,
        reach: str,
        relay: RunRelay | None,
        token: str,
        host_keys: Callable[[int], Collection[str]] = lambda node: (),
        set_tag: Callable[[str, str, str], object] = lambda run_id, name, value: None,
    ) -> None:
        self.state = ""
        self._reach, self._relay, self._token, self._host_keys, self._set_tag = reach, relay, token, host_keys, set_tag
        self._network = NetworkTransport(token)
        self._first_attempts: dict[tuple[str, int], float] = {}
        self._network_requested_at = 0.0
        self._relay_trouble = ""

    @property
    def in_container(self) -> bool:
        """Whether gates listen only in their containers."""
        return self._relay is not None

    def _container(self, run_id: str, node: int) -> Container:
        assert self._relay is not None
        return self._relay.container(run_id, node, lambda: self._host_keys(node))

    def transport(self, run_id: str, node: int, place: GateAddress) -> Any:
        """The object that opens connections to a gate; it has the interface of an SSH transport."""
        if not place.in_container:
            return self._network
        return ContainerTransport(self._container(run_id, node), self._token)

    def prepare(self, run_id: str, node: int) -> None:
        """Connect to a node's container before its gate listens; this can take seconds."""
        if self.in_container:
            container = self._container(run_id, node)
            self.state = "" if container(0.0) is not None else f"relay: {container.trouble}"

    def reason_unreachable(self, run_id: str, node: int, place: GateAddress) -> str | None:
        """Why a gate cannot be reached; empty where it can, None while that may still change soon.

        This tries to connect, which can take seconds.

        Args:
            run_id: The job's run.
            node: The node, counted from 0.
            place: Where the gate says that it listens.
        """
        if not place.in_container:
            why = reason_unreachable(place[:2], self._token)
            if why and self._relay_trouble:
                why = f"{self._relay_trouble}; over the network: {why}"
            self.state = ""
            return why
        began = self._first_attempts.setdefault((run_id, node), time.monotonic())
        container = self._container(run_id, node)
        if container(0.0) is not None:
            inner = ContainerTransport(container, self._token).reason_unreachable(place[:2])
            self.state = ""
            return inner and f"in its container: {inner}"
        self.state = f"relay: {container.trouble}"
        if not container.hopeless and time.monotonic() - began < RELAY_SECONDS:
            return None
        self._relay_trouble = self.state
        if self._reach == "relay":
            self.state = ""
            return f"{self._relay_trouble}; {SERVICE_LOG} in the job's logs may say more"
        return self._request_network_port(run_id)

    def _request_network_port(self, run_id: str) -> str | None:
        """Ask the node to open a port on its network; returns a reason once that has taken too long, None before."""
        if not self._network_requested_at:
            try:
                self._set_tag(run_id, *WANTED)
            except Exception as error:
                if not isinstance(error, (UserError, OSError)):
                    raise
                log(f"the tag that asks the node for a port on its network cannot be set: {error}")
                return None
            self._network_requested_at = time.monotonic()
            log(f"{self._relay_trouble}: trying the network")
        self.state = f"{self._relay_trouble}; a port on the node's network"
        if time.monotonic() - self._network_requested_at < NETWORK_SECONDS:
            return None
        self.state = ""
        return f"{self._relay_trouble}; the node has opened no port on its network"

    def close(self, run_id: str) -> None:
        """Close the connections to a job's containers."""
        if self._relay is not None and run_id:
            self._relay.close(run_id)
