"""A snapshot of a failure on the remote machine, fetched for the local editor."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ..console import Console
from ..models import PathMapping
from ..project import state_folder
from ..received import Refused
from ..settings import Settings
from ..snapshots.snapshot_file import MOST_BYTES
from . import fetch
from .configurations import folder_here
from .remote_paths import RemotePaths
from .request import TypedTask
from .session import Session


class Snapshot:
    """A snapshot that a remote task has chosen.

    Args:
        settings: The local settings.
        console: Where steps are shown.
        paths: Translates paths between the two machines.
        report: The task's report about it.

    Raises:
        Refused: By its name, the file is not a snapshot.
    """

    def __init__(self, settings: Settings, console: Console, paths: RemotePaths, report: Mapping[str, Any]) -> None:
        self._settings, self._console, self._places, self._told = settings, console, paths, report
        name = PurePosixPath(report["path"]).name
        if not (name.startswith("snapshot-") and name.endswith(".json")):
            raise Refused(f"a file that is not a snapshot: {name[:80]}")
        self._folder = state_folder(settings.project, "remote", "snapshots")
        self._name = name

    def fetch(self, session: Session) -> None:
        """Fetch its file and delete earlier ones, which editors have read by now.

        Raises:
            UserError: It cannot be read there or written here.
            Refused: What arrives is not what was requested.
            ConnectionLost: The connection was lost.
        """
        with self._console.step("fetch") as step:
            shutil.rmtree(self._folder, ignore_errors=True)
            wanted = [fetch.RemoteFile(self._told["path"], self._folder, self._name)]
            fetch.fetch(session, wanted, step.detail, MOST_BYTES)
            step.text = self._name

    def open(self, typed: TypedTask) -> None:
        """Open it in the local editor.

        Raises:
            UserError: launch.json cannot be edited, or another program uses its port.
        """
        from ..debugger.any_client import print_endpoints
        from ..flows.snapshots import open_in_editor
        from ..vscode import f5

        only_print = bool(typed.values.get("print"))
        guesses = [*self._mappings("guesses"), PathMapping(self._places.project, self._places.root)]
        result = open_in_editor(
            self._settings,
            self._console,
            self._folder / self._name,
            self._told["configuration"],
            self._mappings("mappings"),
            guesses,
            not only_print,
        )
        if only_print:
            print_endpoints(self._console, result)
        else:
            self._console.line(f'Press F5 in VS Code: "{result["launch_configuration"]}"')
        self._console.result(result)
        f5.report_ready(self._settings.project)

    def _mappings(self, name: str) -> list[PathMapping]:
        return [
            PathMapping(Path(folder_here(one["localRoot"], self._places)), one["remoteRoot"])
            for one in self._told[name]
        ]
