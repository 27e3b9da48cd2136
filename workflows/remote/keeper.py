"""The background process that keeps a project's tunnels: ``python -m workflows.remote.keeper PROJECT``.

All tunnels share one SSH connection, which is restored after it was lost. The process ends with the last run or
service that has tunnels. Commands send it requests on 127.0.0.1, with a key that only this user can read.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import sys
import threading
import time
from dataclasses import dataclass, field
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from pathlib import Path
from typing import Any

from .. import process_identity as identity
from .. import tracebacks
from ..background import log, without_mock
from ..debuggee.azureml_debuggee.peers import is_allowed
from ..errors import UserError
from ..project import read_json, write_json
from ..received import Refused
from . import frames
from .address import Address
from .configurations import apply
from .forwarding import Forward
from .messages import TUNNELS, WATCHED
from .remote_paths import RemotePaths
from .session import ALIVE_SECONDS, ConnectionLost, Session
from .tunnels import keeper_file

#: Seconds between two checks whether the process is still needed.
CHECK_SECONDS = 0.5
#: Seconds without a tunnel after which the process ends, and seconds to wait for the first tunnel.
IDLE_SECONDS, FIRST_SECONDS = 2.0, 300.0
#: Seconds without a connection after which it gives up. A laptop may be suspended over the weekend.
GIVE_UP_SECONDS = 72 * 3600.0
#: The most commands that report on one run or service.
_REPORTS = 1000
#: Seconds before another attempt to connect: the first pause and the longest.
RETRY_FIRST, RETRY_MOST = 0.3, 5.0
#: The longest pause for a machine that is reached through a workspace, which limits requests.
RETRY_MOST_WORKSPACE = 30.0
#: Seconds to wait after a failed accept.
_PAUSE = 0.05


@dataclass
class _Owner:
    """A run or service that has tunnels."""

    name: str
    value: dict[str, Any]
    paths: RemotePaths
    number: int
    #: The ports in the settings of the command that opened the tunnels.
    ports_named: tuple[int, ...] = ()
    forwards: dict[str, Forward] = field(default_factory=dict)
    #: Remote files to which it reports, one for each command, and the offset up to which each has been read.
    reports: dict[str, int] = field(default_factory=dict)

    def request(self) -> dict[str, Any]:
        """The message with which the remote machine begins to watch it."""
        return {"name": self.name, "owner": self.value, "number": self.number, "reports": self.reports}


class Keeper:
    """Keeps the tunnels of one project to one machine."""

    def __init__(self, project: Path, address: Address, passphrases: dict[str, str], key: bytes) -> None:
        self._project = project
        self._address = address
        self._passphrases = passphrases
        self._key = key
        #: Identifies this process to the machine, so that a new connection replaces a broken one.
        self._name = os.urandom(8).hex()
        #: Numbers of owners, which distinguish an owner from the one that it has replaced.
        self._count = itertools.count(1)
        self._owners: dict[str, _Owner] = {}
        self._lock = threading.RLock()
        self._session: Session | None = None
        self._connected = threading.Condition()
        self._problem = ""
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._since = self._used = time.monotonic()
        self._served = False

    # The connection

    def stay_connected(self) -> None:
        """Connect, and reconnect whenever the connection is lost."""
        pause, most = RETRY_FIRST, RETRY_MOST if self._address.instance is None else RETRY_MOST_WORKSPACE
        while not self._stopped.is_set():
            self._wake.clear()
            session: Session | None = None
            try:
                session = Session.open(self._address, self._passphrases)
                session.send(do="watch", keeper=self._name)
                with self._lock:
                    for owner in self._owners.values():
                        session.send(**owner.request())
                    with self._connected:
                        self._session, self._problem = session, ""
                        self._connected.notify_all()
            except Refused as error:
                with self._connected:
                    self._problem = Refused(error.what, str(self._address)).problem
                    self._connected.notify_all()
                self._log(self._problem)
                self._stopped.set()
                return
            except Exception as error:
                # Whatever the error is, the next attempt may succeed.
                if session is not None:
                    session.close()
                problem = str(error) or type(error).__name__
                with self._connected:
                    if problem != self._problem:
                        self._log(f"no connection: {problem}")
                    self._problem = problem
                    self._connected.notify_all()
                self._wake.wait(pause)
                pause = min(2 * pause, most)
                continue
            self._log("connected")
            pause = RETRY_FIRST
            try:
                self._watch(session)
            except Refused as error:
                # The machine would send the same invalid message again.
                self._log(Refused(error.what, str(self._address)).problem)
                self._stopped.set()
            except Exception as error:
                self._log(f"the connection was lost: {error or type(error).__name__}")
            with self._connected:
                self._session = None
            self._since = time.monotonic()
            session.close()

    def _watch(self, session: Session) -> None:
        """Handle messages about owners until the connection is lost."""
        while not self._stopped.is_set():
            got = session.frame(ALIVE_SECONDS)
            session.send_keepalive()
            if got is None:
                continue
            message = frames.read(got[1])
            if "name" not in message:
                continue
            message = WATCHED(message, "a message about a run or service")
            with self._lock:
                owner = self._owners.get(message["name"])
            if owner is None:
                continue
            if message.get("over"):
                self._log(f"{owner.name} is over")
                self.drop_owner(owner.name, message.get("number", 0))
            elif "report" in message and "path" in message and "offset" in message:
                if message["path"] not in owner.reports and len(owner.reports) >= _REPORTS:
                    raise Refused(f"reports in more than {_REPORTS} files of {owner.name[:80]}")
                owner.reports[message["path"]] = message["offset"]
                self._apply_report(owner, message["report"])

    def _apply_report(self, owner: _Owner, message: dict[str, Any]) -> None:
        """Apply new launch configurations that a remote background process has reported."""
        if "configurations" not in message:
            return
        try:
            apply(
                self._project,
                message["configurations"],
                owner.paths,
                owner.ports_named,
                lambda wanted: self.open_tunnels(owner, wanted),
            )
        except Refused:
            raise
        except (UserError, OSError) as error:
            # launch.json cannot be read at the moment; `attach` can write it later.
            self._log(str(error))

    def transport(self, seconds: float) -> Any:
        """The connection's transport, after waiting up to some seconds for it; None if there is no connection."""
        deadline = time.monotonic() + seconds
        with self._connected:
            while not self._stopped.is_set():
                session = self._session
                if session is not None and session.connection.transport.is_active():
                    return session.connection.transport
                self._wake.set()
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                self._connected.wait(min(left, 1.0))
        return None

    # Tunnels

    def open_tunnels(self, owner: _Owner, wanted: list[dict[str, Any]]) -> dict[str, int]:
        """Open an owner's tunnels, unless they are open, and return the local ports by the tunnels' names."""
        with self._lock:
            self._served = True
            new = {entry["name"] for entry in wanted} - set(owner.forwards)
            if len(owner.forwards) + len(new) > TUNNELS:
                raise Refused(f"more than {TUNNELS} places to attach to in {owner.name[:80]}")
            for entry in wanted:
                at = entry["name"]
                known = owner.forwards.get(at)
                if known is not None and known.host == entry["host"]:
                    # Existing connections stay; new ones lead to the new port.
                    known.port = entry["port"]
                    continue
                if known is not None:
                    known.close()
                taken = frozenset(one.local for other in self._owners.values() for one in other.forwards.values())
                owner.forwards[at] = Forward(
                    entry["what"], entry["host"], entry["port"], entry["wanted"], self.transport, taken
                )
            self._mark_used()
            return {name: one.local for name, one in owner.forwards.items()}

    def drop_owner(self, name: str, number: int = 0) -> None:
        """Close an owner's tunnels; with a number, only if the owner has not been replaced."""
        with self._lock:
            owner = self._owners.get(name)
            if owner is not None and number in (0, owner.number):
                del self._owners[name]
                for forward in owner.forwards.values():
                    forward.close()
                self._used = time.monotonic()
                self._mark_used()

    def _mark_used(self) -> None:
        """Note that the tunnels have just been used or changed."""
        self._used = time.monotonic()

    # Requests of commands

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Handle a command's request and return the answer."""
        if request["do"] == "ensure":
            return self._handle_ensure(request)
        if request["do"] == "list":
            with self._lock:
                forwards = [
                    {**one.as_json(), "belongs_to": owner.name}
                    for owner in self._owners.values()
                    for one in owner.forwards.values()
                ]
            return {"tunnels": forwards, "to": str(self._address), "problem": self._describe_problem()}
        if request["do"] == "stop":
            names = request.get("names")
            with self._lock:
                found = [name for name in self._owners if names is None or name in names]
                count = sum(len(self._owners[name].forwards) for name in found)
            for name in found:
                self.drop_owner(name)
            if names is None:
                self._stopped.set()
            return {"closed": count}
        return {"to": str(self._address)}

    def _describe_problem(self) -> str:
        with self._connected:
            if self._session is not None:
                return ""
            return self._problem.partition("\n")[0] or "connecting"

    def _handle_ensure(self, request: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            name = request["name"]
            paths = RemotePaths(self._project, request["root"], [Path(path) for path in request["named"]])
            owner = self._owners.get(name)
            if owner is None or owner.value != request["owner"]:
                before = owner.forwards if owner is not None else {}
                number = next(self._count)
                owner = _Owner(name, request["owner"], paths, number, forwards=before)
                self._owners[name] = owner
            owner.paths, owner.ports_named = paths, tuple(request["ports_named"])
            if request["report"]:
                known = owner.reports.get(request["report"], 0)
                owner.reports[request["report"]] = max(known, request["offset"])
            # The owner can reuse the ports of the one that it replaces.
            try:
                ports = self.open_tunnels(owner, request["tunnels"])
            except Refused as error:
                return {"problem": error.problem}
            except OSError as error:
                return {"problem": f"no port can be listened on here: {error}"}
        deadline = time.monotonic() + request["seconds"]
        while self.transport(0.2) is None:
            with self._connected:
                problem = self._problem
            if self._stopped.is_set() or time.monotonic() > deadline:
                return {"problem": problem or "the connection does not come back"}
            if problem and request.get("fresh"):
                return {"problem": problem}
        with self._connected, contextlib.suppress(ConnectionLost):
            if self._session is not None:
                self._session.send(**owner.request())
        return {"ports": ports}

    # The process

    def serve(self, listener: socket.socket) -> None:
        """Accept commands of this user. Connections of other users are closed before anything is read."""
        while not self._stopped.is_set():
            try:
                peer, _address = listener.accept()
            except OSError:
                if listener.fileno() == -1:
                    return
                # No file descriptor is left, or the client has gone before it was accepted.
                time.sleep(_PAUSE)
                continue
            if not is_allowed(peer):
                peer.close()
                continue
            peer.setblocking(True)
            client = Connection(peer.detach())
            try:
                threading.Thread(target=self._handle_client, args=(client,), daemon=True).start()
            except RuntimeError:  # no thread is left
                client.close()

    def _handle_client(self, client: Connection) -> None:
        # The key is checked in this thread, so that a client that sends nothing does not block others.
        # An invalid answer raises an AssertionError up to Python 3.11.
        with client, contextlib.suppress(EOFError, OSError, ValueError, AssertionError, AuthenticationError):
            deliver_challenge(client, self._key)
            answer_challenge(client, self._key)
            client.send_bytes(json.dumps(self.answer(json.loads(client.recv_bytes()))).encode())

    def run_until_unused(self) -> None:
        """Wait until the process is no longer needed, then close everything."""
        file = keeper_file(self._project)
        own = os.getpid()
        while not self._stopped.wait(CHECK_SECONDS):
            known = read_json(file) or {}
            if not self._project.is_dir() or (known.get("process") or {}).get("pid") != own:
                self._log("the project is gone, or another keeper has come")
                break
            with self._lock:
                idle = not self._owners
            now = time.monotonic()
            if idle and now - self._used > (IDLE_SECONDS if self._served else FIRST_SECONDS):
                self._log("no tunnel is left")
                break
            if self._session is None and now - self._since > GIVE_UP_SECONDS:
                self._log("the machine has not been seen for too long")
                break
        self._stopped.set()
        self._wake.set()
        for name in list(self._owners):
            self.drop_owner(name)
        session = self._session
        if session is not None:
            session.close()

    @staticmethod
    def _log(text: str) -> None:
        log(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}")


def main(project: Path) -> int:
    """Keep tunnels open until none is needed any more."""
    tracebacks.install()
    with without_mock():
        import fabric  # noqa: F401
    message = json.loads(sys.stdin.buffer.read())
    key = os.urandom(32)
    address = Address.from_json(message["address"])
    keeper = Keeper(project, address, dict(message["passphrases"]), key)
    if address.instance is not None:
        from ..azureml.relay import tokens

        tokens.import_token(address.instance, message["token"])
    # The command asks for passphrases, never this process.
    sys.stdin = open(os.devnull)  # noqa: SIM115
    listener = socket.create_server(("127.0.0.1", 0))
    file = keeper_file(project)
    _private_json(
        file,
        {
            "port": listener.getsockname()[1],
            "key": key.hex(),
            "process": identity.identify(os.getpid()),
            "address": message["address"],
        },
    )
    threading.Thread(target=keeper.stay_connected, daemon=True).start()
    threading.Thread(target=keeper.serve, args=(listener,), daemon=True).start()
    try:
        keeper.run_until_unused()
    finally:
        known = read_json(file) or {}
        if (known.get("process") or {}).get("pid") == os.getpid():
            with contextlib.suppress(OSError):
                file.unlink()
    return 0


def _private_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON file that only this user can read. It is private from the start."""
    before = os.umask(0o077)
    try:
        write_json(path, value)
    finally:
        os.umask(before)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
