"""``--remote``: connect, send the project, run the task there with its output here, bring its debug ports home."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import os
import platform
import re
import secrets
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .. import report as reports
from ..console import Console
from ..errors import UserError
from ..paths import shown
from ..project import state_folder
from ..settings import Settings
from ..vscode import pressed
from . import fetch, frames, request, sync, tunnels
from .address import Address, resolve
from .configurations import tunnels as tunnels_of
from .configurations import write
from .local_files import LocalFile, below, project_files
from .places import CARRIED, Places
from .program import Program, program
from .request import Typed
from .session import Lost, Mismatch, Session

#: Seconds for which a lost connection is tried again while a task runs there.
AGAIN_SECONDS = 120.0
#: Tasks that a debugger is brought home from.
ATTACHING = ("debug", "attach", "attach-config", "setup")
#: Tasks that make or change run configurations.
_CONFIGURING = ("experiment.create", "experiment.run", "experiment.debug")
#: Tasks that a person talks to.
_TALKING = ("container.shell",)
_PLACE = re.compile(rb"\b127\.0\.0\.1:(\d{1,5})\b")
#: How often Ctrl-C is passed on before this command gives up on the task.
_PATIENCE = 3


class RemoteTask:
    """The steps of one ``--remote`` command. Each shows itself.

    Args:
        settings: The settings here.
        console: Where steps show themselves.
    """

    def __init__(self, settings: Settings, console: Console) -> None:
        self.settings = settings
        self.console = console
        self.address: Address = resolve(settings)
        self.places = Places(settings.project)
        self.passphrases: dict[str, str] = {}
        self._pool = ThreadPoolExecutor(1)
        self._task = secrets.token_hex(4)

    # Steps

    def connect(self) -> Session:
        """Connect to the machine."""
        with self.console.step("connect") as step:
            step.waiting(str(self.address))
            session = Session.open(self.address, self.passphrases)
            step.text = str(self.address)
        return session

    def list_files(self) -> Future[dict[str, LocalFile]]:
        """Begin to look which files there are, while the connection is made."""
        return self._pool.submit(project_files, self.settings.project, self.places.inside)

    def send(
        self,
        session: Session,
        listed: Future[dict[str, LocalFile]],
        *,
        yes: bool = False,
        take: bool = False,
        update: bool = False,
    ) -> sync.Sent:
        """Make the project's folder there as it is here.

        Raises:
            UserError: The folder is not ours, or the files cannot be sent.
        """
        project = self.settings.project
        with self.console.step("sync") as step:
            found = listed.result()
            for place in self.places.settle_code(found):
                found |= {one.path: one for one in below(place, project)}
            for place in self.places.outside:
                found |= dict(self._carried(place))
            manifest = sync.Manifest(project, hashlib.sha256(str(self.address).encode()).hexdigest()[:8])
            opened = self._open(session, manifest.sync, take=take, update=update)
            self.places.root = opened["root"]
            there = opened.get("files", manifest.files)
            wanted = sync.changes(found, there, opened["drifted"])
            wanted = self._without_unnamed(wanted, opened.get("named", []))
            what = self._largest(wanted)
            sync.ask_first(self.console.line, what, wanted.size, yes)
            current: dict[str, LocalFile] = dict(found)
            kept: tuple[str, ...] = ()
            state = opened["sync"]
            if wanted.send or wanted.delete:
                answer, read = sync.send(session, "files", wanted, step.detail, named=self._named())
                current = {
                    path: read.get(path, one)
                    for path, one in found.items()
                    if path in read or path not in _paths(wanted)
                }
                state, kept = answer["sync"], tuple(answer["kept"])
            # What was sent before and is not named this time is there all the same.
            left = {path: entry for path, entry in there.items() if path not in found and path not in wanted.delete}
            manifest.keep(state, current, left)
            session.ask("close")
            sent = sync.Sent(self.places.root, len(wanted.send), len(wanted.delete), wanted.size, len(found), kept)
            step.text = "; ".join([_in_words(sent), *self._named_sizes(wanted)])
        for path in kept:
            self.console.line(f"  note: a file that was changed there was in the way; it is kept there: {path}")
        return sent

    def _open(self, session: Session, state: str, *, take: bool, update: bool) -> Mapping[str, Any]:
        project = self.settings.project
        owner = f"{getpass.getuser()} on {platform.node()}, {project}"
        version = program(project).version
        folder = self.address.dir or f"azureml-debug/{_plain(project.name)}-{project_id(project)[:8]}"
        ask: dict[str, Any] = {
            "folder": folder,
            "project": project_id(project),
            "owner": owner,
            "version": version,
            "sync": state,
        }
        try:
            return session.ask("open", self.console.line, take=take, update=update, **ask)
        except Mismatch as mismatch:
            if not (
                update
                or self._agrees(f"The folder there was made by version {mismatch}, this is {version}. Update it?")
            ):
                raise UserError(
                    f"The folder there was made by version {mismatch} of this program, and this is {version}.",
                    "Update it: inv remote.sync --update",
                ) from mismatch
            return session.ask("open", self.console.line, take=take, update=True, **ask)

    @staticmethod
    def _agrees(question: str) -> bool:
        if not sys.stdin.isatty():
            return False
        sys.stderr.write(f"{question} [Y/n] ")
        sys.stderr.flush()
        return sys.stdin.readline().strip().lower() in ("", "y", "yes")

    def _carried(self, place: Path) -> Iterator[tuple[str, LocalFile]]:
        """Files outside the project, by their path there."""
        prefix = self.places.relative(place)
        for one in below(place, place if place.is_dir() else place.parent):
            path = f"{prefix}/{one.path}" if place.is_dir() else prefix
            yield path, LocalFile(path, one.full, one.size, one.time, one.mode, one.link)

    def _named(self) -> list[str]:
        return [self.places.relative(place) for place in self.places.named]

    def _without_unnamed(self, wanted: sync.Changes, named: list[str]) -> sync.Changes:
        """Without the deletion of what an earlier command named and this one does not."""
        others = [place for place in named if place not in self._named()]
        project = self.settings.project

        def unnamed(path: str) -> bool:
            """Whether it was named before, and is not gone here: carried files are not looked for."""
            before = any(place in (path, ".") or path.startswith(f"{place}/") for place in others)
            return before and (path.startswith(CARRIED) or os.path.lexists(project / path))

        return sync.Changes(wanted.send, [path for path in wanted.delete if not unnamed(path)])

    def _largest(self, wanted: sync.Changes) -> str:
        """The part of what is sent that weighs most, in words."""
        sizes: dict[str, int] = {}
        for one in wanted.send:
            place = next(
                (str(place) for place in self.places.named if Path(one.full).is_relative_to(place)),
                one.path.split("/")[0],
            )
            sizes[place] = sizes.get(place, 0) + one.size
        if not sizes:
            return ""
        name = max(sizes, key=lambda place: sizes[place])
        return f"{name} ({sync.in_bytes(sizes[name])}) and the rest of {len(wanted.send)} files"

    def _named_sizes(self, wanted: sync.Changes) -> list[str]:
        """What was sent of folders and files that the command names, each with its size."""
        found = []
        for place in self.places.named:
            size = sum(one.size for one in wanted.send if Path(one.full).is_relative_to(place))
            if size and place.is_dir():
                found.append(f"{shown(place)} {sync.in_bytes(size)}")
        return found

    def environment(self, session: Session) -> tuple[str, str]:
        """The Python there that has what the program needs, and where the program's own files are."""
        own = program(self.settings.project)
        with contextlib.ExitStack() as shown:
            step: Any = None

            def report(line: str) -> None:
                nonlocal step
                if step is None:
                    step = shown.enter_context(self.console.step("environment"))
                step.text = made
                step.detail(line)

            made = "the program's own files sent"
            files = self._program_files(session, own, report)
            made = "made, for this and every later command"
            answer = session.ask(
                "environment", report, None, key=own.environment_key, requirements=list(own.requirements)
            )
        return answer["python"], files

    @staticmethod
    def _program_files(session: Session, own: Program, report: Callable[[str], None]) -> str:
        if not own.files:
            return ""
        answer = session.ask("program", key=own.key)
        if not answer["there"]:
            report("the program's own files")
            answer, _read = sync.send(
                session, "program", sync.Changes(list(own.files), []), report, key=own.key, files=True
            )
        return str(answer["root"])

    def run(self, session: Session, typed: Typed, python: str, files: str) -> int:
        """Run the task there; its exit code."""
        environ = request.environ(typed, self.settings, self.places)
        if files:
            environ["PYTHONPATH"] = files
        environ[reports.TYPED] = reports.typed()
        if pressed.name():
            environ[pressed.VARIABLE] = pressed.name()
        asked = {
            "do": "task",
            "task": f"{time.strftime('%Y%m%d-%H%M%S')}-{self._task}",
            "root": self.places.root,
            "cwd": request.folder(self.places),
            "argv": [python, "-m", "invoke", *request.argv(typed, self.places)],
            "environ": environ,
            "tty": _terminal(),
            "interactive": typed.name in _TALKING,
        }
        return _Follower(self, session, asked, typed).follow()


class _Follower:
    """Shows here what a task says there, and does here what it reports."""

    def __init__(self, task: RemoteTask, session: Session, asked: dict[str, Any], typed: Typed) -> None:
        self._task = task
        self._session = session
        self._asked = asked
        self._typed = typed
        self._offset = 0
        self._folder = ""
        self._boot = ""
        self._interrupts = 0
        self._passed = 0
        self._result: dict[str, Any] | None = None
        #: Ports there and the ones here that lead to them.
        self._ports: dict[int, int] = tunnels.ports(task.settings.project, task.address)
        self._last: dict[str, Any] = {}
        #: Files that are to come here.
        self._wanted: dict[str, Any] = {}

    def follow(self) -> int:
        """Stay until the task has ended; its exit code."""
        self._session.send(**self._asked)
        with self._signals(), self._typing():
            while True:
                try:
                    code = self._stream()
                    break
                except Lost:
                    self._again()
        with contextlib.suppress(Lost):
            self._after()
        if self._result is not None:
            self._task.console.result(self._homely(self._result))
        return code

    def _after(self) -> None:
        """Bring files here that the task has made for this machine."""
        task, console = self._task, self._task.console
        for answer in self._session.answers():
            if answer.get("done"):
                break
        if self._typed.name in _CONFIGURING:
            for name in fetch.bring_configurations(self._session, task.places):
                console.line(f"  note: {name} is as the run there was started with")
        if not self._wanted:
            return
        files = [(str(name), str(path)) for name, path in self._wanted["fetch"]]
        with console.step("fetch") as step:
            if self._wanted["copy"] is not None:
                folder = Path(self._wanted["copy"]).expanduser().absolute()
                count = fetch.copy(self._session, files, folder, step.detail)
                step.text = f"{count} file{'' if count == 1 else 's'} copied to {shown(folder)}"
                self._result = {**(self._result or {}), "folder": str(folder)}
                return
            kept = state_folder(task.settings.project, "remote", "opened", self._wanted["run_id"])
            ((name, path),) = files
            fetch.fetch(self._session, [(path, kept / name)], step.detail)
            step.text = str(shown(kept / name))
        from ..tasks.experiment import open_file

        open_file(kept / name)

    def _stream(self) -> int:
        """Pass on what comes until the task has ended."""
        while True:
            got = self._session.frame(0.1)
            self._pass_interrupts()
            self._session.alive()
            if got is None:
                continue
            kind, payload = got
            if kind in (frames.OUTPUT, frames.ERROR):
                self._count(payload)
                self._show(sys.stdout if kind == frames.OUTPUT else sys.stderr, payload)
                continue
            told = frames.read(payload)
            if "exit" in told:
                return int(told["exit"]) if told["exit"] >= 0 else 1
            if "failure" in told:
                raise UserError(*told["failure"])
            if "started" in told:
                self._folder, self._boot = told["started"], told.get("boot", "")
            elif "report" in told:
                self._count(payload)
                self._reported(told["report"], told["offset"])
                self._session.send(done=told["offset"])

    def _count(self, payload: bytes) -> None:
        """What is known of the task's record, so that a later connection goes on from there."""
        self._offset += frames.HEADER.size + len(payload)

    def _show(self, stream: Any, payload: bytes) -> None:
        """Show what the task says; a port there that has another number here is named by that."""
        if any(there != here for there, here in self._ports.items()):
            payload = _PLACE.sub(lambda match: b"127.0.0.1:%d" % self._ports.get(int(match[1]), int(match[1])), payload)
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
            self._wanted = told
        if "configurations" in told:
            self._bring_home(told["configurations"], offset)

    def _bring_home(self, told: dict[str, Any], offset: int) -> None:
        """Open the tunnels to what can be attached to, and write the launch configurations here."""
        task, console, project = self._task, self._task.console, self._task.settings.project
        if told == self._last:
            # The run's background process and the command have both said it.
            return
        self._last = told
        if not told["owner"]:
            # Nothing runs there yet.
            ports = {entry["name"]: entry["connect"]["port"] for entry in told["entries"]}
            write(project, told, task.places, ports)
            return
        owner = {**told["owner"], "boot": self._boot}
        wanted = tunnels_of(told)
        with console.step("tunnel") as step:
            step.waiting("the connection that stays")
            name = str(told["owner"].get("run") or told["owner"].get("service"))
            report = (f"{self._folder}/report.jsonl", offset)
            # A service that is replaced hands its tunnels on; every run has its own.
            ports = tunnels.ensure(project, task.address, task.passphrases, task.places, owner, name, report, wanted)
            for entry in wanted:
                self._ports[entry["port"]] = ports[entry["name"]]
            step.text = _tunnel_text(wanted, ports)
        with console.step("attach-config") as step:
            step.text = f".vscode/launch.json {write(project, told, task.places, ports)}"
        pressed.check(project)

    def _homely(self, value: Any, key: str = "") -> Any:
        """A result as it is seen from here: ports and paths of this machine."""
        if isinstance(value, dict):
            found = {name: self._homely(one, name) for name, one in value.items()}
            if "port" in value and "host" in value and value["port"] in self._ports:
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

    # A connection that was lost

    def _again(self) -> None:
        """Connect again and go on where it was.

        Raises:
            UserError: It does not come back.
        """
        console, address = self._task.console, self._task.address
        if not self._folder:
            raise UserError(
                f"The connection to {address} was lost before the task had been started there.", "Run it again."
            )
        self._session.close()
        deadline = time.monotonic() + AGAIN_SECONDS
        sys.stderr.write(f"\nThe connection to {address} was lost; the task goes on there. Connecting again ...\n")
        while True:
            try:
                self._session = Session.open(address, self._task.passphrases)
                self._session.send(do="resume", root=self._asked["root"], task=self._asked["task"], offset=self._offset)
                break
            except (UserError, Lost) as error:
                if time.monotonic() > deadline or self._interrupts > self._passed:
                    story = self._typed.name.partition(".")[0]
                    pick = (
                        f"inv {story}.attach --remote"
                        if story in ("pipeline", "experiment")
                        else f"inv {story}.debug --remote"
                    )
                    raise UserError(
                        f"The connection to {address} was lost and has not come back; what was started there goes on.",
                        f"Pick it up: {pick}",
                    ) from error
                time.sleep(0.5)
        console.line("Connected again.")

    # What the person does

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Have Ctrl-C stop the task there instead of this command."""

        def interrupt(number: int, frame: object) -> None:
            self._interrupts += 1
            if self._interrupts >= _PATIENCE:
                raise KeyboardInterrupt

        before = {}
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, interrupt)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _pass_interrupts(self) -> None:
        while self._passed < self._interrupts:
            self._session.send(signal="INT")
            self._passed += 1

    @contextlib.contextmanager
    def _typing(self) -> Iterator[None]:
        """Hand what is typed to a task that a person talks to."""
        if not self._asked["interactive"] or not self._asked["tty"] or not sys.stdin.isatty() or os.name == "nt":
            yield
            return
        import termios
        import threading
        import tty

        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
        over = threading.Event()

        def read() -> None:
            import select

            while not over.is_set():
                if select.select([descriptor], [], [], 0.1)[0]:
                    data = os.read(descriptor, 4096)
                    with contextlib.suppress(Lost):
                        self._session.send_raw(frames.frame(frames.TYPED, data))

        tty.setraw(descriptor)
        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def run_there(settings: Settings, console: Console, typed: Typed) -> int:
    """Run a task on the other machine, as if it had been typed here.

    Returns:
        Its exit code.

    Raises:
        UserError: It could not be run there.
    """
    attaching = typed.name.rpartition(".")[2] in ATTACHING
    if attaching:
        from ..debugger.launch_json import check

        check(settings.project)
    task = RemoteTask(settings, console)
    request.named(typed, settings, task.places)
    listed = task.list_files()
    session = task.connect()
    try:
        try:
            task.send(session, listed)
            python, files = task.environment(session)
        except Lost as error:
            raise UserError(
                f"The connection to {task.address} was lost; the task was not started.", "Run it again."
            ) from error
        return task.run(session, typed, python, files)
    finally:
        session.close()


def project_id(project: Path) -> str:
    """Tells this folder of this machine from every other one."""
    return hashlib.sha256(f"{platform.node()}\0{uuid.getnode()}\0{project}".encode()).hexdigest()[:16]


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "project"


def _paths(wanted: sync.Changes) -> set[str]:
    return {one.path for one in wanted.send}


def _in_words(sent: sync.Sent) -> str:
    if not sent.sent and not sent.deleted:
        return f"nothing has changed, {sent.files} files in {sent.root}"
    files = f"{sent.sent} of {sent.files} files sent, {sync.in_bytes(sent.size)}" if sent.sent else ""
    deleted = f"{sent.deleted} deleted" if sent.deleted else ""
    return f"{', '.join(filter(None, [files, deleted]))}, to {sent.root}"


def _tunnel_text(wanted: list[dict[str, Any]], ports: Mapping[str, int]) -> str:
    rows = []
    for entry in wanted[:3]:
        here = ports[entry["name"]]
        moved = f" ({entry['wanted']} is taken here)" if here != entry["wanted"] else ""
        rows.append(f"127.0.0.1:{here}{moved} -> {entry['host']}:{entry['port']} there")
    more = f", and {len(wanted) - 3} more" if len(wanted) > 3 else ""
    return "; ".join(rows) + more


def _terminal() -> dict[str, Any] | None:
    """The terminal that the task is shown on; None where its output goes somewhere else."""
    import shutil

    if not (sys.stdout.isatty() and sys.stderr.isatty()):
        return None
    size = shutil.get_terminal_size()
    return {"columns": size.columns, "lines": size.lines, "term": os.environ.get("TERM", "xterm")}
