"""Shows here what a task on the other machine says, does here what it reports, and comes back to it."""

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
from ..vscode import pressed
from . import fetch, frames, latest, tunnels
from .answers import CONTAINER, PLACE, TASK, TUNNELS
from .configurations import ports_of, write
from .configurations import tunnels as tunnels_of
from .container_editor import open_there
from .local_terminal import LocalTerminal
from .request import Typed
from .session import Lost, Session
from .snapshot import Snapshot

if TYPE_CHECKING:
    from .task import RemoteTask

#: Seconds for which a lost connection is tried again.
AGAIN_SECONDS = 120.0
#: Seconds before the next attempt; the most they grow to where a workspace is asked each time, which counts who asks.
AGAIN_PAUSE, AGAIN_PAUSE_WORKSPACE = 0.5, 8.0
#: How often files are asked for again whose way here was cut.
_ATTEMPTS = 5
#: Tasks that make or change run configurations, and one that brings those that have not come with them.
_CONFIGURING, _LISTING = ("experiment.create", "experiment.run", "experiment.debug"), "experiment.list"
#: Tasks that start a run.
_STARTING = ("pipeline.submit", "pipeline.debug", "experiment.run", "experiment.debug")
#: The one that asks for files of a run, and the folders in which a run has them.
_FETCHING, RUN_FOLDERS = "experiment.outputs", ("outputs", "logs")
_PLACE = re.compile(rb"\b127\.0\.0\.1:(\d{1,5})\b")


class Follower:
    """Stays with one task.

    Args:
        task: Whose it is.
        session: The other machine.
        asked: What starts it there.
        typed: The task as it was typed here.
    """

    def __init__(self, task: RemoteTask, session: Session, asked: dict[str, Any], typed: Typed) -> None:
        self._task = task
        self._asked = asked
        self._typed = typed
        self._terminal = LocalTerminal(session, asked["tty"], asked["interactive"])
        self._offset = 0
        self._folder = ""
        self._boot = ""
        self._result: dict[str, Any] | None = None
        #: Ports there and the ones here that lead to them.
        self._ports: dict[int, int] = tunnels.ports(task.settings.project, task.address)
        self._last: dict[str, Any] = {}
        #: Files that are to come here: what was asked for, and what of it has not come yet.
        self._wanted: dict[str, Any] = {}
        self._left: list[fetch.Wanted] | None = None
        #: A snapshot that is to be opened here.
        self._snapshot: Snapshot | None = None
        self._ended = False
        self._screen = Output()

    @property
    def _session(self) -> Session:
        return self._terminal.session

    def follow(self) -> int:
        """Stay until the task has ended; its exit code.

        Raises:
            UserError: The connection was lost and has not come back, or what the task has made has not come here.
            Refused: Something comes that was not asked for, or that is not what it has to be.
        """
        self._session.send(**self._asked)
        with self._terminal.connected():
            while True:
                try:
                    code = self._stream()
                    break
                except Lost:
                    self._again()
                    self._task.console.line("Connected again.")
        self._ended = True
        if code == 0:
            self._remember()
        self._bring_all()
        self._open()
        if self._snapshot is not None:
            self._snapshot.open(self._typed)
        if self._result is not None:
            self._show_result(self._homely(self._result))
        return code

    def _show_result(self, result: dict[str, Any]) -> None:
        console = self._task.console
        if self._typed.values.get("print"):
            from ..debugger.any_client import endpoints, show_places

            received.each(PLACE, TUNNELS)(endpoints(result), "places to attach to")
            show_places(console, result)
        if self._typed.name == "container.code":
            found = CONTAINER(result, "a container")
            result |= open_there(self._task.settings, self._task.address, console, found)
        console.result(result)

    def _remember(self) -> None:
        """Keep in mind that the newest run is there, if this task has started one."""
        if self._typed.name in _STARTING:
            latest.remember(self._task.settings.project, self._typed.name.partition(".")[0], self._task.address)

    def _stream(self) -> int:
        """Pass on what comes until the task has ended."""
        while True:
            got = self._session.frame(0.1)
            self._terminal.pass_on()
            self._session.alive()
            if got is None:
                continue
            kind, payload = got
            if kind in (frames.OUTPUT, frames.ERROR):
                self._count(payload)
                self._show(sys.stdout if kind == frames.OUTPUT else sys.stderr, payload)
                continue
            if kind != frames.MESSAGE:
                raise Refused("the content of a file where a task's output has to come")
            told = TASK(frames.read(payload), "word of the task")
            if "exit" in told:
                return int(told["exit"]) if told["exit"] >= 0 else 1
            if "failure" in told:
                raise UserError(*told["failure"])
            if "started" in told:
                self._folder, self._boot = told["started"], told.get("boot", "")
            elif "report" in told:
                self._count(payload)
                self._reported(told["report"], told.get("offset", 0))
                self._session.send(done=told.get("offset", 0))

    def _count(self, payload: bytes) -> None:
        """What is known of the task's record, so that a later connection goes on from there."""
        self._offset += frames.HEADER.size + len(payload)

    def _show(self, stream: Any, payload: bytes) -> None:
        """Show what the task says; a port there that has another number here is named by that."""
        if any(there != here for there, here in self._ports.items()):
            payload = _PLACE.sub(lambda match: b"127.0.0.1:%d" % self._ports.get(int(match[1]), int(match[1])), payload)
        if stream.isatty() and not self._asked["interactive"]:
            # A program that is talked to has the whole terminal, as with ssh; nothing else there gives it commands.
            payload = self._screen.take(payload)
        with output_errors(stream):
            if hasattr(stream, "buffer"):
                stream.flush()
                stream.buffer.write(payload)
            else:
                stream.write(payload.decode(errors="replace"))
            stream.flush()

    # What the task reports

    def _reported(self, told: dict[str, Any], offset: int) -> None:
        if "result" in told:
            self._result = told["result"]
        if "fetch" in told:
            self._wanted = self._asked_for(told)
        if "snapshot" in told:
            if not self._typed.values.get("snapshot"):
                raise Refused("a snapshot that was not asked for")
            self._snapshot = Snapshot(self._task.settings, self._task.console, self._task.places, told["snapshot"])
        if "configurations" in told:
            self._bring_home(told["configurations"], offset)

    def _asked_for(self, told: dict[str, Any]) -> dict[str, Any]:
        """The files that are to come, if this command has asked for such ones; where they go was typed here."""
        opened, copied = (self._typed.values.get(name) for name in ("open", "copy"))
        if self._typed.name != _FETCHING or (opened is None) == (copied is None):
            raise Refused("files that were not asked for")
        run_id = received.name(told.get("run_id"), "a run's id")
        if opened is not None and [one for one, _path in told["fetch"]] != [opened]:
            raise Refused("other files than the one that was asked for")
        if copied is not None:
            for one, _path in told["fetch"]:
                received.one_requested(one.partition("/")[0], RUN_FOLDERS, "a file of a folder")
        return {"fetch": told["fetch"], "copy": copied, "run_id": run_id}

    def _bring_home(self, told: dict[str, Any], offset: int) -> None:
        """Open the tunnels to what can be attached to, and write the launch configurations here."""
        task, console, project = self._task, self._task.console, self._task.settings.project
        if told == self._last:
            # The run's background process and the command have both said it.
            return
        self._last = told
        self._remember()
        if not told["owner"]:
            # Nothing runs there yet, so that the ports are this machine's own choice.
            ports = {entry["name"]: entry["connect"]["port"] for entry in told["entries"]} | ports_of(project)
            with console.step("attach-config") as step:
                step.text = f".vscode/launch.json {write(project, told, task.places, ports)}"
            return
        owner = {**told["owner"], "boot": self._boot}
        wanted = tunnels_of(told, self._named_ports())
        with console.step("tunnel") as step:
            step.report_wait("the connection that stays")
            name = str(told["owner"].get("run") or told["owner"].get("service"))
            report = (f"{self._folder}/report.jsonl", offset)
            # A service that is replaced hands its tunnels on; every run has its own.
            ports = tunnels.open_tunnels(
                project,
                task.address,
                task.passphrases,
                task.places,
                owner,
                name,
                report,
                wanted,
                self._named_ports(),
            )
            for entry in wanted:
                self._ports[entry["port"]] = ports[entry["name"]]
            step.text = _tunnel_text(wanted, ports)
        if self._typed.values.get("print"):
            return
        with console.step("attach-config") as step:
            step.text = f".vscode/launch.json {write(project, told, task.places, ports)}"
        pressed.check(project)

    def _named_ports(self) -> tuple[int, ...]:
        """The ports that the settings here name."""
        settings = self._task.settings
        return settings.debug_port, settings.scoring_port

    def _homely(self, value: Any, key: str = "") -> Any:
        """A result as it is seen from here: ports and paths of this machine."""
        if isinstance(value, dict):
            found = {name: self._homely(one, name) for name, one in value.items()}
            if "host" in value and type(value.get("port")) is int and value["port"] in self._ports:
                found |= {"host": "127.0.0.1", "port": self._ports[value["port"]]}
            return found
        if isinstance(value, list):
            return [self._homely(one, key) for one in value]
        if isinstance(value, str):
            if key == "scoring_url":
                return re.sub(r"127\.0\.0\.1:(\d+)", self._here, value)
            if key in ("localRoot", "file"):
                return self._task.places.here(value)
        return value

    def _here(self, match: re.Match[str]) -> str:
        return f"127.0.0.1:{self._ports.get(int(match[1]), match[1])}"

    # Files that the task has made for this machine

    def _bring_all(self) -> None:
        """Bring them here; where the connection is lost meanwhile, from a new one."""
        if not self._wanted and self._snapshot is None and self._typed.name not in (*_CONFIGURING, _LISTING):
            return
        resumed = False
        for attempt in range(_ATTEMPTS):
            try:
                if not resumed:
                    # The task's own last word.
                    for _answer in self._session.answers("task"):
                        pass
                self._bring()
                return
            except Lost as error:
                if attempt == _ATTEMPTS - 1:
                    raise self._missing() from error
                self._again()
                resumed = True

    def _bring(self) -> None:
        task, console = self._task, self._task.console
        if self._typed.name in (*_CONFIGURING, _LISTING):
            only_new = self._typed.name == _LISTING
            for name in fetch.bring_configurations(self._session, task.places, only_new):
                console.line(f"  note: {name} is as the run there was started with")
        if self._snapshot is not None:
            self._snapshot.fetch(self._session)
        if not self._wanted:
            return
        with console.step("fetch") as step:
            if self._left is None:
                self._left = self._chosen()
            fetch.fetch(self._session, self._left, step.detail)
            count, copied = len(self._wanted["fetch"]), self._wanted["copy"]
            if copied is None:
                step.text = str(shown(self._opened()))
                return
            folder = Path(copied).expanduser().absolute()
            step.text = f"{count} file{'' if count == 1 else 's'} copied to {shown(folder)}"
            self._result = {**(self._result or {}), "folder": str(folder)}

    def _chosen(self) -> list[fetch.Wanted]:
        """The files there that are wanted, and where they go."""
        files = [(str(name), str(path)) for name, path in self._wanted["fetch"]]
        if self._wanted["copy"] is None:
            return [fetch.Wanted(path, self._opened_folder(), name) for name, path in files]
        return fetch.for_copy(files, Path(self._wanted["copy"]).expanduser().absolute())

    def _opened(self) -> Path:
        """Where a file lies that is only looked at."""
        ((name, _path),) = self._wanted["fetch"]
        return self._opened_folder() / str(name)

    def _opened_folder(self) -> Path:
        return state_folder(self._task.settings.project, "remote", "opened", self._wanted["run_id"])

    def _open(self) -> None:
        """Show a file that has come for that."""
        if self._wanted and self._wanted["copy"] is None:
            from ..open_with import open_file

            open_file(self._opened())

    def _missing(self) -> UserError:
        """What has not come here, and how to get it."""
        lost = f"The connection to {self._task.address} was lost and has not come back"
        if self._snapshot is not None:
            return UserError(f"{lost}; the snapshot has not come here.", "Run it again.")
        if not self._wanted:
            return UserError(
                f"{lost}; the run configurations that the task has made there have not come here.",
                "New ones come with: inv experiment.list --remote; what runs there goes on.",
            )
        count = len(self._wanted["fetch"])
        left = count if self._left is None else len(self._left)
        which = f"{left} of {count} files have" if count > 1 else "the file has"
        again = "copy into another folder" if left < count else "run it again"
        return UserError(
            f"{lost}; {which} not come here.",
            f"All of it lies there: {again}: inv experiment.outputs --remote --run {self._wanted['run_id']} ...",
        )

    # A connection that was lost

    def _again(self) -> None:
        """Connect again, to go on where it was.

        Raises:
            UserError: It does not come back.
        """
        address, ended = self._task.address, self._ended
        if not self._folder:
            raise UserError(
                f"The connection to {address} was lost before the task had been started there.", "Run it again."
            )
        self._session.close()
        deadline = time.monotonic() + AGAIN_SECONDS
        pause, most = AGAIN_PAUSE, AGAIN_PAUSE if address.instance is None else AGAIN_PAUSE_WORKSPACE
        goes_on = "not all files had come here" if ended else "the task goes on there"
        sys.stderr.write(f"\nThe connection to {printable(str(address))} was lost; {goes_on}. Connecting again ...\n")
        try:
            with self._terminal.disconnected():
                while True:
                    try:
                        session = Session.open(address, self._task.passphrases)
                        if not ended:
                            root, task = self._asked["root"], self._asked["task"]
                            session.send(do="resume", root=root, task=task, offset=self._offset)
                        self._terminal.session = session
                        return
                    except Refused:
                        raise
                    except (UserError, Lost) as error:
                        if time.monotonic() > deadline:
                            raise self._given_up() from error
                        time.sleep(pause)
                        pause = min(2 * pause, most)
        except KeyboardInterrupt as error:
            told = self._given_up()
            raise Interrupted(told.problem, told.remedy) from error

    def _given_up(self) -> UserError:
        if self._ended:
            return self._missing()
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
