"""The server."""

from __future__ import annotations

import contextlib
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from .artifacts import Artifacts
from .assets import Assets
from .certificate import make_certificate, server_context
from .command_jobs import Jobs
from .datasets import Datasets
from .environments import Environments
from .execution import Execution
from .faults import Dropped, Faults
from .history import History
from .models import Models
from .packages import Packages
from .pipelines import Pipelines
from .registry import Registry
from .runner import Behaviour, Runner, clear
from .services import PATH, Relay, Services
from .sign_in import SignIn
from .snapshots import Snapshots
from .state import ENDED, Compute, Run, State
from .storage import Storage
from .tokens import claims_of
from .web import HttpError, Request, Response, Route, answer, find
from .workspace import Workspaces

#: What a client's processes have on their PYTHONPATH.
CLIENT = Path(__file__).resolve().parent / "client"
#: Seconds that clocks may differ.
_CLOCKS = 300.0


@dataclass(frozen=True)
class Seen:
    """A request that was answered."""

    method: str
    path: str
    status: int
    seconds: float
    #: When it came, by time.monotonic.
    at: float
    size: int


class AzureMLServer:
    """A workspace on 127.0.0.1.

    Args:
        root: A folder for its files; a temporary one by default, which is taken away at the end.
        python: The interpreter that runs steps; this one by default.
        subscription: The subscription's id.
        group: The resource group.
        workspace: The workspace's name.
        secure: Over HTTPS, as SDK v2 wants it; `authorities` is what its clients have to trust.
        **behaviour: See :class:`~azureml_server.runner.Behaviour`.
    """

    def __init__(
        self,
        root: Path | None = None,
        python: str = sys.executable,
        subscription: str = "11111111-2222-3333-4444-555555555555",
        group: str = "group",
        workspace: str = "workspace",
        secure: bool = False,
        **behaviour: Any,
    ) -> None:
        self._own = root is None
        self.root = root or Path(tempfile.mkdtemp(prefix="azureml-server-"))
        self.state = State(self.root, subscription, group, workspace)
        self.behaviour = Behaviour(**behaviour)
        self.faults = Faults()
        #: How the services of jobs behave, and the way to them.
        self.relay = Relay()
        self._secure = secure
        #: In how many days from now its certificate begins to be valid; looked at when it starts.
        self.certificate_days = -1.0
        self.requests: list[Seen] = []
        #: Requests that no route answers: something is missing here, or the client is a different one.
        self.unknown: list[str] = []
        self.runner = Runner(self.state, python, self.behaviour, CLIENT, str(self.certificate) if secure else "")
        registry, assets = Registry(self.state), Assets(self.state)
        #: Assets of SDK v2, of the workspace and of registries.
        self.assets = assets
        self.services = Services(self.state, self.relay)
        #: Jobs of SDK v2.
        self.jobs = Jobs(self.state, self.runner, assets, self.services)
        parts = (
            Workspaces(self.state),
            SignIn(self.state),
            History(self.state, self.runner.cancel),
            Artifacts(self.state),
            Storage(self.state),
            Snapshots(self.state),
            Environments(self.state),
            Datasets(self.state),
            Pipelines(self.state, self.runner, lambda: self.behaviour.closing_seconds),
            Execution(self.state, self.runner),
            Models(self.state),
            Packages(self.state, registry, lambda: self.behaviour.package_fails),
            registry,
            assets,
            self.jobs,
            self.services,
        )
        self._routes: list[Route] = [one for part in parts for one in part.routes()]
        self._server: _Server | None = None
        self._others: list[_Server] = []
        self._thread: threading.Thread | None = None

    def start(self) -> AzureMLServer:
        """Listen on a free port of 127.0.0.1."""
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        if self._secure:
            make_certificate(self.root, self.certificate_days)
            context = server_context(self.root)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        scheme = "https" if self._secure else "http"
        self.state.url = f"{scheme}://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.services.on_node = self._listen_on_node
        return self

    def _listen_on_node(self) -> None:
        """Listen at the same address in the network that this thread is in; it ends with the server."""
        assert self._server is not None
        made = _Server(("127.0.0.1", self._server.server_address[1]), _Handler)
        made.owner = self
        if self._secure:
            made.socket = server_context(self.root).wrap_socket(
                made.socket, server_side=True, do_handshake_on_connect=False
            )
        self._others.append(made)
        threading.Thread(target=made.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """End all runs and stop listening."""
        self.faults.clear()
        self.runner.close()
        self.services.close()
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join(10)
            self._server.end_connections()
            self._server.server_close()
            self._server = None
        for other in self._others:
            other.shutdown()
            other.end_connections()
            other.server_close()
        if self._own:
            clear(self.root)

    def __enter__(self) -> AzureMLServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # For tests

    @property
    def url(self) -> str:
        return self.state.url

    @property
    def authorities(self) -> Path:
        """What a client has to trust, as a bundle of certificates: this server's, and the system's."""
        return self.root / "authorities.pem"

    @property
    def certificate(self) -> Path:
        """This server's own alone, for those who talk to nobody else: to read the system's takes 26 ms."""
        return self.root / "certificate.pem"

    def add_compute(self, name: str, **more: Any) -> Compute:
        """A further compute target; see :class:`~azureml_server.state.Compute`."""
        with self.state.lock:
            return self.state.computes.setdefault(name, Compute(name, **more))

    def add_instance(self, name: str, sshd: tuple[str, int], **more: Any) -> Compute:
        """A compute instance, reached by its websocket.

        Args:
            name: Its name.
            sshd: Where its SSH server listens, as this machine reaches it.
            **more: See :class:`~azureml_server.state.Compute`.
        """
        return self.add_compute(name, type="ComputeInstance", sshd=sshd, **more)

    def steps(self, name: str | None = None) -> list[Run]:
        """The runs of steps, or of the steps of one name."""
        with self.state.lock:
            found = [run for run in self.state.runs.values() if run.type == "azureml.StepRun"]
            return [run for run in found if name is None or run.name == name]

    def wait(self, run: Run, *statuses: str, seconds: float = 60) -> Run:
        """Until a run is in one of these states; in one of the last ones by default."""
        deadline = time.monotonic() + seconds
        while run.status not in (statuses or ENDED):
            assert time.monotonic() < deadline and (run.status not in ENDED), f"{run.id} is {run.status}: {run.error}"
            time.sleep(0.02)
        return run

    def cancel(self, run: Run) -> None:
        """Cancel from elsewhere."""
        self.runner.cancel(run)

    def preempt(self, run: Run) -> None:
        """Take a run's node away."""
        self.runner.preempt(run)

    @contextlib.contextmanager
    def down(self) -> Iterator[None]:
        """For as long, the service closes every connection without an answer."""
        fault = self.faults.drop("")
        try:
            yield
        finally:
            self.faults.remove(fault)

    # For the handler

    def respond(self, request: Request, authorization: str | None) -> tuple[Response, bool]:
        """The answer to a request, and whether it is to be cut short.

        Raises:
            Dropped: There is none.
        """
        try:
            cut = self.faults.meet(request.method, request.path)
            found = find(self._routes, request.method, request.path)
            if found is None:
                self.unknown.append(f"{request.method} {request.path}")
                raise HttpError(404, "NotFound", f"No route answers {request.method} {request.path}.")
            route, names = found
            if route.authorized:
                _authorize(authorization, time.time() + self.state.clock)
            self._same_workspace(names)
            made = route.handler(Request(**{**request.__dict__, "names": names}))
            return (made if isinstance(made, Response) else answer(made)), cut
        except HttpError as error:
            return error.response(), False

    def _same_workspace(self, names: dict[str, str]) -> None:
        state = self.state
        wanted = {"subscription": state.subscription, "group": state.group, "workspace": state.workspace}
        if any(name in names and names[name].lower() != value.lower() for name, value in wanted.items()):
            if names.get("subscription", state.subscription).lower() != state.subscription.lower():
                raise HttpError(
                    404, "SubscriptionNotFound", f"The subscription '{names['subscription']}' could not be found."
                )
            if names.get("group", state.group).lower() != state.group.lower():
                raise HttpError(404, "ResourceGroupNotFound", f"Resource group '{names['group']}' could not be found.")
            raise HttpError(
                404,
                "ResourceNotFound",
                f"The Resource 'Microsoft.MachineLearningServices/workspaces/{names['workspace']}' under resource group"
                f" '{names['group']}' was not found.",
            )


def _authorize(authorization: str | None, now: float) -> None:
    if not authorization or not authorization.startswith("Bearer "):
        raise HttpError(401, "AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing.")
    claims = claims_of(authorization.removeprefix("Bearer "))
    expires, begins = claims.get("exp"), claims.get("nbf", 0)
    if not isinstance(expires, int):
        raise HttpError(401, "InvalidAuthenticationToken", "The access token is invalid.")
    if begins > now + _CLOCKS:
        message = "The access token is not yet valid."
        raise HttpError(401, "InvalidAuthenticationToken", message, {"WWW-Authenticate": "Bearer"})
    if expires < now:
        message = "The access token expiry UTC time is earlier than current UTC time."
        raise HttpError(401, "ExpiredAuthenticationToken", message, {"WWW-Authenticate": "Bearer"})


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    owner: AzureMLServer

    def __init__(self, *arguments: Any) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def end_connections(self) -> None:
        """Clients keep theirs open."""
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is none of our business."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def handle_one(self) -> None:
        owner, begun = self.server.owner, time.monotonic()
        parts = urlsplit(self.path)
        body = self._body()
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, parts.path, dict(parse_qsl(parts.query)), headers, body)
        if headers.get("upgrade", "").lower() == "websocket" and PATH in parts.path:
            self._carry(begun)
            return
        try:
            response, cut = owner.respond(request, self.headers.get("Authorization"))
        except Dropped:
            self._close()
            return
        except Exception as error:
            response, cut = HttpError(500, "InternalServerError", f"{type(error).__name__}: {error}").response(), False
            owner.unknown.append(f"{self.command} {parts.path}: {type(error).__name__}: {error}")
        owner.requests.append(
            Seen(self.command, parts.path, response.status, time.monotonic() - begun, begun, len(response.body))
        )
        self._send(response, cut)

    def _carry(self, begun: float) -> None:
        owner, status = self.server.owner, 101
        try:
            owner.faults.meet(self.command, self.path)
            owner.services.serve(self)
        except Dropped:
            self._close()
        except HttpError as error:
            status = error.status
            self._send(error.response(), cut=False)
        owner.requests.append(Seen(self.command, self.path, status, time.monotonic() - begun, begun, 0))

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            found = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                found += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return found
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(self, response: Response, cut: bool) -> None:
        size = response.file.stat().st_size if response.file else len(response.body)
        self.send_response(response.status)
        if size:
            # The storage client takes an empty answer of any type for one that it cannot read.
            self.send_header("Content-Type", response.type)
        self.send_header("Content-Length", str(size))
        self.send_header("x-ms-request-id", "request")
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD" and response.file:
            with response.file.open("rb") as file:
                shutil.copyfileobj(file, self.wfile, 1 << 20)
        elif self.command != "HEAD":
            self.wfile.write(response.body[: len(response.body) // 2] if cut else response.body)
        if cut:
            self._close()

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string(time.time() + self.server.owner.state.clock)

    def _close(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = handle_one

    def log_message(self, format: str, *arguments: Any) -> None:
        """Requests are kept, not printed."""
