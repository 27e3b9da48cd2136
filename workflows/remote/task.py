"""``--remote``: connects, sends the project, runs the task there, shows its output and forwards its debug ports."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import os
import platform
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .. import command_log, command_name
from .. import report as reports
from ..console import Console
from ..errors import UserError
from ..formatting import format_size
from ..paths import shown
from ..received import sent_by
from ..settings import Settings
from ..terminal import printable
from ..version import __version__
from ..vscode import f5
from . import local_terminal, request, sync
from .address import Address, resolve
from .follower import Follower
from .local_files import LocalFile, files_below, project_files
from .person_id import person_id
from .program import Program, describe_program, requirements
from .remote_paths import OUTSIDE_FOLDER, RemotePaths
from .request import TypedTask
from .session import INSTALL_SECONDS, ConnectionLost, Session, VersionMismatch

#: Tasks whose debug ports are forwarded.
ATTACHING = ("debug", "attach", "attach-config", "setup")
#: Interactive tasks.
_INTERACTIVE = ("container.shell",)


class RemoteTask:
    """The steps of one ``--remote`` command. Each step is shown on the console.

    Args:
        settings: The local settings.
        console: Where the steps are shown.
    """

    def __init__(self, settings: Settings, console: Console) -> None:
        self.settings = settings
        self.console = console
        self.address: Address = resolve(settings)
        self.paths = RemotePaths(settings.project)
        self.passphrases: dict[str, str] = {}
        self._pool = ThreadPoolExecutor(1)
        self._task = secrets.token_hex(4)

    # Steps

    def connect(self) -> Session:
        """Connect to the machine."""
        with self.console.step("connect") as step:
            step.report_wait(str(self.address))
            session = Session.open(self.address, self.passphrases, step.detail)
            step.text = str(self.address)
        return session

    def list_files(self) -> Future[dict[str, LocalFile]]:
        """Begin to list the project's files, while the connection is being opened."""
        return self._pool.submit(project_files, self.settings.project, self.paths.inside)

    def send(
        self,
        session: Session,
        listed: Future[dict[str, LocalFile]],
        *,
        yes: bool = False,
        take: bool = False,
        update: bool = False,
    ) -> sync.SyncResult:
        """Synchronise the remote project folder with the local one.

        Raises:
            UserError: The remote folder belongs to another project, or the files cannot be sent.
        """
        project = self.settings.project
        with self.console.step("sync") as step:
            found = listed.result()
            for place in self.paths.include_untracked_code(found):
                found |= {one.path: one for one in files_below(place, project)}
            for place in self.paths.outside:
                found |= dict(self._files_outside(place))
            manifest = sync.Manifest(project, hashlib.sha256(str(self.address).encode()).hexdigest()[:8])
            opened = self._open(session, manifest.sync, take=take, update=update)
            self.paths.root = opened["root"]
            there = opened.get("files", manifest.files)
            wanted = sync.changes(found, there, opened["drifted"])
            wanted = self._without_unnamed(wanted, opened.get("named", []))
            what = self._largest(wanted)
            sync.confirm_size(self.console.line, what, wanted.size, yes)
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
            # Files that were sent before and are not named this time still exist on the remote machine.
            left = {path: entry for path, entry in there.items() if path not in found and path not in wanted.delete}
            manifest.keep(state, current, left)
            session.request("close")
            sent = sync.SyncResult(self.paths.root, len(wanted.send), len(wanted.delete), wanted.size, len(found), kept)
            step.text = "; ".join([_summary(sent), *self._named_sizes(wanted)])
        for path in kept:
            self.console.line(f"  note: a file that was changed there was in the way; it is kept there: {path}")
        return sent

    def _open(self, session: Session, state: str, *, take: bool, update: bool) -> Mapping[str, Any]:
        project = self.settings.project
        owner = f"{getpass.getuser()} on {platform.node()}, {project}"
        # Before anything is sent, this refuses a program that cannot be installed there.
        requirements()
        folder = self.address.dir or f"azureml-debug/{_safe_name(project.name)}-{project_id(project)[:8]}"
        ask: dict[str, Any] = {
            "folder": folder,
            "project": project_id(project),
            "owner": owner,
            "version": __version__,
            "sync": state,
        }
        try:
            return session.request("open", self.console.line, take=take, update=update, **ask)
        except VersionMismatch as mismatch:
            if not (
                update
                or self._confirm(f"The folder there was made by version {mismatch}, this is {__version__}. Update it?")
            ):
                raise UserError(
                    f"The folder there was made by version {mismatch} of this program, and this is {__version__}.",
                    "Update it: inv remote.sync --update",
                ) from mismatch
            return session.request("open", self.console.line, take=take, update=True, **ask)

    @staticmethod
    def _confirm(question: str) -> bool:
        if not sys.stdin.isatty():
            return False
        sys.stderr.write(f"{printable(question)} [Y/n] ")
        sys.stderr.flush()
        return sys.stdin.readline().strip().lower() in ("", "y", "yes")

    def _files_outside(self, place: Path) -> Iterator[tuple[str, LocalFile]]:
        """Files outside the project, by their remote path."""
        prefix = self.paths.relative(place)
        for one in files_below(place, place if place.is_dir() else place.parent):
            path = f"{prefix}/{one.path}" if place.is_dir() else prefix
            yield path, LocalFile(path, one.full, one.size, one.time, one.mode, one.link)

    def _named(self) -> list[str]:
        return [self.paths.relative(place) for place in self.paths.named]

    def _without_unnamed(self, wanted: sync.Changes, named: list[str]) -> sync.Changes:
        """The changes without deletions of what an earlier command has named and this one has not."""
        others = [place for place in named if place not in self._named()]
        project = self.settings.project

        def unnamed(path: str) -> bool:
            """Whether an earlier command named the file, and it still exists here. Files outside are not checked."""
            before = any(place in (path, ".") or path.startswith(f"{place}/") for place in others)
            return before and (path.startswith(OUTSIDE_FOLDER) or os.path.lexists(project / path))

        return sync.Changes(wanted.send, [path for path in wanted.delete if not unnamed(path)])

    def _largest(self, wanted: sync.Changes) -> str:
        """The largest part of what is sent, as text."""
        sizes: dict[str, int] = {}
        for one in wanted.send:
            place = next(
                (str(place) for place in self.paths.named if Path(one.full).is_relative_to(place)),
                one.path.split("/")[0],
            )
            sizes[place] = sizes.get(place, 0) + one.size
        if not sizes:
            return ""
        name = max(sizes, key=lambda place: sizes[place])
        return f"{name} ({format_size(sizes[name])}) and the rest of {len(wanted.send)} files"

    def _named_sizes(self, wanted: sync.Changes) -> list[str]:
        """The named folders of which something was sent, each with the size that was sent."""
        found = []
        for place in self.paths.named:
            size = sum(one.size for one in wanted.send if Path(one.full).is_relative_to(place))
            if size and place.is_dir():
                found.append(f"{shown(place)} {format_size(size)}")
        return found

    def prepare_environment(self, session: Session) -> tuple[str, str]:
        """Prepare the program on the remote machine; return its Python, and the folder of the program's own files."""
        own = describe_program(self.settings.project)
        with contextlib.ExitStack() as shown:
            step: Any = None

            def report(line: str) -> None:
                nonlocal step
                if step is None:
                    step = shown.enter_context(self.console.step("environment"))
                step.text = made
                step.detail_sometimes(line)

            made = "the program's own files sent"
            files = self._program_files(session, own, report)
            made = "made, for this and every later command"
            wanted: dict[str, Any] = {"key": own.environment_key, "requirements": list(own.requirements)}
            if self.address.python:
                # A named Python gets its own environment, even if there is one of the same version.
                wanted["key"] += f"-{hashlib.sha256(self.address.python.encode()).hexdigest()[:6]}"
            answer = session.request("environment", report, INSTALL_SECONDS, **wanted, code=files or self.paths.root)
        return answer["python"], files

    @staticmethod
    def _program_files(session: Session, own: Program, report: Callable[[str], None]) -> str:
        if not own.files:
            return ""
        answer = session.request("program", key=own.key)
        if not answer["there"]:
            report("the program's own files")
            answer, _read = sync.send(
                session, "program", sync.Changes(list(own.files), []), report, key=own.key, files=True
            )
        return str(answer["root"])

    def run(self, session: Session, typed: TypedTask, python: str, files: str) -> int:
        """Run the task on the remote machine, and return its exit code."""
        environ = request.remote_environment(typed, self.settings, self.paths)
        if files:
            environ["PYTHONPATH"] = files
        environ[reports.TYPED] = reports.typed_command()
        if f5.configuration_name():
            environ[f5.VARIABLE] = f5.configuration_name()
        if verbose := command_log.shown_verbosity():
            environ[command_log.VARIABLE] = str(verbose)
        terminal = local_terminal.terminal()
        asked = {
            "do": "task",
            "task": f"{time.strftime('%Y%m%d-%H%M%S')}-{self._task}",
            "root": self.paths.root,
            "cwd": request.working_directory(self.paths),
            "argv": [python, "-m", command_name.module_name(), *request.remote_arguments(typed, self.paths)],
            "environ": environ,
            "tty": terminal,
            "interactive": typed.name in _INTERACTIVE and terminal is not None and local_terminal.can_type(),
        }
        return Follower(self, session, asked, typed).follow()


def run_remotely(settings: Settings, console: Console, typed: TypedTask) -> int:
    """Run a task on the remote machine as if on this one, and return its exit code.

    Raises:
        UserError: The task could not be run.
    """
    attaching = typed.name.rpartition(".")[2] in ATTACHING and not typed.values.get("print")
    if attaching:
        from ..debugger.launch_json import check_launch_json

        check_launch_json(settings.project)
    task = RemoteTask(settings, console)
    request.include_named_files(typed, settings, task.paths)
    listed = task.list_files()
    with sent_by(str(task.address)):
        session = task.connect()
        try:
            try:
                task.send(session, listed)
                python, files = task.prepare_environment(session)
            except ConnectionLost as error:
                raise UserError(
                    f"The connection to {task.address} was lost; the task was not started.", "Run it again."
                ) from error
            return task.run(session, typed, python, files)
        finally:
            session.close()


def project_id(project: Path) -> str:
    """The identifier of this project folder on this machine."""
    return hashlib.sha256(f"{person_id()}\0{project}".encode()).hexdigest()[:16]


def _safe_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "project"


def _paths(wanted: sync.Changes) -> set[str]:
    return {one.path for one in wanted.send}


def _summary(sent: sync.SyncResult) -> str:
    if not sent.sent and not sent.deleted:
        return f"nothing has changed, {sent.files} files in {sent.root}"
    files = f"{sent.sent} of {sent.files} files sent, {format_size(sent.size)}" if sent.sent else ""
    deleted = f"{sent.deleted} deleted" if sent.deleted else ""
    return f"{', '.join(filter(None, [files, deleted]))}, to {sent.root}"
