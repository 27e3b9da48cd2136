"""Services of jobs: an OpenSSH server in the "container", which can only be reached through a websocket.

A websocket at `…/nbip/v1.0/ws-tcp` carries the bytes of the connection to the job's sshd, as binary frames.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import shutil
import socket
import struct
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from .nodes import Node
from .state import Run, State
from .tokens import claims_of
from .web import HttpError, Request, Route, not_found, route

_SSHD = "/usr/sbin/sshd"
#: RFC 6455, section 1.3.
_HANDSHAKE = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
PATH = "/nbip/v1.0/ws-tcp"
USER = "azureuser"
_AS_CONTAINER = 'for file in passwd shadow; do mount --bind "$0/$file" "/etc/$file" || exit; done; exec "$@"'


@dataclass
class Service:
    """One service of a run.

    Attributes:
        kind: `SSH`, `VSCode`, …
        status: `Starting`, `Running`, `Failed`, `Terminated`.
        error: Why it failed.
        properties: What it says of itself once it runs.
        process: Its sshd.
        name: The name by which the relay knows it.
        node: The node that it is on, counted from 0.
        where: That node; None where it is this machine.
    """

    kind: str
    status: str = "Starting"
    error: str = ""
    properties: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    name: str = ""
    node: int = 0
    where: Node | None = None


@dataclass
class Relay:
    """How services and the relay behave.

    Attributes:
        sshd: Further lines of every sshd_config, such as `AllowTcpForwarding no`.
        missing: Why no sshd comes up, such as that the image has none; empty where one does.
        after: Seconds that a service takes to come up.
        answer: The status with which the relay answers in place of a websocket; 0 for none.
        silent: Whether it never answers.
        closes: Whether it closes a websocket at once.
        ended: The time, in seconds since 1970, up to which all tokens end whatever they say: the relay refuses them.
        shown: When the tokens end, by their own word, that have been let in.
        peers: The ports from which those have come that were let in.
    """

    sshd: str = ""
    missing: str = ""
    after: float = 0.0
    answer: int = 0
    silent: bool = False
    closes: bool = False
    ended: float = 0.0
    shown: list[int] = field(default_factory=list)
    peers: list[int] = field(default_factory=list)


class Services:
    """Args:
    state: The workspace.
    relay: How they behave; looked at whenever it matters.
    """

    def __init__(self, state: State, relay: Relay) -> None:
        self._state, self._relay = state, relay
        self._lock = threading.Lock()
        self._services: dict[str, dict[tuple[str, int], Service]] = {}
        self._places: dict[tuple[str, int], tuple[Node | None, int]] = {}
        self._nodes: dict[str, list[Node]] = {}
        #: Called on each node that is made: makes the workspace listen there.
        self.on_node: Callable[[], object] = lambda: None
        self._connections: set[socket.socket] = set()
        self._silent = threading.Event()

    def routes(self) -> list[Route]:
        return [route("GET", "/history/v1.0{ws}/runs/{run}/serviceinstances/{node}", self.instances)]

    def instances(self, request: Request) -> Any:
        if request["run"] not in self._state.runs:
            raise not_found(f"Run {request['run']}")
        with self._lock:
            known = {
                name: one
                for (name, node), one in self._services.get(request["run"], {}).items()
                if str(node) == request["node"]
            }
        return {
            "instances": {
                name: {
                    "type": one.kind,
                    "port": None,
                    "status": one.status,
                    "error": {"error": {"code": "ServiceFailed", "message": one.error}} if one.error else None,
                    "endpoint": None,
                    "properties": dict(one.properties),
                }
                for name, one in known.items()
            }
        }

    def status(self, run: Run, name: str) -> str | None:
        with self._lock:
            found = self._services.get(run.id, {}).get((name, 0))
        return found.status if found is not None else None

    def prepare(self, run: Run, wanted: Mapping[str, Mapping[str, Any]], count: int = 1) -> list[Node]:
        """Start what a job asks for, each in its own time.

        Returns:
            The job's nodes, where it has several and asks for something on them; otherwise none: it is on this machine.
        """
        nodes: list[Node] = []
        if count > 1 and wanted:
            nodes = [Node(number) for number in range(count)]
            with self._lock:
                self._nodes[run.id] = nodes
            for one in nodes:
                one.do(self.on_node)
        for name, told in wanted.items():
            kind = str(told.get("jobServiceType") or told.get("job_service_type") or told.get("type") or "")
            keys = str((told.get("properties") or {}).get("sshPublicKeys", ""))
            everywhere = "all" in str(told.get("nodes")).lower()
            for number in range(count if everywhere else 1):
                where = nodes[number] if nodes else None
                service = Service(kind, name=uuid.uuid4().hex, node=number, where=where)
                with self._lock:
                    known = self._services.setdefault(run.id, {})
                    # The relay knows the nodes of one service by one name.
                    service.name = known[name, 0].name if number else service.name
                    known[name, number] = service
                threading.Thread(target=self._start, args=(run, service, keys), daemon=True).start()
        return nodes

    def _start(self, run: Run, service: Service, keys: str) -> None:
        while run.status not in ("Running", "Finalizing") and not run.cancelled.wait(0.02):
            if run.ended:
                return
        if run.cancelled.wait(self._relay.after) or service.kind.upper() != "SSH":
            return
        if self._relay.missing or not Path(_SSHD).is_file():
            service.status, service.error = "Failed", self._relay.missing or "sshd is not installed"
            return
        port = self._sshd(service, keys)
        with self._lock:
            self._places[service.name, service.node] = (service.where, port)
        host = self._state.url.partition("://")[2]
        service.properties["ProxyEndpoint"] = f"wss://{host}/node/{service.name}-<nodeIndex>"
        service.status = "Running"

    def _sshd(self, service: Service, keys: str) -> int:
        folder = self._folder(service)
        folder.mkdir(parents=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "host")], check=True)
        (folder / "keys").write_text(keys + "\n")
        port = _free_port()
        (folder / "sshd_config").write_text(
            f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/keys\n"
            f"PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\n{self._relay.sshd}\n"
        )
        os.makedirs("/run/sshd", exist_ok=True)
        for name, line in (("passwd", f"{USER}:x:0:0::/:/bin/sh"), ("shadow", f"{USER}:*:19000:0:99999:7:::")):
            # The first line with a name counts.
            (folder / name).write_text(f"{line}\n" + Path("/etc", name).read_text())
        # A container's own users: this machine has no such user.
        users = ["unshare", "--mount", "sh", "-c", _AS_CONTAINER, str(folder)]
        with (folder / "log").open("ab") as log:
            command = [*users, _SSHD, "-D", "-e", "-f", str(folder / "sshd_config")]
            if service.where is not None:
                command = service.where.within(folder, command)
            service.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), _connect(service.where, port):
                break
            time.sleep(0.02)
        return port

    def _folder(self, service: Service) -> Path:
        return self._state.root / "ssh" / f"{service.name}-{service.node}"

    def host_key(self, run: Run, name: str) -> str:
        """The public key that a run's sshd shows."""
        return (self._folder(self._services[run.id][name, 0]) / "host.pub").read_text()

    def end(self, run: Run) -> None:
        """The run has ended, and its container with it."""
        with self._lock:
            ended = self._services.get(run.id, {})
        for service in ended.values():
            service.status = "Terminated" if not service.error else service.status
            if service.process is not None:
                service.process.terminate()
                service.process.wait(10)
                service.process = None
            with self._lock:
                self._places.pop((service.name, service.node), None)
        with self._lock:
            nodes = self._nodes.pop(run.id, [])
        for node in nodes:
            node.close()

    def close(self) -> None:
        """End all."""
        for run in list(self._state.runs.values()):
            self.end(run)
        self.drop()
        shutil.rmtree(self._state.root / "ssh", ignore_errors=True)

    def drop(self) -> None:
        """Close the websockets that are open."""
        with self._lock:
            open_ = list(self._connections)
        for one in open_:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """For as long, nothing comes through the websockets, which stay open."""
        self._silent.set()
        try:
            yield
        finally:
            self._silent.clear()

    # The relay

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer a request for a websocket, and carry what goes through it until it ends.

        Raises:
            HttpError: There is none.
        """
        if self._relay.silent:
            time.sleep(60)
        if self._relay.answer:
            raise HttpError(self._relay.answer, "RelayError", "The relay does not answer.")
        claims = claims_of((handler.headers.get("Authorization") or "").removeprefix("Bearer "))
        if not isinstance(claims.get("exp"), int) or claims["exp"] < max(time.time(), self._relay.ended):
            raise HttpError(401, "Unauthorized", "No token, or one that has ended.")
        node, place = self._place(handler.path.split("?")[0], str(claims.get("oid")))
        self._relay.shown.append(claims["exp"])
        self._relay.peers.append(handler.client_address[1])
        digest = hashlib.sha1(handler.headers["Sec-WebSocket-Key"].encode() + _HANDSHAKE, usedforsecurity=False)
        handler.wfile.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + base64.b64encode(digest.digest()) + b"\r\n\r\n"
        )
        handler.wfile.flush()
        handler.close_connection = True
        if self._relay.closes:
            # Its closing frame, and nothing else.
            handler.wfile.write(b"\x88\x02\x03\xe8")
            handler.wfile.flush()
            return
        with self._lock:
            self._connections.add(handler.connection)
        try:
            inner = _connect(node, place[1]) if node is not None else socket.create_connection(place)
            _carry(handler, inner, self._silent)
        finally:
            with self._lock:
                self._connections.discard(handler.connection)

    def _place(self, path: str, user: str) -> tuple[Node | None, tuple[str, int]]:
        """Where the SSH server is that a path leads to, and on which node."""
        if path.startswith("/instance/"):
            name = path.removesuffix(f"{PATH}/port/22").removeprefix("/instance/")
            found = self._state.computes.get(name)
            if found is None or found.sshd is None or found.power != "Running":
                raise HttpError(404, "NotFound", "No such instance, or it does not run.")
            if found.owner != user:
                raise HttpError(403, "Forbidden", "It belongs to somebody else.")
            return None, found.sshd
        name, _, node = path.partition("/node/")[2].partition("/")[0].rpartition("-")
        with self._lock:
            found_place = self._places.get((name, int(node) if node.isdigit() else -1))
        if found_place is None or not path.endswith(PATH):
            raise HttpError(404, "NotFound", "No such node.")
        return found_place[0], ("127.0.0.1", found_place[1])


def _connect(node: Node | None, port: int) -> socket.socket:
    """A connection to a port of 127.0.0.1, on a node or here."""
    return node.connect(port) if node is not None else socket.create_connection(("127.0.0.1", port), 0.5)


def _carry(handler: BaseHTTPRequestHandler, inner: socket.socket, silent: threading.Event) -> None:
    """Bytes between a websocket and a connection, both ways, until either ends; held back while it is silent."""
    lock = threading.Lock()

    def send(kind: int, data: bytes) -> None:
        size = len(data)
        head = bytes([0x80 | kind])
        if size < 126:
            head += bytes([size])
        elif size < 1 << 16:
            head += b"\x7e" + struct.pack(">H", size)
        else:
            head += b"\x7f" + struct.pack(">Q", size)
        while silent.is_set():
            time.sleep(0.02)
        with lock:
            handler.wfile.write(head + data)
            handler.wfile.flush()

    with inner:
        inner.settimeout(None)
        inner.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def down() -> None:
            with contextlib.suppress(OSError, ValueError):
                while data := inner.recv(1 << 15):
                    send(2, data)
                send(8, struct.pack(">H", 1000))

        thread = threading.Thread(target=down, daemon=True)
        thread.start()
        with contextlib.suppress(OSError, ValueError, struct.error):
            while (frame := _frame(handler)) is not None:
                kind, data = frame
                if kind == 9:
                    send(10, data)
                elif kind in (0, 1, 2):
                    inner.sendall(data)
        with contextlib.suppress(OSError):
            inner.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def _frame(handler: BaseHTTPRequestHandler) -> tuple[int, bytes] | None:
    """The next frame of a client, which masks what it sends; None at its end."""
    head = handler.rfile.read(2)
    if len(head) < 2 or head[0] & 15 == 8:
        return None
    size = head[1] & 127
    if size == 126:
        (size,) = struct.unpack(">H", handler.rfile.read(2))
    elif size == 127:
        (size,) = struct.unpack(">Q", handler.rfile.read(8))
    mask = handler.rfile.read(4)
    data = handler.rfile.read(size)
    if len(data) < size:
        return None
    repeated = (mask * (size // 4 + 1))[:size]
    plain = int.from_bytes(data, "big") ^ int.from_bytes(repeated, "big")
    return head[0] & 15, plain.to_bytes(size, "big")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
