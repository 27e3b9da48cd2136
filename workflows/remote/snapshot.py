"""A snapshot of the other machine, brought here for the editor on this one."""

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
    """A snapshot that a task there has chosen.

    Args:
        settings: The settings here.
        console: Where steps show themselves.
        paths: Where the paths of the other machine are here.
        report: What the task says of it.

    Raises:
        Refused: It is no snapshot by its name.
    """

    def __init__(self, settings: Settings, console: Console, paths: RemotePaths, report: Mapping[str, Any]) -> None:
        self._settings, self._console, self._places, self._told = settings, console, paths, report
        name = PurePosixPath(report["path"]).name
        if not (name.startswith("snapshot-") and name.endswith(".json")):
            raise Refused(f"a file that is no snapshot: {name[:80]}")
        self._folder = state_folder(settings.project, "remote", "snapshots")
        self._name = name

    def fetch(self, session: Session) -> None:
        """Bring its file here; those of earlier ones go, since whoever shows one has read it.

        Raises:
            UserError: It cannot be read there or written here.
            Refused: What comes is not what was asked for.
            Lost: The connection is gone.
        """
        with self._console.step("fetch") as step:
            shutil.rmtree(self._folder, ignore_errors=True)
            wanted = [fetch.RemoteFile(self._told["path"], self._folder, self._name)]
            fetch.fetch(session, wanted, step.detail, MOST_BYTES)
            step.text = self._name

    def open(self, typed: TypedTask) -> None:
        """Have the editor here open it.

        Raises:
            UserError: launch.json cannot be edited, or its port is held by another program.
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
