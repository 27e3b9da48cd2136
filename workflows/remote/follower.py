"""Follows a task on the remote machine: shows its output, acts on its reports, and reconnects to it."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import received
from ..console import output_errors
from ..errors import Interrupted, UserError
from ..paths import shown
from ..project import state_folder
from ..received import Refused
from ..terminal import Output, printable
from ..vscode import f5
from . import fetch, frames, latest_run, tunnels
from .configurations import ports_of, write
from .configurations import tunnels as tunnels_of
from .container_editor import open_remote_container
from .local_terminal import LocalTerminal
from .messages import CONTAINER, PLACE, TASK, TUNNELS
from .request import TypedTask
from .session import ConnectionLost, Session
from .snapshot import Snapshot

if TYPE_CHECKING:
    from .task import RemoteTask

#: Seconds for which the program tries to restore a lost connection.
RECONNECT_SECONDS = 120.0
#: Seconds before the next attempt. Through a workspace, which limits requests, they grow up to the second number.
RECONNECT_PAUSE, RECONNECT_PAUSE_WORKSPACE = 0.5, 8.0
#: How often files are requested again after the connection was lost.
_ATTEMPTS = 5
#: Tasks that create or change run configurations, and the one that fetches those that are still missing here.
_CONFIGURING, _LISTING = ("experiment.create", "experiment.run", "experiment.debug"), "experiment.list"
#: Tasks that start a run.
_STARTING = ("pipeline.submit", "pipeline.debug", "experiment.run", "experiment.debug")
#: The task that fetches files of a run, and the folders in which a run has them.
_FETCHING, RUN_FOLDERS = "experiment.outputs", ("outputs", "logs")
_PLACE = re.compile(rb"\b127\.0\.0\.1:(\d{1,5})\b")


class Follower:
    """Follows one task until it ends.

    Args:
        task: The ``--remote`` command that it belongs to.
        session: The session with the remote machine.
        asked: The request that starts the task.
        typed: The task as it was typed here.
    """

    def __init__(self, task: RemoteTask, session: Session, asked: dict[str, Any], typed: TypedTask) -> None:
        self._task = task
        self._request = asked
        self._typed = typed
        self._terminal = LocalTerminal(session, asked["tty"], asked["interactive"])
        self._offset = 0
        self._folder = ""
        self._boot = ""
        self._result: dict[str, Any] | None = None
        #: Remote ports and the local ones that lead to them.
        self._ports: dict[int, int] = tunnels.local_ports(task.settings.project, task.address)
        self._last_configurations: dict[str, Any] = {}
        #: Files to fetch: what was requested, and what of it has not arrived yet.
        self._requested_files: dict[str, Any] = {}
        self._remaining_files: list[fetch.RemoteFile] | None = None
        #: A snapshot to open on this machine.
        self._snapshot: Snapshot | None = None
        self._ended = False
        self._screen = Output()

    @property
    def _session(self) -> Session:
        return self._terminal.session

    def follow(self) -> int:
        """Follow the task until it has ended, and return its exit code.

        Raises:
            UserError: The connection was lost and could not be restored, or a result could not be fetched.
            Refused: Something arrives that was not requested or is not valid.
        """
        self._session.send(**self._request)
        with self._terminal.connected():
            while True:
                try:
                    code = self._stream_output()
                    break
                except ConnectionLost:
                    self._reconnect()
                    self._task.console.line("Connected again.")
        self._ended = True
        if code == 0:
            self._record_latest_run()
        self._fetch_all()
        self._open_file()
        if self._snapshot is not None:
            self._snapshot.open(self._typed)
        if self._result is not None:
            self._show_result(self._with_local_places(self._result))
        return code

    def _show_result(self, result: dict[str, Any]) -> None:
        console = self._task.console
        if self._typed.values.get("print"):
            from ..debugger.any_client import list_endpoints, print_endpoints

            received.each(PLACE, TUNNELS)(list_endpoints(result), "places to attach to")
            print_endpoints(console, result)
        if self._typed.name == "container.code":
            found = CONTAINER(result, "a container")
            result |= open_remote_container(self._task.settings, self._task.address, console, found)
        console.result(result)

    def _record_latest_run(self) -> None:
        """Record that the newest run is on the remote machine, if this task has started one."""
        if self._typed.name in _STARTING:
            latest_run.record(self._task.settings.project, self._typed.name.partition(".")[0], self._task.address)

    def _stream_output(self) -> int:
        """Handle what arrives until the task has ended, and return its exit code."""
        while True:
            got = self._session.frame(0.1)
            self._terminal.pass_on()
            self._session.send_keepalive()
            if got is None:
                continue
            kind, payload = got
            if kind in (frames.OUTPUT, frames.ERROR):
                self._advance_offset(payload)
                self._show_output(sys.stdout if kind == frames.OUTPUT else sys.stderr, payload)
                continue
            if kind != frames.MESSAGE:
                raise Refused("the content of a file where a task's output has to come")
            report = TASK(frames.read(payload), "a message of the task")
            if "exit" in report:
                return int(report["exit"]) if report["exit"] >= 0 else 1
            if "failure" in report:
                raise UserError(*report["failure"])
            if "started" in report:
                self._folder, self._boot = report["started"], report.get("boot", "")
            elif "report" in report:
                self._advance_offset(payload)
                self._handle_report(report["report"], report.get("offset", 0))
                self._session.send(done=report.get("offset", 0))

    def _advance_offset(self, payload: bytes) -> None:
        """Advance the offset in the task's output, from which a later connection continues."""
        self._offset += frames.HEADER.size + len(payload)

    def _show_output(self, stream: Any, payload: bytes) -> None:
        """Show the task's output, with remote ports replaced by the local ones that lead to them."""
        if any(there != here for there, here in self._ports.items()):
            payload = _PLACE.sub(lambda match: b"127.0.0.1:%d" % self._ports.get(int(match[1]), int(match[1])), payload)
        if stream.isatty() and not self._request["interactive"]:
            # Only an interactive program may send commands to the terminal, as with ssh.
            payload = self._screen.take(payload)
        with output_errors(stream):
            if hasattr(stream, "buffer"):
                stream.flush()
                stream.buffer.write(payload)
            else:
                stream.write(payload.decode(errors="replace"))
            stream.flush()

    # What the task reports

    def _handle_report(self, report: dict[str, Any], offset: int) -> None:
        if "result" in report:
            self._result = report["result"]
        if "fetch" in report:
            self._requested_files = self._check_files(report)
        if "snapshot" in report:
            if not self._typed.values.get("snapshot"):
                raise Refused("a snapshot that was not asked for")
            self._snapshot = Snapshot(self._task.settings, self._task.console, self._task.paths, report["snapshot"])
        if "configurations" in report:
            self._open_tunnels(report["configurations"], offset)

    def _check_files(self, report: dict[str, Any]) -> dict[str, Any]:
        """Check that this command has requested the reported files, and return them with the folder typed here."""
        opened, copied = (self._typed.values.get(name) for name in ("open", "copy"))
        if self._typed.name != _FETCHING or (opened is None) == (copied is None):
            raise Refused("files that were not asked for")
        run_id = received.name(report.get("run_id"), "a run's id")
        if opened is not None and [one for one, _path in report["fetch"]] != [opened]:
            raise Refused("other files than the one that was asked for")
        if copied is not None:
            for one, _path in report["fetch"]:
                received.one_requested(one.partition("/")[0], RUN_FOLDERS, "a file of a folder")
        return {"fetch": report["fetch"], "copy": copied, "run_id": run_id}

    def _open_tunnels(self, report: dict[str, Any], offset: int) -> None:
        """Open the tunnels to what can be attached to, and write the launch configurations."""
        task, console, project = self._task, self._task.console, self._task.settings.project
        if report == self._last_configurations:
            # The run's background process and the command have both reported it.
            return
        self._last_configurations = report
        self._record_latest_run()
        if not report["owner"]:
            # Nothing runs on the remote machine yet, so this machine chooses the ports.
            ports = {entry["name"]: entry["connect"]["port"] for entry in report["entries"]} | ports_of(project)
            with console.step("attach-config") as step:
                step.text = f".vscode/launch.json {write(project, report, task.paths, ports)}"
            return
        owner = {**report["owner"], "boot": self._boot}
        wanted = tunnels_of(report, self._named_ports())
        with console.step("tunnel") as step:
            step.report_wait("the connection that stays")
            name = str(report["owner"].get("run") or report["owner"].get("service"))
            report_position = (f"{self._folder}/report.jsonl", offset)
            # A service passes its tunnels on to the one that replaces it; each run has its own.
            ports = tunnels.open_tunnels(
                project,
                task.address,
                task.passphrases,
                task.paths,
                owner,
                name,
                report_position,
                wanted,
                self._named_ports(),
            )
            for entry in wanted:
                self._ports[entry["port"]] = ports[entry["name"]]
            step.text = _tunnel_text(wanted, ports)
        if self._typed.values.get("print"):
            return
        with console.step("attach-config") as step:
            step.text = f".vscode/launch.json {write(project, report, task.paths, ports)}"
        f5.check_unchanged(project)

    def _named_ports(self) -> tuple[int, ...]:
        """The ports in the local settings."""
        settings = self._task.settings
        return settings.debug_port, settings.scoring_port

    def _with_local_places(self, value: Any, key: str = "") -> Any:
        """A result with the ports and paths of this machine."""
        if isinstance(value, dict):
            found = {name: self._with_local_places(one, name) for name, one in value.items()}
            if "host" in value and type(value.get("port")) is int and value["port"] in self._ports:
                found |= {"host": "127.0.0.1", "port": self._ports[value["port"]]}
            return found
        if isinstance(value, list):
            return [self._with_local_places(one, key) for one in value]
        if isinstance(value, str):
            if key == "scoring_url":
                return re.sub(r"127\.0\.0\.1:(\d+)", self._local_address, value)
            if key in ("localRoot", "file"):
                return self._task.paths.to_local(value)
        return value

    def _local_address(self, match: re.Match[str]) -> str:
        return f"127.0.0.1:{self._ports.get(int(match[1]), match[1])}"

    # Files to fetch

    def _fetch_all(self) -> None:
        """Fetch all files, over a new connection if this one is lost."""
        if not self._requested_files and self._snapshot is None and self._typed.name not in (*_CONFIGURING, _LISTING):
            return
        resumed = False
        for attempt in range(_ATTEMPTS):
            try:
                if not resumed:
                    # The task's last message.
                    for _answer in self._session.answers("task"):
                        pass
                self._fetch()
                return
            except ConnectionLost as error:
                if attempt == _ATTEMPTS - 1:
                    raise self._not_fetched_error() from error
                self._reconnect()
                resumed = True

    def _fetch(self) -> None:
        task, console = self._task, self._task.console
        if self._typed.name in (*_CONFIGURING, _LISTING):
            only_new = self._typed.name == _LISTING
            for name in fetch.fetch_run_configurations(self._session, task.paths, only_new):
                console.line(f"  note: {name} is as the run there was started with")
        if self._snapshot is not None:
            self._snapshot.fetch(self._session)
        if not self._requested_files:
            return
        with console.step("fetch") as step:
            if self._remaining_files is None:
                self._remaining_files = self._files_to_fetch()
            fetch.fetch(self._session, self._remaining_files, step.detail)
            count, copied = len(self._requested_files["fetch"]), self._requested_files["copy"]
            if copied is None:
                step.text = str(shown(self._opened_file()))
                return
            folder = Path(copied).expanduser().absolute()
            step.text = f"{count} file{'' if count == 1 else 's'} copied to {shown(folder)}"
            self._result = {**(self._result or {}), "folder": str(folder)}

    def _files_to_fetch(self) -> list[fetch.RemoteFile]:
        """The files to fetch, and where they are written."""
        files = [(str(name), str(path)) for name, path in self._requested_files["fetch"]]
        if self._requested_files["copy"] is None:
            return [fetch.RemoteFile(path, self._opened_folder(), name) for name, path in files]
        return fetch.files_to_copy(files, Path(self._requested_files["copy"]).expanduser().absolute())

    def _opened_file(self) -> Path:
        """The local path of a file that is only opened."""
        ((name, _path),) = self._requested_files["fetch"]
        return self._opened_folder() / str(name)

    def _opened_folder(self) -> Path:
        return state_folder(self._task.settings.project, "remote", "opened", self._requested_files["run_id"])

    def _open_file(self) -> None:
        """Open the file that was fetched for ``--open``."""
        if self._requested_files and self._requested_files["copy"] is None:
            from ..open_with import open_file

            open_file(self._opened_file())

    def _not_fetched_error(self) -> UserError:
        """The error that says what was not fetched, and how to fetch it."""
        lost = f"The connection to {self._task.address} was lost and has not come back"
        if self._snapshot is not None:
            return UserError(f"{lost}; the snapshot has not come here.", "Run it again.")
        if not self._requested_files:
            return UserError(
                f"{lost}; the run configurations that the task has made there have not come here.",
                "New ones come with: inv experiment.list --remote; what runs there goes on.",
            )
        count = len(self._requested_files["fetch"])
        left = count if self._remaining_files is None else len(self._remaining_files)
        which = f"{left} of {count} files have" if count > 1 else "the file has"
        again = "copy into another folder" if left < count else "run it again"
        return UserError(
            f"{lost}; {which} not come here.",
            "All of it lies there: "
            f"{again}: inv experiment.outputs --remote --run {self._requested_files['run_id']} ...",
        )

    # Lost connections

    def _reconnect(self) -> None:
        """Connect again and continue where the connection was lost.

        Raises:
            UserError: The connection cannot be restored.
        """
        address, ended = self._task.address, self._ended
        if not self._folder:
            raise UserError(
                f"The connection to {address} was lost before the task had been started there.", "Run it again."
            )
        self._session.close()
        deadline = time.monotonic() + RECONNECT_SECONDS
        pause, most = RECONNECT_PAUSE, RECONNECT_PAUSE if address.instance is None else RECONNECT_PAUSE_WORKSPACE
        goes_on = "not all files had come here" if ended else "the task goes on there"
        sys.stderr.write(f"\nThe connection to {printable(str(address))} was lost; {goes_on}. Connecting again ...\n")
        try:
            with self._terminal.disconnected():
                while True:
                    try:
                        session = Session.open(address, self._task.passphrases)
                        if not ended:
                            root, task = self._request["root"], self._request["task"]
                            session.send(do="resume", root=root, task=task, offset=self._offset)
                        self._terminal.session = session
                        return
                    except Refused:
                        raise
                    except (UserError, ConnectionLost) as error:
                        if time.monotonic() > deadline:
                            raise self._connection_lost_error() from error
                        time.sleep(pause)
                        pause = min(2 * pause, most)
        except KeyboardInterrupt as error:
            report = self._connection_lost_error()
            raise Interrupted(report.problem, report.remedy) from error

    def _connection_lost_error(self) -> UserError:
        if self._ended:
            return self._not_fetched_error()
        story = self._typed.name.partition(".")[0]
        pick = f"inv {story}.attach --remote" if story in ("pipeline", "experiment") else f"inv {story}.debug --remote"
        return UserError(
            f"The connection to {self._task.address} was lost and has not come back; what was started there goes on.",
            f"Pick it up: {pick}",
        )


def _tunnel_text(wanted: list[dict[str, Any]], ports: Mapping[str, int]) -> str:
    rows = []
    for entry in wanted[:3]:
        here = ports[entry["name"]]
        moved = f" ({entry['wanted']} is taken here)" if here != entry["wanted"] != 0 else ""
        rows.append(f"127.0.0.1:{here}{moved} -> {entry['host']}:{entry['port']} there")
    more = f", and {len(wanted) - 3} more" if len(wanted) > 3 else ""
    return "; ".join(rows) + more
