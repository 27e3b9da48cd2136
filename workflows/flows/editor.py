"""Sets up an editor: writes the launch configurations and tasks of F5 into launch.json and tasks.json."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import command_name, engines, report
from ..console import Console
from ..debugger import launch_json
from ..settings import Settings
from ..settings_table import BY_FIELD
from ..vscode import chains, mcp_json, tasks_json
from ..vscode.chains import Chain, Compound, ProjectChains
from ..vscode.leftovers import Leftovers
from ..vscode.tasks_json import EditorTask


@dataclass(frozen=True)
class Wanted:
    """How F5 should behave.

    Attributes:
        remote: Run the chains on the remote machine.
        wait: Have a service hold before score.py is loaded.
        follow: Follow the log in the editor's terminal.
        stop_after: When the session ends, end what F5 has started.
        mcp: Also write the server for agents into mcp.json.
    """

    remote: bool = False
    wait: bool = False
    follow: bool = False
    stop_after: bool = False
    mcp: bool = False


@dataclass
class EditorFlow:
    """The steps for one project.

    Attributes:
        settings: The settings.
        console: Where progress is shown.
        wanted: How F5 should behave.
    """

    settings: Settings
    console: Console
    wanted: Wanted

    def setup(self) -> dict[str, Any]:
        """Write both files.

        Raises:
            UserError: One of them cannot be edited, or a file of the project cannot be read.
        """
        project = self.settings.project
        launch_json.check_launch_json(project)
        tasks_json.check_tasks_json(project)
        if self.wanted.mcp:
            mcp_json.check_mcp_json(project)
        engine, word = engines.choose(self.settings.engine)
        if word:
            self.console.line(f"Engine: {word}.")
        # Snapshots are opened on the machine with the editor.
        found = chains.find_chains(self.settings, engine.name, self.wanted.wait, snapshots=not report.is_wanted())
        known = launch_json.read_configurations(project)
        entries = list(chains.launch_configurations(found, known, self._first_port, project))
        if report.is_wanted():
            # The other machine only needs the paths of the code here; it finds the chains itself.
            report.add_configurations({}, "setup", entries)
            report.wait_until_done()
            return {}
        return self._write(found, entries)

    def with_remote(self) -> dict[str, Any]:
        """Add the chains to configurations that the remote machine has reported."""
        # The chains do not depend on an engine.
        found = chains.find_chains(self.settings, "process", self.wanted.wait, snapshots=True)
        project = self.settings.project
        known = launch_json.read_configurations(project)
        entries = list(chains.launch_configurations(found, known, self._first_port, project))
        kept = ("name", "connect")
        past = {chain.name for chain in found.chains if chain.past}
        told = [{key: one[key] for key in kept} for one in entries if one["name"] in known and one["name"] not in past]
        return self._write(found, [*told, *(one for one in entries if one["name"] in past)])

    @property
    def _first_port(self) -> int:
        return self.settings.debug_port or int(BY_FIELD["debug_port"].default)

    def _write(self, found: ProjectChains, entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        project = self.settings.project
        written_before, tasks_before = tasks_json.read_own_tasks(project), tasks_json.read_content(project)
        every: list[Chain | Compound] = [*found.chains, *found.compounds]
        before = {chain.name: self._before(chain) for chain in every}
        ended = [chain for chain in found.chains if chain.ending] if self.wanted.stop_after else []
        after = {chain.name: self._after(chain) for chain in ended}
        tasks = [*before.values(), *after.values()]
        with self.console.step("tasks") as step:
            result = tasks_json.write_tasks(project, tasks)
            step.text = f".vscode/tasks.json {result}"
        full = []
        for entry in entries:
            name = str(entry["name"])
            ending = after[name].label if name in after else ""
            full.append({**entry, "preLaunchTask": before[name].label, "postDebugTask": ending})
        compounds = [
            {
                "name": one.name,
                "configurations": list(one.members),
                "preLaunchTask": before[one.name].label,
                "stopAll": False,
            }
            for one in found.compounds
        ]
        with self.console.step("launch") as step:
            try:
                written = launch_json.write_configurations(project, full, compounds)
            except BaseException:
                # Neither file is of use without the other.
                tasks_json.restore_content(project, tasks_before)
                raise
            step.text = f".vscode/launch.json {written}"
        if self.wanted.mcp:
            with self.console.step("mcp") as step:
                step.text = f".vscode/mcp.json {mcp_json.write_server(project)}"
        left = Leftovers(written_before, [one.name for one in every], [task.label for task in tasks])
        left.remove(project)
        notes = list(found.notes)
        if left.gone:
            notes.append(f"taken out of launch.json, since there is no such thing any more: {'; '.join(left.gone)}")
        if left.kept:
            notes.append(f"there is no such thing any more, and what is yours in it stays: {'; '.join(left.kept)}")
        for note in notes:
            self.console.line(f"  note: {note}")
        return {
            "configurations": [entry["name"] for entry in full],
            "compounds": [entry["name"] for entry in compounds],
            "tasks": [task.label for task in tasks],
        }

    def _before(self, chain: Chain | Compound) -> EditorTask:
        argv = [*chain.argv, *(["--remote"] if self.wanted.remote else [])]
        if self.wanted.follow and isinstance(chain, Chain) and not chain.past:
            argv.append("--follow")
        return EditorTask(self._label(argv), argv, chain.name, stays="--follow" in argv)

    def _after(self, chain: Chain) -> EditorTask:
        argv = [*chain.ending, *(["--remote"] if self.wanted.remote else [])]
        # Each step has its own task, since VS Code does not start a task that is still running.
        return EditorTask(self._label(argv, f" (after {chain.name.partition(': ')[2]})"), argv, chain.name)

    def _label(self, argv: Sequence[str], more: str = "") -> str:
        """The typed command as a label; extended if the user has a task with that name."""
        label = " ".join([command_name.typed(), *argv]) + more
        return f"{label} (F5)" if label in self._taken else label

    @functools.cached_property
    def _taken(self) -> set[str]:
        return tasks_json.read_user_labels(self.settings.project)
