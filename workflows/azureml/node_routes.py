"""The way to the gates of one step: through the relay first, over the network where that does not lead there.

A gate that the relay leads to listens on 127.0.0.1 of its container only. Where the relay gives up, the node is asked
to open a port on its network, which leads to the same gate; see azureml_debuggee/network_port.py.
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
#: Seconds for a node to open a port on its network once it is asked to.
NETWORK_SECONDS = 30.0
#: Seconds between two attempts while the way may still come, and once it has been given up.
SOON, LATER = 1.0, 15.0


class NodeRoutes:
    """The ways to one step.

    Args:
        reach: ``auto``, ``relay`` or ``network``.
        relay: The run's relay; None where it has none.
        token: What gates ask for.
        host_keys: Fingerprints that the step's container on a node has announced by now.
        ask: Sets a tag of a job's run, which the job sees.

    Attributes:
        state: What is waited for, for people; empty where nothing is.
    """

    def __init__(
        self,
        reach: str,
        relay: RunRelay | None,
        token: str,
        host_keys: Callable[[int], Collection[str]] = lambda node: (),
        ask: Callable[[str, str, str], object] = lambda run_id, name, value: None,
    ) -> None:
        self.state = ""
        self._reach, self._relay, self._token, self._host_keys, self._ask = reach, relay, token, host_keys, ask
        self._network = NetworkTransport(token)
        self._began: dict[tuple[str, int], float] = {}
        self._asked = 0.0
        self._refusal = ""

    @property
    def inside(self) -> bool:
        """Whether gates listen in their containers only."""
        return self._relay is not None

    def _container(self, run_id: str, node: int) -> Container:
        assert self._relay is not None
        return self._relay.container(run_id, node, lambda: self._host_keys(node))

    def transport(self, run_id: str, node: int, place: GateAddress) -> Any:
        """What carries connections to a place; in the place of an SSH transport."""
        if not place.inside:
            return self._network
        return ContainerTransport(self._container(run_id, node), self._token)

    def prepare(self, run_id: str, node: int) -> None:
        """Connect to a node's container before its gate is there; it may take seconds."""
        if self.inside:
            container = self._container(run_id, node)
            self.state = "" if container(0.0) is not None else f"relay: {container.trouble}"

    def reason_unreachable(self, run_id: str, node: int, place: GateAddress) -> str | None:
        """Why a gate cannot be reached, empty where it can; None while that may still change soon. It takes a while.

        Args:
            run_id: The job's run.
            node: The node, counted from 0.
            place: Where the gate says that it listens.
        """
        if not place.inside:
            why = reason_unreachable(place[:2], self._token)
            if why and self._refusal:
                why = f"{self._refusal}; over the network: {why}"
            self.state = ""
            return why
        began = self._began.setdefault((run_id, node), time.monotonic())
        container = self._container(run_id, node)
        if container(0.0) is not None:
            inner = ContainerTransport(container, self._token).reason_unreachable(place[:2])
            self.state = ""
            return inner and f"in its container: {inner}"
        self.state = f"relay: {container.trouble}"
        if not container.hopeless and time.monotonic() - began < RELAY_SECONDS:
            return None
        self._refusal = self.state
        if self._reach == "relay":
            self.state = ""
            return f"{self._refusal}; {SERVICE_LOG} in the job's logs may say more"
        return self._over_the_network(run_id)

    def _over_the_network(self, run_id: str) -> str | None:
        """Have the node open a port on its network; None until that has taken too long."""
        if not self._asked:
            try:
                self._ask(run_id, *WANTED)
            except Exception as error:
                if not isinstance(error, (UserError, OSError)):
                    raise
                log(f"the node cannot be asked for a port on its network: {error}")
                return None
            self._asked = time.monotonic()
            log(f"{self._refusal}: the network is tried")
        self.state = f"{self._refusal}; a port on the node's network"
        if time.monotonic() - self._asked < NETWORK_SECONDS:
            return None
        self.state = ""
        return f"{self._refusal}; the node has opened no port on its network"

    def close(self, run_id: str) -> None:
        """End the connections to a job's containers."""
        if self._relay is not None and run_id:
            self._relay.close(run_id)
